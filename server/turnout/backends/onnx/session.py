"""One ONNX Runtime session as the runtime's Session: arrays in, arrays out.

BF16 has no numpy form inside ONNX Runtime, so such models go through IO binding over 16-bit integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from turnout.core.tensors import Signature, Tensors
from turnout_wire.tensors import Array, DataType

_ONNX_BFLOAT16 = 16  # TensorProto.DataType.BFLOAT16


class OnnxSession:
    """Runs are thread-safe on the CPU; a GPU session belongs to one executor."""

    def __init__(
        self, session: ort.InferenceSession, declared: Signature, options: ort.RunOptions | None = None
    ) -> None:
        self.declared = declared
        self._session = session
        self._options = options
        halves = [spec for spec in (*declared.inputs, *declared.outputs) if spec.datatype is DataType.BF16]
        self._halves = {spec.name for spec in halves}
        self._binds = any(not spec.optional for spec in halves)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        if self._binds or (self._halves and not self._halves.isdisjoint(inputs)):
            return self._run_bound(inputs, outputs)
        answers: list[Array] = self._session.run(list(outputs), dict(inputs), self._options)
        return answers

    def _run_bound(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        binding = self._session.io_binding()
        bound = {name: np.ascontiguousarray(array) for name, array in inputs.items()}  # alive until the run ends
        for name, array in bound.items():
            if name in self._halves:
                value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _ONNX_BFLOAT16)
                binding.bind_ortvalue_input(name, value)
            else:
                # By value, and not bind_cpu_input, which does not know inputs that the model has a default for.
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, self._options)
        return [
            _bfloat16(value) if name in self._halves else value.numpy()
            for name, value in zip(outputs, binding.get_outputs(), strict=True)
        ]


def _bfloat16(value: ort.OrtValue) -> Array:
    """A copy of the value's 16-bit numbers: the memory behind it goes with the value."""
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    bits = (ctypes.c_uint16 * count).from_address(value.data_ptr()) if count else ()
    return np.array(bits, dtype=np.uint16).view(DataType.BF16.dtype).reshape(shape)
