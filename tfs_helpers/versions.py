"""The versions that belong together, in the one place that says so.

A server must be at least as new as the TensorFlow that exported its models, so
the three move together. Every other file that names one of them is held to
this one by `tests/test_versions.py`.
"""

__all__ = ["IMAGE", "IMAGE_GPU", "SERVING_API", "TENSORFLOW"]

TENSORFLOW = "2.20.0"
SERVING_API = "2.20.0"
IMAGE = "tensorflow/serving:2.20.0"
IMAGE_GPU = "tensorflow/serving:2.20.0-gpu"
