"""The embedded server: TensorFlow Serving's APIs on TensorFlow's own C library, for places without the real one.

Run it with `python -m tfs_helpers.embedded`, with the flags of `tensorflow_model_server`.
One core behind two thin doors: `rest` and `grpc` -> `inference` -> `session`; `core` knows the
models, `manager` loads and unloads their versions, `storage` finds these on disk.
"""

__all__: list[str] = []
