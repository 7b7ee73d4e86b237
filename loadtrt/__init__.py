"""loadtrt: an async, multi-context load tester for TensorRT."""

__version__ = "0.1.0"
