"""Requests gathered into batches, as TensorFlow Serving's shared batch scheduler does it."""
