"""The tutorial's models: what they are called by, what they answer, and that they are always the same.

TensorFlow runs once, in a process of its own: this very file as a script.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfs_helpers import protos
from tfs_helpers.errors import ExportError, PublishError
from tfs_helpers.export import export_eye_encoder, export_half_plus_two, models, versions
from tfs_helpers.pictures import eyes, load_picture

ROOT = Path(__file__).parent.parent
PAIR = {"astronaut_left": 1, "astronaut_right": 0, "cat_left": 3, "cat_right": 2}


def pictures() -> dict[str, np.ndarray]:
    """The eyes, and the same eyes as a camera would see them another time."""
    plain = np.stack([load_picture(path) for path in eyes().values()])
    jitter = np.random.default_rng(3).normal(0, 0.01, plain.shape).astype(np.float32)
    return {
        "plain": plain,
        "moved": np.roll(plain, (3, 2), axis=(1, 2)),
        "noisy": np.clip(plain + jitter, 0, 1),
        "brighter": plain * np.float32(1.07),
        "black": np.zeros((1, 128, 128, 1), np.float32),
        "none": np.zeros((0, 128, 128, 1), np.float32),
    }


def script(out: Path) -> None:
    """Export, load again, run; the answers go to files in `out`."""
    import logging
    import resource

    sys.ps1 = ">>> "  # so TensorFlow takes this for a notebook, and tells what it does on stdout

    import tensorflow as tf

    from tfs_helpers.export import publish, save

    def serving(folder: Path) -> Callable[..., dict[str, Any]]:
        loaded = tf.saved_model.load(str(folder))
        loaded.signatures["serving_default"].keep = loaded
        return loaded.signatures["serving_default"]

    def message(call: Callable[[], object]) -> str:
        try:
            call()
        except ExportError as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    answers: dict[str, np.ndarray] = {}
    half = serving(export_half_plus_two(out / "half_plus_two"))
    three = serving(export_half_plus_two(out / "half_plus_two", None, addend=3))
    answers["half"] = half(x=tf.constant([1.0, 2.0, 5.0]))["y"].numpy()
    answers["half of none"] = half(x=tf.constant([], tf.float32))["y"].numpy()
    answers["half plus three"] = three(x=tf.constant([1.0, 2.0, 5.0]))["y"].numpy()
    for version in (1, 2):
        encode = serving(export_eye_encoder(out / "eye1_encoder", version))
        for name, batch in pictures().items():
            answers[f"{name} {version}"] = encode(input_1=tf.constant(batch))["output_1"].numpy()
    np.savez(out / "answers.npz", **answers)

    bare, loose, plain = tf.Module(), tf.Module(), tf.Module()
    bare.predict = tf.function(tf.identity, input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    loose.predict = tf.function(lambda x: {"y": x})
    plain.predict = len
    network = tf.keras.Sequential([tf.keras.Input((2,), name="features"), tf.keras.layers.Dense(1)])
    messages = {
        name: message(lambda m=m: save(m, out / "never"))
        for name, m in {"bare": bare, "loose": loose, "plain": plain, "empty": tf.Module(), "keras": network}.items()
    }
    publish(lambda folder: network.export(folder, verbose=False), out / "network")
    messages["no signature"] = message(
        lambda: publish(lambda folder: tf.saved_model.save(bare, folder, {}), out / "never")
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    messages["no room"] = message(lambda: export_eye_encoder(out / "full"))
    (out / "messages.json").write_text(json.dumps(messages))
    assert tf.get_logger().level == logging.INFO  # as before, though that last one failed


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model of the tutorial, and the script's `answers.npz` and `messages.json`."""
    out = tmp_path_factory.mktemp("exported")
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    settings["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its convolutions take no empty batch
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, str(out)], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


@pytest.fixture(scope="session")
def answers(exported: Path) -> dict[str, np.ndarray]:
    return dict(np.load(exported / "answers.npz"))


@pytest.fixture(scope="session")
def messages(exported: Path) -> dict[str, str]:
    return dict(json.loads((exported / "messages.json").read_text()))


def signature(folder: Path) -> tuple[dict[str, tuple[str, list[int]]], dict[str, tuple[str, list[int]]]]:
    """Names, dtypes and shapes of `serving_default`, straight from the file; -1 is any size."""
    model = protos.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (graph,) = model.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    found = graph.signature_def["serving_default"]
    assert found.method_name == "tensorflow/serving/predict"

    def told(tensors: Any) -> dict[str, tuple[str, list[int]]]:
        return {
            name: (protos.enum_name("tensorflow.DataType", info.dtype), [dim.size for dim in info.tensor_shape.dim])
            for name, info in tensors.items()
        }

    return told(found.inputs), told(found.outputs)


def test_half_plus_two_is_named(exported: Path) -> None:
    assert versions(exported / "half_plus_two") == [1, 2]
    for version in ("1", "2"):
        told = signature(exported / "half_plus_two" / version)
        assert told == ({"x": ("DT_FLOAT", [-1])}, {"y": ("DT_FLOAT", [-1])})


