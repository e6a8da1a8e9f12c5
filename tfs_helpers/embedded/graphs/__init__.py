"""Graphs that TensorFlow's C library has loaded and runs."""
