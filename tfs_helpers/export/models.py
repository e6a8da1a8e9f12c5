"""The tutorial's two models, built without training data and the same on every machine.

`half_plus_two` is the smallest model worth serving. `eye_encoder` stands for a
trained one: a picture of an eye goes in, an embedding of 512 numbers comes out.
Its weights are fixed, not learned, so it knows nothing about eyes; but a
slightly moved or noisy picture stays nearer to its original than to others.
"""

import contextlib
import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfs_helpers.errors import ExportError
from tfs_helpers.export.publishing import publish, version_folder, versions

__all__ = ["export_eye_encoder", "export_half_plus_two", "eye_encoder", "half_plus_two", "save"]

_SEED = 128
_CHANNELS = (16, 32, 64)
_EMBEDDING = 512


def half_plus_two(addend: float = 2.0) -> Any:
    """Build `y = x / 2 + addend`.

    Args:
        addend: another number than 2 makes a version that is easily told apart.

    Returns:
        A `tf.Module` whose `predict` takes `x`, float32 of shape (batch,), and
        returns `{"y": ...}` of the same dtype and shape.
    """
    tf = _tensorflow()
    module = tf.Module(name="half_plus_two")
    module.a = tf.Variable(0.5, name="a")
    module.b = tf.Variable(float(addend), name="b")

    def predict(x: Any) -> dict[str, Any]:
        return {"y": module.a * x + module.b}

    module.predict = tf.function(predict, autograph=False, input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    return module


def eye_encoder(version: int = 1) -> Any:
    """Build the encoder: three convolutions with stride 2 (16, 32, 64 channels), the mean, 64 to 512.

    Args:
        version: 1 returns embeddings as they come; 2 the same ones at length 1.

    Returns:
        A `tf.Module` whose `predict` takes `input_1`, float32 of shape
        (batch, 128, 128, 1) with grey values in 0..1, and returns
        `{"output_1": ...}`, float32 of shape (batch, 512).

    Raises:
        ExportError: there is no such version.
    """
    if version not in (1, 2):
        raise ExportError(
            f"There is no version {version!r} of the eye encoder.",
            "Version 1 gives plain embeddings, version 2 gives them at length 1.",
            "To publish one under another number: publish(lambda folder: save(eye_encoder(1), folder), base_path, 3)",
        )
    tf = _tensorflow()

    kernels, dense = _encoder_weights()
    module = tf.Module(name="eye_encoder")
    module.kernels = [tf.Variable(kernel, name=f"kernel_{n}") for n, kernel in enumerate(kernels, 1)]
    module.dense = tf.Variable(dense, name="dense")

    def predict(input_1: Any) -> dict[str, Any]:
        features = input_1
        for kernel in module.kernels:
            features = tf.nn.relu(tf.nn.conv2d(features, kernel, strides=2, padding="SAME"))
        embedding = tf.reduce_mean(features, axis=[1, 2]) @ module.dense
        if version == 2:
            embedding = tf.math.l2_normalize(embedding, axis=1)
        return {"output_1": embedding}

    signature = [tf.TensorSpec((None, 128, 128, 1), tf.float32, "input_1")]
    module.predict = tf.function(predict, autograph=False, input_signature=signature)
    return module


def save(module: Any, folder: str | PathLike[str], signatures: Mapping[str, Any] | None = None) -> None:
    """Save a module as a SavedModel that a server can call by name.

    `tf.saved_model.save` takes a module without any signature, and names
    outputs `output_0` where they have no names; a server cannot call the
    first, and nobody remembers the second. Both are refused here.

    Args:
        module: a `tf.Module`. Keras models have their own `export`.
        folder: where to write; files of the same name are overwritten.
        signatures: `tf.function`s by signature name, each with an
            `input_signature` and returning a dict of named tensors;
            `{"serving_default": module.predict}` if not given.

    Raises:
        ExportError: a signature has no fixed inputs or no named outputs.
    """
    tf = _tensorflow()

    if signatures is None:
        signatures = {"serving_default": getattr(module, "predict", None)}
    concrete = {name: _concrete(name, function) for name, function in signatures.items()}
    with _quiet(tf.get_logger()):
        tf.saved_model.save(module, str(folder), signatures=concrete)


def export_half_plus_two(
    base_path: str | PathLike[str], version: int | None = 1, *, addend: float = 2.0, exist_ok: bool = False
) -> Path:
    """Build `half_plus_two` and publish it.

    Args:
        base_path: the folder that holds the version folders; made if missing.
        version: the number to publish under; None for the next free one.
        addend: as for `half_plus_two`.
        exist_ok: return a version that is there already, as it is, instead of raising.

    Returns:
        The version folder.

    Raises:
        PublishError: as for `publish`.
    """
    if exist_ok and version is not None and version in versions(base_path):
        return version_folder(base_path, version)
    return publish(lambda folder: save(half_plus_two(addend), folder), base_path, version)


def export_eye_encoder(base_path: str | PathLike[str], version: int = 1, *, exist_ok: bool = False) -> Path:
    """Build the given version of the eye encoder and publish it under that number.

    Args:
        base_path: the folder that holds the version folders; made if missing.
        version: 1 or 2, as for `eye_encoder`.
        exist_ok: return a version that is there already, as it is, instead of raising.

    Returns:
        The version folder.

    Raises:
        ExportError: there is no such version of the encoder.
        PublishError: as for `publish`.
    """
    if exist_ok and version in versions(base_path):
        return version_folder(base_path, version)
    return publish(lambda folder: save(eye_encoder(version), folder), base_path, version)


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Let warnings and errors through only.

    In a notebook TensorFlow prints its INFO lines as output of the cell, and
    one of them names the passing folder, which is another each time.
    """
    before = logger.level
    logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def _tensorflow() -> Any:
    """TensorFlow, imported when it is needed.

    Raises:
        ExportError: it is not installed.
    """
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise ExportError(
            "Making a model needs TensorFlow, and it is not installed here.",
            "Only clients can do without it.",
            'Install it: pip install "tfs-helpers[export]"',
        ) from error
    return tensorflow


def _concrete(name: str, function: Any) -> Any:
    if not hasattr(function, "get_concrete_function"):
        raise ExportError(
            f"Signature {name!r} cannot be saved: it is no tf.function.",
            "A SavedModel keeps graphs, not Python code.",
            "Wrap it in tf.function; a Keras model has its own way: model.export(folder)",
        )
    try:
        concrete = function.get_concrete_function()
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"Signature {name!r} cannot be saved: its inputs are not fixed.",
            "A server needs name, dtype and shape of every input.",
            'Use tf.function(f, input_signature=[tf.TensorSpec((None,), tf.float32, "x")])',
        ) from error
    outputs = concrete.structured_outputs
    if not isinstance(outputs, Mapping) or not outputs:
        raise ExportError(
            f"Signature {name!r} cannot be saved: its outputs have no names.",
            "It returns a bare tensor, which TensorFlow would call output_0.",
            'Return a dict: {"y": y}',
        )
    return concrete


def _encoder_weights() -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """The kernels, (height, width, in, out) each, and the dense matrix (64, 512)."""
    bits = np.random.PCG64(_SEED)
    kernels = [_edge_filters()]
    for taken, given in itertools.pairwise(_CHANNELS):
        kernels.append(_balanced(bits, (3, 3, taken, given), bound=math.sqrt(6 / (9 * taken))))
    return kernels, _balanced(bits, (_CHANNELS[-1], _EMBEDDING), bound=8.0)


def _edge_filters() -> NDArray[np.float32]:
    """Eight 3 x 3 filters for edges, lines and corners, each with both signs: (3, 3, 1, 16)."""
    smooth, slope, ridge = np.array([1, 2, 1]) / 4, np.array([-1, 0, 1]) / 2, np.array([-1, 2, -1]) / 4
    pairs = [(down, across) for down in (smooth, slope, ridge) for across in (smooth, slope, ridge)]
    filters = [sign * 4 * np.outer(down, across) for down, across in pairs[1:] for sign in (1, -1)]
    return np.stack(filters, axis=-1)[:, :, np.newaxis, :].astype(np.float32)


def _balanced(bits: np.random.PCG64, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
    """Uniform weights of about -bound..bound; those that lead to one output add up to zero.

    Without that, what all pictures have in common would drown what tells them
    apart. The sums are of whole numbers, so every machine gets the same bits.
    """
    count = math.prod(shape[:-1])
    raw: NDArray[np.uint64] = bits.random_raw(count * shape[-1])
    whole = (raw >> np.uint64(40)).astype(np.int64).reshape(count, shape[-1])
    centred: NDArray[np.int64] = whole * count - whole.sum(axis=0)
    return (centred * (bound / (count * 2**23))).astype(np.float32).reshape(shape)
