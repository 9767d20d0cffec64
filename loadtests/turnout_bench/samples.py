"""Requests as bytes, with the answers they must get: serialised once, before any run, and checked in every run.

Several different requests are sent in turn, so that an answer which holds another request's rows shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import Array, DataType, from_raw, to_bytes

COUNT = 16
_RTOL, _ATOL = 1e-3, 1e-5  # another batch size may sum in another order


@dataclass(frozen=True, slots=True)
class Sample:
    """One request and its answer.

    Attributes:
        head, tail: the serialised request around the place of its id (fields 1 and 2; 4 and further).
        expected: outputs by name; empty: not known, so not checked.
        last_raw: the bytes of the last output, with which an answer that is equal to the bit ends.
    """

    head: bytes
    tail: bytes
    expected: Mapping[str, Array]
    last_raw: bytes = b""

    @property
    def frame(self) -> bytes:
        return self.head + self.tail

    def frame_with_id(self, request_id: str) -> bytes:
        """The request with an id of up to 127 bytes, in field order, as clients serialise it."""
        raw = request_id.encode("ascii")
        return b"".join((self.head, b"\x1a", bytes((len(raw),)), raw, self.tail))

    def right(self, answer: bytes) -> bool:
        """Whether a serialised ModelInferResponse is the answer to this request."""
        if not self.expected or (len(self.expected) == 1 and answer.endswith(self.last_raw)):
            return True
        return self.right_message(pb.ModelInferResponse.FromString(answer))

    def right_message(self, answer: pb.ModelInferResponse) -> bool:
        """The same for a parsed one."""
        if not self.expected:
            return True
        raws = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=False))
        return all(name in raws and _close_raw(raws[name], array) for name, array in self.expected.items())

    def close(self, outputs: Mapping[str, Array]) -> bool:
        """The same for outputs as a client gives them."""
        return all(name in outputs and _close(outputs[name], array) for name, array in self.expected.items())

    def asked(self) -> tuple[str, dict[str, Array]]:
        """The model and the inputs, as a client takes them."""
        message = pb.ModelInferRequest.FromString(self.frame)
        pairs = zip(message.inputs, message.raw_input_contents, strict=True)
        inputs = {given.name: from_raw(raw, DataType(given.datatype), tuple(given.shape)) for given, raw in pairs}
        return message.model_name, inputs


def sample(model: str, inputs: Mapping[str, Array], expected: Mapping[str, Array] | None = None) -> Sample:
    """A request for `model` with these inputs, in the raw form."""
    body = pb.ModelInferRequest()
    for name, array in inputs.items():
        datatype = DataType.from_numpy(array.dtype)
        body.inputs.add(name=name, datatype=datatype.value, shape=array.shape)
        body.raw_input_contents.append(to_bytes(array, datatype))
    head = pb.ModelInferRequest(model_name=model).SerializeToString()
    outputs = dict(expected or {})
    last = next(reversed(outputs.values()), None)
    raw = to_bytes(last, DataType.from_numpy(last.dtype)) if last is not None else b""
    return Sample(head, body.SerializeToString(), outputs, raw)


def reference_samples(model: str, file: Path, count: int = COUNT, rows: int = 1, seed: int = 3) -> list[Sample]:
    """Random requests for the ONNX model in `file`, with its own answers, computed in this process one by one."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    shapes = {
        given.name: [dim if isinstance(dim, int) else rows for dim in given.shape] for given in session.get_inputs()
    }
    types = {given.name: _NUMPY[given.type] for given in session.get_inputs()}
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        inputs = {name: _random(rng, types[name], shape) for name, shape in shapes.items()}
        answers = dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))
        samples.append(sample(model, inputs, answers))
    return samples


def declared_samples(
    model: str, metadata: pb.ModelMetadataResponse, count: int = COUNT, rows: int = 1, seed: int = 3
) -> list[Sample]:
    """Random requests of the shapes that a server declares; open dimensions become `rows`. Their answers are not known.

    Raises:
        ValueError: an input of a datatype that is not made up here (BYTES).
    """
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        inputs = {}
        for given in metadata.inputs:
            datatype = DataType(given.datatype)
            if datatype is DataType.BYTES:
                raise ValueError(f"input '{given.name}' of model '{model}' is BYTES: send a request with --frame")
            shape = [dim if dim >= 0 else rows for dim in given.shape]
            inputs[given.name] = _random(rng, datatype.dtype, shape)
        samples.append(sample(model, inputs))
    return samples


def frame_sample(frame: bytes) -> Sample:
    """A request that somebody else serialised; it keeps its id, so streams cannot match answers by id."""
    return Sample(frame, b"", {})


# ONNX Runtime's names for the types of the inputs that can be made up here.
_NUMPY: dict[str, np.dtype[Any]] = {
    f"tensor({onnx})": np.dtype(name)
    for onnx, name in (
        *(("float", "float32"), ("double", "float64"), ("float16", "float16"), ("bool", "bool")),
        *((name, name) for bits in (8, 16, 32, 64) for name in (f"int{bits}", f"uint{bits}")),
    )
}


def _random(rng: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    if dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(dtype)
    return np.asarray(rng.random(shape, dtype=np.float32).astype(dtype))


def _close_raw(raw: bytes, expected: Array) -> bool:
    datatype = DataType.from_numpy(expected.dtype)
    try:
        return _close(from_raw(raw, datatype, expected.shape), expected)
    except ValueError:
        return False


def _close(got: Array, expected: Array) -> bool:
    if got.shape != expected.shape:
        return False
    if expected.dtype.kind != "f":
        return bool((got == expected).all())
    return bool((np.abs(got - expected) <= _ATOL + _RTOL * np.abs(expected)).all())
