"""Turnout: a typed gRPC server for ONNX models that switches traffic between model versions while it serves."""

__version__ = "0.1.0"
