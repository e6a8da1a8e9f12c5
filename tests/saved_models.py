"""SavedModels as far as files go, for tests that need no TensorFlow."""

from pathlib import Path

from tfs_helpers import protos

PARTS = {"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"}


def graph(*ops: str, signature: str = "serving_default") -> bytes:
    model = protos.SavedModel(saved_model_schema_version=1)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.signature_def[signature].method_name = "tensorflow/serving/predict"
    for op in ops:
        meta.graph_def.node.add(name=op.lower(), op=op)
    return bytes(model.SerializeToString())


def write(folder: Path, content: str = "weights") -> Path:
    """A SavedModel with one variable, as far as files go."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(graph("VarHandleOp"))
    (folder / "variables" / "variables.index").write_text("index")
    (folder / "variables" / "variables.data-00000-of-00001").write_text(content)
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> str:
    return (folder / "variables" / "variables.data-00000-of-00001").read_text()


def names(base: Path) -> list[str]:
    return sorted(entry.name for entry in base.iterdir())
