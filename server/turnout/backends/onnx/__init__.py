"""ONNX Runtime: the only package that imports onnxruntime. No object of it leaves here."""

import os

# Since 1.29 it tells its makers over the network how it is used, and keeps a device's id under HOME, unless this is set
# before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from turnout.backends.onnx.backend import OnnxBackend, OnnxOptions
from turnout.backends.onnx.preflight import Preflight, PreflightLimits

__all__ = ["OnnxBackend", "OnnxOptions", "Preflight", "PreflightLimits"]
