"""Export the models that the conformance cases are recorded against.

Usage: python make_models.py OUT_DIR

Every weight is fixed, so each export answers the same on every machine. The
folder holds one base path per model, with integer version folders inside, and
`models.config`, a ModelServerConfig whose base paths are under OUT_DIR.
"""

import pathlib
import shutil
import sys

import numpy as np
import tensorflow as tf

OUT = pathlib.Path(sys.argv[1]).resolve()


def spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


def save(module, name, version, **signatures):
    path = OUT / name / str(version)
    shutil.rmtree(path, ignore_errors=True)
    tf.saved_model.save(module, str(path), signatures=signatures)


class HalfPlus(tf.Module):
    """y = x / 2 + addend, addend being the version plus one."""

    def __init__(self, addend):
        self.addend = tf.Variable(addend, dtype=tf.float32)

    @tf.function(input_signature=[spec((None,), tf.float32, "x")])
    def predict(self, x):
        return {"y": x * 0.5 + self.addend}

    @tf.function(input_signature=[spec((None,), tf.float32, "x")])
    def double(self, x):
        return {"doubled": x * 2.0, "x_again": x}


class Encoder(tf.Module):
    """(batch, 128, 128, 1) float32 -> (batch, 512) float32, like eye1_encoder."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)

        def weights(*shape):
            return tf.Variable((rng.standard_normal(shape) * 0.1).astype("f4"))

        self.kernels = [weights(3, 3, 1, 16), weights(3, 3, 16, 32), weights(3, 3, 32, 64)]
        self.dense = weights(64, 512)

    @tf.function(input_signature=[spec((None, 128, 128, 1), tf.float32, "input_1")])
    def predict(self, input_1):
        x = input_1
        for kernel in self.kernels:
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, strides=2, padding="SAME"))
        return {"output_1": tf.reduce_mean(x, axis=[1, 2]) @ self.dense}


class Mixed(tf.Module):
    """Several named inputs and outputs of different types."""

    @tf.function(
        input_signature=[
            spec((None, 2), tf.float32, "features"),
            spec((None,), tf.int32, "count"),
            spec((None,), tf.string, "label"),
        ]
    )
    def predict(self, features, count, label):
        return {
            "total": tf.reduce_sum(features, axis=1) * tf.cast(count, tf.float32),
            "big": tf.cast(count, tf.int64) * 4_000_000_000,
            "even": tf.equal(count % 2, 0),
            "text": tf.strings.join(["<", label, ">"]),
            "raw_bytes": tf.strings.join(["\xff", label]),
        }


class Text(tf.Module):
    """String in, its length out; and the other way round."""

    @tf.function(input_signature=[spec((None,), tf.string, "text")])
    def length(self, text):
        return {"length": tf.strings.length(text)}

    @tf.function(input_signature=[spec((None,), tf.string, "text_bytes")])
    def echo(self, text_bytes):
        return {"echo": text_bytes}

    @tf.function(input_signature=[spec((None,), tf.string, "text_bytes")])
    def echo_bytes(self, text_bytes):
        return {"echo_bytes": text_bytes}


class Scalar(tf.Module):
    """No batch dimension at all."""

    @tf.function(input_signature=[spec((), tf.float32, "a"), spec((), tf.float32, "b")])
    def predict(self, a, b):
        return {"sum": a + b}


class AnyRank(tf.Module):
    """An input of unknown rank."""

    @tf.function(input_signature=[spec(None, tf.float32, "x")])
    def predict(self, x):
        return {"x": x, "size": tf.size(x)}


class Oddities(tf.Module):
    """NaN and infinities out; runtime failures."""

    @tf.function(input_signature=[spec((None,), tf.float32, "x")])
    def divide(self, x):
        return {"one_over_x": 1.0 / x}

    @tf.function(input_signature=[spec((None,), tf.float32, "x")])
    def positive_only(self, x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive"])]):
            return {"root": tf.sqrt(x)}

    @tf.function(input_signature=[spec((2, 3), tf.float32, "grid")])
    def fixed(self, grid):
        return {"sum": tf.reduce_sum(grid, axis=1)}


def identity_of(dtype):
    class Identity(tf.Module):
        @tf.function(input_signature=[spec((None,), dtype, "x")])
        def predict(self, x):
            return {"x": tf.identity(x)}

    return Identity()


class Image(tf.Module):
    """Encoded PNG bytes in, mean intensity and size out."""

    @tf.function(input_signature=[spec((None,), tf.string, "image_bytes")])
    def predict(self, image_bytes):
        def decode(data):
            pixels = tf.io.decode_png(data, channels=1)
            return tf.reduce_mean(tf.cast(pixels, tf.float32)), tf.shape(pixels)[:2]

        mean, size = tf.map_fn(decode, image_bytes, fn_output_signature=(tf.float32, tf.int32))
        return {"mean": mean, "size": size}


def save_graph(name, version, build):
    """Save a TF1 graph. `build` draws it and returns {key: (method, inputs, outputs)}."""
    v1 = tf.compat.v1
    path = OUT / name / f"{version:08d}"
    shutil.rmtree(path, ignore_errors=True)
    with v1.Graph().as_default(), v1.Session() as session:
        signatures = {
            key: v1.saved_model.signature_def_utils.build_signature_def(
                {k: v1.saved_model.utils.build_tensor_info(t) for k, t in inputs.items()},
                {k: v1.saved_model.utils.build_tensor_info(t) for k, t in outputs.items()},
                f"tensorflow/serving/{method}",
            )
            for key, (method, inputs, outputs) in build(v1).items()
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def half_plus_two_for_examples(v1):
    """y = x / 2 + 2, y2 = x / 2 + 3, y3 = x2 / 2 + 3, read from tf.Example: for classify and regress."""
    half, two, three = (
        v1.get_variable(n, initializer=i, use_resource=False) for n, i in zip("abc", (0.5, 2.0, 3.0), strict=False)
    )
    examples = v1.placeholder(tf.string, name="tf_example")
    values = tf.raw_ops.ParseExample(
        serialized=examples, names=[], sparse_keys=[], sparse_types=[], dense_keys=["x", "x2"],
        dense_defaults=[tf.constant([], tf.float32), tf.constant([0.0])], dense_shapes=[[1], [1]],
    ).dense_values  # fmt: skip
    x, x2 = (
        tf.identity(tf.ensure_shape(value, [None, 1]), name) for value, name in zip(values, ("x", "x2"), strict=False)
    )
    y, y2, y3 = (tf.identity(half * v + plus, n) for v, plus, n in ((x, two, "y"), (x, three, "y2"), (x2, three, "y3")))
    return {
        "serving_default": ("predict", {"x": x}, {"y": y}),
        "classify_x_to_y": ("classify", {"inputs": examples}, {"scores": y}),
        "regress_x_to_y": ("regress", {"inputs": examples}, {"outputs": y}),
        "regress_x_to_y2": ("regress", {"inputs": examples}, {"outputs": y2}),
        "regress_x2_to_y3": ("regress", {"inputs": x2}, {"outputs": y3}),
    }


def counter(v1):
    """A stateful model whose signatures take no input, or one of unknown rank."""
    count = v1.get_variable("counter", initializer=0.0, use_resource=False)
    delta = v1.placeholder(tf.float32, name="delta")
    increment = v1.assign_add(count, 1.0, name="incr_counter_op/AssignAdd")
    increment_by = v1.assign_add(count, delta, name="incr_counter_by_op/AssignAdd")
    reset = v1.assign(count, 0.0, name="reset_counter_op/Assign")
    return {
        "get_counter": ("predict", {}, {"output": count}),
        "incr_counter": ("predict", {}, {"output": increment}),
        "incr_counter_by": ("predict", {"delta": delta}, {"output": increment_by}),
        "reset_counter": ("predict", {}, {"output": reset}),
    }


DTYPES = [
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "string",
    "complex64",
]


def main():
    for version in (1, 2, 3):
        module = HalfPlus(version + 1.0)
        save(module, "half_plus_two", version, serving_default=module.predict, double=module.double)
    for version in (1, 2):
        module = Encoder(version)
        save(module, "eye1_encoder", f"{version:06d}", serving_default=module.predict)
    for name, module, signatures in [
        ("mixed", Mixed(), {"serving_default": "predict"}),
        ("text", Text(), {"serving_default": "length", "echo": "echo", "echo_bytes": "echo_bytes"}),
        ("scalar", Scalar(), {"serving_default": "predict"}),
        ("any_rank", AnyRank(), {"serving_default": "predict"}),
        ("oddities", Oddities(), {"serving_default": "divide", "positive_only": "positive_only", "fixed": "fixed"}),
        ("image", Image(), {"serving_default": "predict"}),
    ]:
        save(module, name, 1, **{key: getattr(module, value) for key, value in signatures.items()})
    for dtype in DTYPES:
        module = identity_of(getattr(tf, dtype))
        save(module, f"identity_{dtype}", 1, serving_default=module.predict)

    save_graph("saved_model_half_plus_two_cpu", 123, half_plus_two_for_examples)
    save_graph("saved_model_counter", 123, counter)

    entries = [
        f"""  config {{
    name: "half_plus_two" base_path: "{OUT}/half_plus_two" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "test" value: 2 }}
  }}""",
        f"""  config {{
    name: "half_plus_latest" base_path: "{OUT}/half_plus_two" model_platform: "tensorflow"
  }}""",
        f"""  config {{
    name: "half_plus_all" base_path: "{OUT}/half_plus_two" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
  }}""",
    ]
    plain = ["saved_model_counter", "saved_model_half_plus_two_cpu"]
    plain += ["eye1_encoder", "mixed", "text", "scalar", "any_rank", "oddities", "image"]
    plain += [f"identity_{dtype}" for dtype in DTYPES]
    entries += [f'  config {{ name: "{n}" base_path: "{OUT}/{n}" model_platform: "tensorflow" }}' for n in plain]
    (OUT / "models.config").write_text("model_config_list {\n" + "\n".join(entries) + "\n}\n")
    print(OUT / "models.config")


main()