def test_half_plus_two_answers(answers: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(answers["half"], np.float32([2.5, 3, 4.5]))
    np.testing.assert_array_equal(answers["half plus three"], np.float32([3.5, 4, 5.5]))
    assert answers["half of none"].shape == (0,)


@pytest.mark.parametrize("version", [1, 2])
def test_the_encoder_is_named(exported: Path, version: int) -> None:
    assert versions(exported / "eye1_encoder") == [1, 2]
    told = signature(exported / "eye1_encoder" / str(version))
    assert told == ({"input_1": ("DT_FLOAT", [-1, 128, 128, 1])}, {"output_1": ("DT_FLOAT", [-1, 512])})


def convolve(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3 x 3 convolution with stride 2, padded as TensorFlow's SAME pads even sizes, and its positive part."""
    padded = np.pad(picture, ((0, 1), (0, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    return np.maximum(np.einsum("hwcij,ijco->hwo", windows, kernel), 0)


def test_the_encoder_computes_what_it_says(answers: dict[str, np.ndarray]) -> None:
    kernels, dense = models._encoder_weights()
    assert [kernel.shape for kernel in kernels] == [(3, 3, 1, 16), (3, 3, 16, 32), (3, 3, 32, 64)]
    assert dense.shape == (64, 512)
    for picture, embedding in zip(pictures()["plain"], answers["plain 1"], strict=True):
        features = picture
        for kernel in kernels:
            features = convolve(features, kernel)
        np.testing.assert_allclose(embedding, features.mean(axis=(0, 1)) @ dense, rtol=1e-3, atol=1e-4)


def test_its_weights_are_the_same_bits_everywhere() -> None:
    kernels, dense = models._encoder_weights()
    digest = hashlib.sha256(b"".join(weights.astype("<f4").tobytes() for weights in (*kernels, dense)))
    assert digest.hexdigest() == "6e3f764ae92f9695621eb2b4eea08b4730aeb4a44ac3d4337d3bda36fbcd33e4"
    for weights in (*kernels, dense):
        assert np.abs(weights.sum(axis=tuple(range(weights.ndim - 1)))).max() < 1e-4


def test_embeddings_are_sane(answers: dict[str, np.ndarray]) -> None:
    embeddings = answers["plain 1"]
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (4, 512))
    lengths = np.linalg.norm(embeddings, axis=1)
    assert (lengths > 5).all()
    assert (lengths < 20).all()
    assert np.abs(embeddings).max() < 5
    assert answers["none 1"].shape == (0, 512)


@pytest.mark.parametrize("version", [1, 2])
def test_different_eyes_are_far_apart_and_those_of_one_face_nearer(
    answers: dict[str, np.ndarray], version: int
) -> None:
    embeddings = answers[f"plain {version}"]
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > (2, 0.15)[version - 1]
    assert distances.argmin(axis=1).tolist() == list(PAIR.values())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("change", ["moved", "noisy", "brighter"])
def test_the_same_eye_is_nearest_to_itself(answers: dict[str, np.ndarray], change: str, version: int) -> None:
    changed, plain = answers[f"{change} {version}"], answers[f"plain {version}"]
    assert not np.array_equal(changed, plain)
    assert np.linalg.norm(changed[:, None] - plain[None], axis=-1).argmin(axis=1).tolist() == [0, 1, 2, 3]


def test_version_2_is_version_1_at_length_1(answers: dict[str, np.ndarray]) -> None:
    lengths = np.linalg.norm(answers["plain 1"], axis=1, keepdims=True)
    np.testing.assert_allclose(answers["plain 2"], answers["plain 1"] / lengths, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(answers["plain 2"], axis=1), 1, atol=1e-6)
    assert not answers["black 2"].any()  # and no NaN where there is no length


def test_what_a_server_could_not_call_is_not_saved(exported: Path, messages: dict[str, str]) -> None:
    assert "its outputs have no names" in messages["bare"]
    assert "its inputs are not fixed" in messages["loose"]
    for name in ("plain", "empty", "keras"):
        assert "it is no tf.function" in messages[name]
        assert "model.export(folder)" in messages[name]
    assert "What the function wrote has no signature" in messages["no signature"]
    assert not (exported / "never").exists()
    for text in messages.values():
        lines = text.partition(": ")[2].splitlines()
        assert len(lines) <= 3
        assert all(re.fullmatch(r"([A-Z]|tf\.).*[.)}]", line) for line in lines), text


def test_in_a_notebook_our_own_saving_prints_nothing(exported: Path) -> None:
    printed = (exported / "printed.txt").read_text()
    told = {path.relative_to(exported).parts[0] for path in map(Path, re.findall(r"Assets written to: (.*)", printed))}
    assert told == {"network", "never"}  # Keras and TensorFlow saved those themselves
    assert "half_plus_two" not in printed
    assert "eye1_encoder" not in printed


def test_a_keras_model_publishes_itself(exported: Path) -> None:
    inputs, _ = signature(exported / "network" / "1")
    assert inputs == {"features": ("DT_FLOAT", [-1, 2])}


def test_a_full_disk_while_tensorflow_writes(exported: Path, messages: dict[str, str]) -> None:
    assert messages["no room"].startswith("PublishError: Publishing into ")
    assert "There is no room for the model." in messages["no room"]
    assert not (exported / "full").exists()


def test_a_second_run_may_take_what_is_there(exported: Path) -> None:
    for export, name in ((export_half_plus_two, "half_plus_two"), (export_eye_encoder, "eye1_encoder")):
        before = (exported / name / "1").stat()
        assert export(exported / name, 1, exist_ok=True) == exported / name / "1"
        assert (exported / name / "1").stat() == before
        with pytest.raises(PublishError, match="Version 1 is already in"):
            export(exported / name, 1)


def test_there_are_two_encoders(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="There is no version 3 of the eye encoder"):
        export_eye_encoder(tmp_path / "eye", 3)
    assert list(tmp_path.iterdir()) == []


def test_publishing_needs_no_tensorflow(tmp_path: Path, exported: Path) -> None:
    code = """
import sys
sys.modules["tensorflow"] = None  # as if it were not installed
from tfs_helpers.export import publish, versions
publish(sys.argv[1], sys.argv[2])
print(versions(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, str(exported / "half_plus_two" / "1"), str(tmp_path / "copy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[1]\n", "")


if __name__ == "__main__":
    script(Path(sys.argv[1]))
