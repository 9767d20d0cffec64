"""ONNX Runtime: the only package that imports onnxruntime. No object of it leaves here."""

from turnout.backends.onnx.backend import OnnxBackend, OnnxOptions
from turnout.backends.onnx.preflight import Preflight, PreflightLimits

__all__ = ["OnnxBackend", "OnnxOptions", "Preflight", "PreflightLimits"]
