"""Pictures become arrays; what is no such picture is told so."""

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tfs_helpers.errors import InputError
from tfs_helpers.pictures import eyes, load_picture

NAMES = ["astronaut_left", "astronaut_right", "cat_left", "cat_right"]


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_the_eyes_are_there_small_and_told_of() -> None:
    assert list(eyes()) == NAMES
    folder = eyes()["cat_left"].parent
    told = (folder / "README.md").read_text()
    for name, path in eyes().items():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.stat().st_size < 15_000
        assert f"`{name}.png`" in told
        with Image.open(path) as image:
            assert (image.mode, image.size, image.info) == ("L", (128, 128), {})
    assert "CC0" in told
    assert "public domain" in told
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in eyes().values()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_eye_is_what_the_encoder_takes(name: str) -> None:
    picture = load_picture(eyes()[name])
    assert (picture.dtype, picture.shape) == (np.float32, (128, 128, 1))
    assert picture.flags.c_contiguous
    with Image.open(eyes()[name]) as image:
        grey = np.array(image)
    np.testing.assert_array_equal(np.rint(picture[:, :, 0] * 255).astype(int), grey)
    assert 0 <= picture.min() < 0.2
    assert 0.6 < picture.max() <= 1
    assert picture.std() > 0.05


def test_black_is_0_and_white_is_1(tmp_path: Path) -> None:
    pixels = np.zeros((128, 128), np.uint8)
    pixels[3, 5] = 255
    picture = load_picture(str(saved(Image.fromarray(pixels), tmp_path / "point.png")))
    assert picture[3, 5, 0] == 1
    assert picture.sum() == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colour_becomes_luma(tmp_path: Path, mode: str) -> None:
    colours = noise(128, 128, 3)
    if mode == "P":
        colours = colours // 128 * 255  # eight colours, as many as a palette can hold
    image = Image.fromarray(colours).convert(mode)
    path = saved(image, tmp_path / ("colour.tiff" if mode == "CMYK" else "colour.png"))
    luma = np.array(image.convert("RGB"), float) @ [0.299, 0.587, 0.114]
    assert np.abs(load_picture(path)[:, :, 0] * 255 - luma).max() <= (0.51 if mode != "CMYK" else 2)


def test_the_size_is_height_by_width(tmp_path: Path) -> None:
    wide = saved(Image.fromarray(noise(20, 30)), tmp_path / "wide.png")
    assert load_picture(wide, size=(20, 30)).shape == (20, 30, 1)
    with pytest.raises(InputError, match=r"is 20 x 30 pixels \(height x width\), not 30 x 20\.\n"):
        load_picture(wide, size=(30, 20))
    with pytest.raises(InputError, match=r"not 128 x 128\.\n.*\n.*resize\(\(128, 128\)\)"):
        load_picture(wide)


def test_what_cannot_be_told_from_the_file_is_not_guessed(tmp_path: Path) -> None:
    deep = saved(Image.fromarray(np.full((128, 128), 40_000, np.uint16)), tmp_path / "deep.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        load_picture(deep)
    real = saved(Image.fromarray(np.ones((128, 128), np.float32)), tmp_path / "real.tiff")
    with pytest.raises(InputError, match="more than 8 bits"):
        load_picture(real)
    glass = Image.fromarray(noise(128, 128, 3)).convert("RGBA")
    glass.putpixel((9, 9), (1, 2, 3, 254))
    with pytest.raises(InputError, match="seen through"):
        load_picture(saved(glass, tmp_path / "glass.png"))
    palette = Image.fromarray(np.zeros((128, 128), np.uint8), "L").convert("P")
    with pytest.raises(InputError, match="seen through"):
        load_picture(saved(palette, tmp_path / "palette.png", transparency=0))


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no picture .*nothing\.png\."):
        load_picture(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_picture(tmp_path)
    (tmp_path / "text.png").write_text("an eye")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_picture(tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes(eyes()["cat_left"].read_bytes()[:4000])
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_picture(tmp_path / "half.png")
    huge = Image.new("1", (20_000, 20_000))
    with pytest.raises(InputError, match=r"far too large\.\n.*decompression.*\.\nThe picture must be 128 x 128"):
        load_picture(saved(huge, tmp_path / "huge.png"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 8102), st.binary(min_size=1, max_size=8))
def test_a_damaged_picture_is_read_or_refused_but_nothing_else(tmp_path: Path, at: int, damage: bytes) -> None:
    content = bytearray(eyes()["cat_left"].read_bytes())
    content[at : at + len(damage)] = damage
    path = tmp_path / "damaged.png"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert load_picture(path).shape == (128, 128, 1)


def test_pillow_is_needed_only_when_a_picture_is_read() -> None:
    code = """
import sys
sys.modules["PIL"] = None  # as if it were not installed
from tfs_helpers.pictures import eyes, load_picture
from tfs_helpers.errors import InputError
try:
    load_picture(eyes()["cat_left"])
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("Pillow, which reads pictures, is not installed.\nTry: pip install pillow\n")
