"""Warm-up: a version's recorded requests are answered once before it becomes AVAILABLE (saved_model_warmup_util.cc).

The first requests to a model are slow, since TensorFlow optimises each graph when
it first runs. The recorded ones take that upon them. They go through the code that
answers clients, so what fails there fails here, and with it the load.
"""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import google_crc32c
from google.protobuf.message import DecodeError

from tfs_helpers import protos
from tfs_helpers.embedded.answering.inference import InferenceService
from tfs_helpers.embedded.graphs.runner import Runner
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.metrics import Metrics
from tfs_helpers.embedded.models.core import InUse, ServerCore
from tfs_helpers.embedded.models.servable import Servable
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["DamagedRecords", "read_records", "warm_up"]

_FILE = "assets.extra/tf_serving_warmup_requests"
_MOST_RECORDS = 1000
_LENGTH_BYTES = 8
_CHECKSUM_BYTES = 4
_MASK = 0xA282EAD8


class DamagedRecords(ServingError):
    """A file is no TFRecord file, or is not whole."""

    def __init__(self, words: str) -> None:
        super().__init__(Code.DATA_LOSS, words)


def warm_up(
    name: str,
    version: int,
    folder: str,
    runner: Runner,
    metrics: Metrics,
    *,
    iterations: int = 1,
    check_method_names: bool = False,
) -> None:
    """Answer the warm-up requests of a version that has just been loaded, if it has any.

    Args:
        name: the model's.
        version: its number.
        folder: where it was loaded from.
        runner: what was loaded.
        metrics: what counts the requests, and the records that have been read, to their end or to where the file is
            damaged.
        iterations: how often each request is answered.
        check_method_names: whether they may only use signatures that were made for their method.

    Raises:
        ServingError: a request fails, or cannot be read; in the real server's words.
    """
    path = Path(folder) / _FILE
    if not path.exists():
        log.info("No warmup data file found at %s", path)
        return
    options = protos.ModelWarmupOptions()
    if iterations != 1:
        options.num_request_iterations.value = iterations
    log.info("Starting to read warmup data for model at %s with model-warmup-options %s", path, options)
    started = time.monotonic()
    core = cast(ServerCore, _JustLoaded(name, version, runner))
    service = InferenceService(core, metrics, check_method_names=check_method_names)
    number = 0
    damage: DamagedRecords | None = None
    try:
        for number, record in enumerate(_records(path), 1):
            request, answer = _replay(service, record, path)
            for _ in range(iterations):
                answer(request)
            if number > _MOST_RECORDS:
                raise ServingError(
                    Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum ({_MOST_RECORDS}) at {path}"
                )
    except DamagedRecords as error:
        damage = error
    seconds = time.monotonic() - started
    metrics.warmup(folder, "OK" if damage is None else str(damage), seconds, number)
    if damage is not None:
        raise ServingError(damage.code, f"{damage.message}. Please verify your warmup data is in TFRecord format.")
    log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. "
        "Elapsed time (microseconds): %d.",
        *(path, number, seconds * 1_000_000),
    )


class _JustLoaded:
    """A core that knows one version, which is not AVAILABLE yet: the part of ServerCore that answering needs."""

    def __init__(self, name: str, version: int, runner: Runner) -> None:
        self._name, self._version, self._runner = name, version, runner

    @contextmanager
    def use(self, spec: Any) -> Iterator[InUse]:
        """That version, whatever model the record was made for."""
        yield InUse(Servable(spec.name or self._name, self._version), self._runner)


def _replay(service: InferenceService, record: bytes, path: Path) -> tuple[Any, Callable[[Any], object]]:
    """The request that a record holds, and what answers it."""
    try:
        entry = protos.PredictionLog.FromString(record)
    except DecodeError:
        words = record.decode(errors="replace")
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to parse warmup record: {words} from {path}") from None
    kind = entry.WhichOneof("log_type")
    if kind is None:
        return None, lambda _: None
    answers: dict[str, Callable[[Any], object]] = {
        "predict_log": service.predict,
        "classify_log": service.classify,
        "regress_log": service.regress,
        "multi_inference_log": service.multi_inference,
    }
    if kind not in answers:
        field = protos.PredictionLog.DESCRIPTOR.fields_by_name[kind]
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {field.number}")
    request = getattr(entry, kind).request
    if kind != "multi_inference_log":
        request.model_spec.SetInParent()
    return request, answers[kind]


def _records(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from read_records(file)
    except OSError as error:
        raise ServingError(Code.UNKNOWN, f"{path}; {error.strerror}") from None


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum (record_reader.cc).

    Raises:
        DamagedRecords: in TensorFlow's words.
    """
    offset = 0
    while len(header := file.read(_LENGTH_BYTES + _CHECKSUM_BYTES)) == _LENGTH_BYTES + _CHECKSUM_BYTES:
        (length,) = struct.unpack("<Q", _checked(header, offset))
        start = offset + len(header)
        content = _read(file, length + _CHECKSUM_BYTES)
        if content is None:
            raise DamagedRecords(f"truncated record at {offset}' failed with Read less bytes than requested")
        yield _checked(content, start)
        offset = start + len(content)


def _read(file: BinaryIO, length: int) -> bytes | None:
    """So many bytes, None where there are fewer; a length that is wrong takes no memory."""
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return file.read(length) if here + length <= end else None


def _checked(block: bytes, offset: int) -> bytes:
    """The block without the masked CRC32C at its end, which is checked."""
    content, (masked,) = block[:-_CHECKSUM_BYTES], struct.unpack("<I", block[-_CHECKSUM_BYTES:])
    crc = google_crc32c.value(content)
    if (((crc >> 15) | (crc << 17)) + _MASK) % 2**32 != masked:
        hint = "" if offset else " (Is this even a TFRecord file?)"
        raise DamagedRecords(f"corrupted record at {offset}{hint}")
    return content
