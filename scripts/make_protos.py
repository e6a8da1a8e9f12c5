"""Make `tfs_helpers/serving.binpb`, the descriptors of all protos that serving needs.

    python scripts/make_protos.py            write the file
    python scripts/make_protos.py --check    exit 1 if the file differs

They are taken from the installed `tensorflow` and `tensorflow-serving-api`,
whose generated modules carry them; `server_configs.py` adds those that these
packages leave out. The order is that of dependence, then of name, so the file
is the same on every machine.
"""

import argparse
import importlib
import sys
import types
from importlib.util import find_spec
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from server_configs import server_configs

ROOTS = [
    "tensorflow_serving.apis.predict_pb2",
    "tensorflow_serving.apis.classification_pb2",
    "tensorflow_serving.apis.regression_pb2",
    "tensorflow_serving.apis.inference_pb2",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.get_model_status_pb2",
    "tensorflow_serving.apis.model_management_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow_serving.config.model_server_config_pb2",
    "tensorflow_serving.config.platform_config_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "tensorflow.core.protobuf.config_pb2",
]
TARGET = Path(__file__).parent.parent / "tfs_helpers" / "serving.binpb"


def without_importing_tensorflow() -> None:
    """Let the proto modules of the `tensorflow` wheel load without the rest of it."""
    spec = find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("tensorflow is not installed here; run `make setup` first")
    root = types.ModuleType("tensorflow")
    root.__path__ = list(spec.submodule_search_locations)
    sys.modules.setdefault("tensorflow", root)


def descriptor_set() -> bytes:
    """A serialized FileDescriptorSet, each file after those that it depends on."""
    without_importing_tensorflow()
    found: dict[str, bytes] = {}

    def add(file: FileDescriptor) -> None:
        if file.name in found:
            return
        for dependency in sorted(file.dependencies, key=lambda d: d.name):
            add(dependency)
        found[file.name] = file.serialized_pb

    for root in ROOTS:
        add(importlib.import_module(root).DESCRIPTOR)
    files = descriptor_pb2.FileDescriptorSet()
    for content in found.values():
        files.file.add().MergeFromString(content)
    files.file.add().MergeFromString(server_configs())
    serialized: bytes = files.SerializeToString(deterministic=True)
    return serialized


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    content = descriptor_set()
    if not parser.parse_args().check:
        TARGET.write_bytes(content)
        print(f"{TARGET.name}: {len(content)} bytes")
    elif TARGET.read_bytes() != content:
        sys.exit(f"{TARGET.name} differs from the installed packages; run scripts/make_protos.py")


if __name__ == "__main__":
    main()
