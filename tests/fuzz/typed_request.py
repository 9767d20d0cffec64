"""Target: the bytes of a request of a model's own service: read as its own messages say, and an echo back out."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf.message import DecodeError

from fuzz import oracle
from fuzz.mutation import MessageMutator, Mutate, mutate_wire, reorder
from turnout.core.errors import ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import InferenceRequest, InferenceResponse, TensorSpec, Timings
from turnout.transport.codec import DecodeLimits
from turnout.transport.typed_codec import TypedCodec
from turnout_wire.tensors import Array, DataType
from turnout_wire.typed import ANY, Field, Tensor, model_service

_LIMITS = DecodeLimits(bytes_elements_max=64, typed_elements_max=256)
_TENSORS = [
    *(Tensor(f"x_{datatype.value.lower()}", datatype, (ANY, 2), optional=True) for datatype in DataType),
    Tensor("fixed", DataType.FP32, (2, 1), optional=True),
    Tensor("nothing", DataType.INT64, (0, 3), optional=True),
    Tensor("open", DataType.FP32, (ANY, ANY), optional=True),
    Tensor("words", DataType.BYTES, (ANY, 2, ANY), optional=True),
]
_SERVICE = model_service("m", _TENSORS, _TENSORS)
_CODEC = TypedCodec(_SERVICE, _LIMITS)
_REQUEST, _, _RESPONSE = _CODEC._messages
_REVISION = Revision("m", 3, "int8", "0" * 64)
_BY_TENSOR = {field.tensor.name: field for field in _SERVICE.inputs}
_HALVES = {DataType.FP16: np.float16, DataType.BF16: ml_dtypes.bfloat16}


def run(data: bytes) -> None:
    try:
        message = _REQUEST.FromString(data)
    except DecodeError:
        message = None
    try:
        request = _CODEC.read(data).request(None)
    except DecodeError:
        oracle.require(message is None, "a message that is refused as none")
        return
    except ServingError as refusal:
        oracle.refused(refusal, data)
        return
    oracle.require(message is not None, "no message, and it is answered")
    oracle.require(request.request_id == message.request_id, "another id")
    for name, array in request.inputs.items():
        _check(_BY_TENSOR[name], array, message)
    given = {field.tensor.name for field in _SERVICE.inputs if len(getattr(message, field.name))}
    oracle.require(given <= set(request.inputs), "an input was left out")
    _echo(request)


def _check(field: Field, array: Array, message: Any) -> None:
    """What was read is what protobuf's own parser gives, value by value."""
    datatype = field.tensor.datatype
    values = getattr(message, field.name)
    flat = array.reshape(-1)
    oracle.require(array.dtype == datatype.dtype and not (array.flags.writeable and array.dtype.kind != "O"), "dtype")
    oracle.require(array.ndim == len(field.tensor.shape) and array.size == len(values), f"shape {array.shape}")
    if datatype is DataType.BYTES:
        oracle.require(flat.tolist() == list(values), "other strings")
    elif datatype is DataType.UINT8:
        oracle.require(flat.tobytes() == values, "other bytes")
    elif datatype in _HALVES:
        with np.errstate(over="ignore", invalid="ignore"):
            wanted = np.array(values, np.float32).astype(_HALVES[datatype])
        oracle.require(_equal(flat, wanted), "other halves")
    else:
        oracle.require(_equal(flat, np.array(values, array.dtype)), "other values")


def _equal(one: Array, other: Array) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _echo(request: InferenceRequest) -> None:
    """Where all is there, an answer made of it has the same values."""
    if len(request.inputs) < len(_TENSORS):
        return
    outputs = tuple((TensorSpec(t.name, t.datatype, t.shape), request.inputs[t.name]) for t in _TENSORS)
    response = InferenceResponse(_REVISION, "blue", 7, outputs, Timings(1, 2, 3, 4, 1))
    answer = _RESPONSE.FromString(_CODEC.encode(request, response, identity=True))
    for field in _SERVICE.outputs:
        _check(field, request.inputs[field.tensor.name], answer)


def seeds() -> dict[str, bytes]:
    whole: dict[str, Any] = {f"x_{d.value.lower()}": [1, 0] for d in DataType} | {
        "x_uint8": b"\x01\xff",
        "x_bytes": ["a", "ü"],
        "fixed": [1.5, float("nan")],
        "open": [1, 2],
        "open_shape": [1, 2],
        "words": ["", "b"],
        "words_shape": [1, 2, 1],
        "nothing_shape": [0, 3],
        "request_id": "r-1",
        "model_version": "3",
        "sticky_key": "user",
    }
    known = {field.name for field in _REQUEST.DESCRIPTOR.fields}
    found = {"whole": _REQUEST(**{name: value for name, value in whole.items() if name in known})}
    found |= {name: _REQUEST(**{name: value}) for name, value in whole.items() if name in known}
    found["too-large"] = _REQUEST(x_int8=[128, 0], x_fp16=[70000, 0])
    tag = found["x_bool"].SerializeToString()[:-3]  # before its length and two values
    encoded = {name: message.SerializeToString(deterministic=True) for name, message in found.items()}
    return encoded | {"long-bool": tag + b"\x03\x80\x01\x00", "cut-bool": tag + b"\x02\x80\x80"}


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    how = rng.random()
    if how < 0.2:
        return mutate_bytes(data, bytes_max)
    if how < 0.5:
        changed = mutate_wire(rng, data) if how < 0.4 else reorder(rng, data)
        return changed if len(changed) <= bytes_max else data
    try:
        message = _REQUEST.FromString(data)
    except DecodeError:
        message = _REQUEST(x_fp32=[1, 2])
    fields = MessageMutator(rng, {}, mutate_bytes)
    for _ in range(rng.choice((1, 1, 2, 3))):
        fields(message)
    encoded: bytes = message.SerializeToString()
    return encoded if len(encoded) <= bytes_max else data
