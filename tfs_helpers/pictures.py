"""Pictures as arrays: the eyes that the tutorial ships, and your own.

picture = load_picture(eyes()["cat_left"])      # float32 (128, 128, 1), 0..1
batch = picture[np.newaxis]                     # what the encoder takes: (1, 128, 128, 1)
"""

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfs_helpers.errors import InputError

__all__ = ["eyes", "load_picture"]

_EYES = Path(__file__).parent / "data" / "eyes"


def eyes() -> dict[str, Path]:
    """The eyes that the package ships, by name.

    Returns:
        Paths of grey PNG files of 128 x 128, in the order of their names. Left
        and right are the animal's own. Sources and licences: `data/eyes/README.md`.
    """
    return {path.stem: path for path in sorted(_EYES.glob("*.png"))}


def load_picture(path: str | PathLike[str], size: tuple[int, int] = (128, 128)) -> NDArray[np.float32]:
    """Read a picture as a model for grey pictures takes it.

    Nothing is cut, scaled or turned: that changes what the model sees, so it is
    yours to do. Colour becomes grey by 0.299 red + 0.587 green + 0.114 blue,
    rounded to 8 bits.

    Args:
        path: a file in any format that Pillow reads. Of several frames the first is taken.
        size: the height and width that the picture must have, in pixels.

    Returns:
        float32 of shape (height, width, 1): 0.0 is black, 1.0 is white.

    Raises:
        InputError: there is no such file, it is no picture or a damaged one, it
            has another size, more than 8 bits a pixel, or parts that one can
            see through; or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError("Pillow, which reads pictures, is not installed.", "", "Try: pip install pillow") from error

    path = Path(path)
    height, width = size
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                raise InputError(
                    f"{path} is {image.height} x {image.width} pixels (height x width), not {height} x {width}.",
                    "The model takes that size only.",
                    f"Cut out the part that matters, then: image.resize(({width}, {height}))",
                )
            if image.mode.startswith(("I", "F")):
                raise InputError(
                    f"{path} has more than 8 bits a pixel (mode {image.mode}).",
                    "Which of its values is white cannot be told from the file.",
                    "Scale it to 0..255 and save it as an 8-bit picture.",
                )
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise InputError(
                    f"{path} can be seen through in places.",
                    "What is behind it is not known.",
                    "Save it without transparency.",
                )
            grey = np.asarray(image.convert("L"), dtype=np.float32)
    except FileNotFoundError as error:
        raise InputError(f"There is no picture {path}.", "", "eyes() lists those that the package ships.") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} is far too large.", str(error), f"The picture must be {height} x {width} pixels."
        ) from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a picture: {error}.",
            "It is another kind of file, or damaged.",
            "Open it in a viewer, and save it anew as PNG.",
        ) from error
    return (grey / np.float32(255))[:, :, np.newaxis]
