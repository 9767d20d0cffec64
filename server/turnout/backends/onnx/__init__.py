"""ONNX Runtime: the only package that imports onnxruntime. No object of it leaves here."""

from turnout.backends.onnx.backend import OnnxBackend, OnnxOptions

__all__ = ["OnnxBackend", "OnnxOptions"]
