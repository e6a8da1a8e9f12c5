"""More models than the tutorial has, for the tests: small graphs that show one thing each.

They are drawn as TensorFlow 1 graphs, which takes milliseconds each, where
`tf.saved_model.save` takes a quarter of a second.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DTYPES = (
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool", "string", "complex64", "complex128",
)  # fmt: skip
NOT_IN_JSON = ("float16", "bfloat16", "uint16", "complex64", "complex128")

Signatures = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]


def export_all(folder: Path) -> list[str]:
    """Write every model below `folder`, one base path each; the names."""
    graphs: dict[str, Callable[[Any], Signatures]] = {
        "mixed": _mixed,
        "texts": _texts,
        "scalar": _scalar,
        "any_rank": _any_rank,
        "oddities": _oddities,
        "fixed": _fixed,
        "variable": _variable,
        **{f"identity_{dtype}": _identity(dtype) for dtype in DTYPES},
    }
    for name, draw in graphs.items():
        export_graph(folder / name / "1", draw)
    return list(graphs)


def export_graph(folder: Path, draw: Callable[[Any], Signatures]) -> None:
    """Write one SavedModel; `draw` gets `tf.compat.v1` and gives the signatures: {name: (inputs, outputs)}."""
    import tensorflow as tf

    v1 = tf.compat.v1
    saved = v1.saved_model
    with v1.Graph().as_default(), v1.Session() as session:
        signatures = {
            name: saved.signature_def_utils.build_signature_def(
                {key: saved.utils.build_tensor_info(tensor) for key, tensor in inputs.items()},
                {key: saved.utils.build_tensor_info(tensor) for key, tensor in outputs.items()},
                "tensorflow/serving/predict",
            )
            for name, (inputs, outputs) in draw(v1).items()
        }
        session.run(v1.global_variables_initializer())
        builder = saved.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def renamed(dtype: str, given: str, taken: str) -> Callable[[Any], Signatures]:
    """A model that gives back what it takes, under any names."""

    def draw(v1: Any) -> Signatures:
        x = v1.placeholder(dtype, (None,), name="x")
        return {"serving_default": ({taken: x}, {given: v1.identity(x)})}

    return draw


def _identity(dtype: str) -> Callable[[Any], Signatures]:
    def draw(v1: Any) -> Signatures:
        vector = v1.placeholder(dtype, (None,), name="vector")
        grid = v1.placeholder(dtype, (None, 2), name="grid")
        return {
            "serving_default": ({"x": vector}, {"x": v1.identity(vector)}),
            "grid": ({"x": grid}, {"x": v1.identity(grid)}),
        }

    return draw


def _mixed(v1: Any) -> Signatures:
    features = v1.placeholder("float32", (None, 2), name="features")
    count = v1.placeholder("int32", (None,), name="count")
    label = v1.placeholder("string", (None,), name="label")
    outputs = {
        "total": v1.reduce_sum(features, axis=1) * v1.cast(count, "float32"),
        "big": v1.cast(count, "int64") * 4_000_000_000,
        "huge": v1.cast(count, "uint64") * 9_000_000_000_000_000_000,
        "even": v1.equal(count % 2, 0),
        "text": v1.strings.join(["<", label, ">"]),
        "text_bytes": v1.identity(label),
    }
    return {"serving_default": ({"features": features, "count": count, "label": label}, outputs)}


def _texts(v1: Any) -> Signatures:
    text = v1.placeholder("string", (None,), name="text")
    return {
        "serving_default": ({"text": text}, {"length": v1.strings.length(text)}),
        "echo": ({"text": text}, {"echo": v1.identity(text)}),
        "echo_bytes": ({"text_bytes": text}, {"echo_bytes": v1.identity(text)}),
    }


def _scalar(v1: Any) -> Signatures:
    a, b = v1.placeholder("float32", (), name="a"), v1.placeholder("float32", (), name="b")
    return {"serving_default": ({"a": a, "b": b}, {"sum": a + b})}


def _any_rank(v1: Any) -> Signatures:
    x = v1.placeholder("float32", None, name="x")
    return {"serving_default": ({"x": x}, {"x": v1.identity(x), "size": v1.size(x)})}


def _oddities(v1: Any) -> Signatures:
    x = v1.placeholder("float32", (None,), name="x")
    with v1.control_dependencies([v1.debugging.Assert(v1.reduce_all(x > 0), ["x must be positive"])]):
        root = v1.sqrt(x)
    return {
        "serving_default": ({"x": x}, {"one_over_x": 1.0 / x}),
        "positive_only": ({"x": x}, {"root": root}),
        "slow": ({"x": x}, {"y": _slow(v1, x)}),
    }


def _slow(v1: Any, x: Any) -> Any:
    """As many rounds of a loop as the first number says."""
    last = v1.while_loop(lambda i, _: i < x[0], lambda i, y: (i + 1.0, v1.sin(y)), (0.0, x))
    return last[1]


def _fixed(v1: Any) -> Signatures:
    grid = v1.placeholder("float32", (2, 3), name="grid")
    return {"serving_default": ({"grid": grid}, {"sum": v1.reduce_sum(grid, axis=1)})}


def _variable(v1: Any) -> Signatures:
    """An output that is a variable, which TensorFlow 1 writes as DT_FLOAT_REF."""
    value = v1.get_variable("value", initializer=1.5, use_resource=False)
    x = v1.placeholder("float32", (None,), name="x")
    with v1.control_dependencies([x]):
        return {"serving_default": ({"x": x}, {"value": value})}
