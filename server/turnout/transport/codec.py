"""ModelInferRequest to InferenceRequest and InferenceResponse to ModelInferResponse.

Tensors come in as views over the received bytes and leave with exactly one copy, into the message. What a model
takes is checked later, against its signature; here only the message itself is.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TypeAlias

import numpy as np

from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision, parse_version
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import RANK_MAX, Array, DataType, TensorError, from_contents, from_raw, to_raw
from turnout_wire.varint import to_varint

STICKY_CHARACTERS_MAX = 256  # a hash, an email address, a UUID
MESSAGE_BYTES_MAX = 2**31 - 1  # gRPC's own limit
_BYTES = DataType.BYTES
_FRAME_BYTES_MAX = 16  # a streamed answer's own tag and length
_RAW_OUTPUT_TAG = b"\x32"  # ModelInferResponse.raw_output_contents: field 6, length-delimited
_INFER_RESPONSE_TAG = b"\x12"  # ModelStreamInferResponse.infer_response: field 2, length-delimited
# The kinds that request parameters come in. Those of sequences mean nothing here, but must be well-formed.
_INTEGERS = ("int64_param", "uint64_param")
_KINDS = {
    "timeout": ("int64_param",),
    "priority": _INTEGERS,
    "sequence_id": (*_INTEGERS, "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "triton_enable_empty_final_response": ("bool_param",),
}
_SHARED_MEMORY_KEYS = frozenset({"shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"})
_Tensor: TypeAlias = "pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor"


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What of one request Python reads one by one, on the loop that everybody shares, or keeps; each bound has its flag
    in config.py. Other tensors are not read at all here."""

    bytes_elements_max: int
    typed_elements_max: int
    names_max: int = 1024  # inputs, outputs and parameters, each
    id_characters_max: int = 1024


def decode(
    message: pb.ModelInferRequest,
    deadline_ns: int | None,
    limits: DecodeLimits,
    version: int | None = None,
    slot: str | None = None,
    sticky_key: str | None = None,
) -> InferenceRequest:
    """The request in a message. The arrays are views over its raw contents, BYTES and typed contents apart.

    Args:
        version, slot: the pins, which the caller has read and found to be there.
        sticky_key: as `read_sticky_key` gives it.

    Raises:
        ServingError: INVALID_REQUEST or UNSUPPORTED, naming the tensor or parameter.
    """
    request_id = message.id  # once: each access makes another copy
    if len(request_id) > limits.id_characters_max:
        raise _invalid(f"the id has {len(request_id)} characters, the limit is {limits.id_characters_max}")
    _refuse_crowd("parameters", message.parameters, limits)
    _refuse_crowd("inputs", message.inputs, limits)
    _refuse_crowd("outputs", message.outputs, limits)
    timeout_us, priority = _parameters(message)
    _refuse_twice("input", message.inputs)
    _refuse_twice("output", message.outputs)
    inputs = _inputs(message, limits)
    outputs, classes = _outputs(message, limits)
    return InferenceRequest(
        model=message.model_name,
        inputs=inputs,
        outputs=outputs,
        version=version,
        slot=slot,
        sticky_key=sticky_key,
        request_id=request_id,
        inference_id=request_id or secrets.token_hex(8),
        deadline_ns=deadline_ns,
        timeout_ns=timeout_us * 1000,
        priority=priority,
        classes=classes,
    )


def encode(request: InferenceRequest, response: InferenceResponse, *, identity: bool, streamed: bool = False) -> bytes:
    """The serialised ModelInferResponse: raw outputs, and with `identity` who answered. `streamed` marks it as the only
    answer of its request, and puts it into a ModelStreamInferResponse.

    Raises:
        ServingError: RESPONSE_TOO_LARGE.
    """
    header = pb.ModelInferResponse(
        model_name=request.model, model_version=str(response.revision.version), id=request.request_id
    )
    if identity:
        header.parameters["inference_id"].string_param = request.inference_id
    if streamed:
        header.parameters["triton_final_response"].bool_param = True
    parts: list[bytes | memoryview] = [b""]
    if identity:
        parts.append(_identity(response.slot, response.revision, response.generation))
    for spec, array in response.outputs:
        header.outputs.add(name=spec.name, datatype=spec.datatype.value, shape=array.shape)
        raw = to_raw(array, spec.datatype)
        parts += (_RAW_OUTPUT_TAG, to_varint(len(raw)), raw)
    parts[0] = header.SerializeToString()
    length = sum(map(len, parts))
    if streamed:
        parts.insert(0, _INFER_RESPONSE_TAG + to_varint(length))
    if length > MESSAGE_BYTES_MAX - _FRAME_BYTES_MAX:
        raise ServingError(
            Reason.RESPONSE_TOO_LARGE,
            f"the answer of {length} bytes is above gRPC's limit of {MESSAGE_BYTES_MAX}: ask for fewer rows or outputs",
        )
    return b"".join(parts)


@lru_cache(maxsize=256)
def _identity(slot: str, revision: Revision, generation: int) -> bytes:
    """The response parameters that are the same for every answer of a slot: fields may be split over a message."""
    part = pb.ModelInferResponse()
    part.parameters["turnout_slot"].string_param = slot
    part.parameters["turnout_revision"].string_param = str(revision)
    part.parameters["turnout_generation"].int64_param = generation
    return part.SerializeToString()


@dataclass(frozen=True, slots=True)
class Asked:
    """What an error inside a stream says of the request that it belongs to; no more than a bound of each."""

    model_name: str = ""
    model_version: str = ""
    request_id: str = ""

    @classmethod
    def of(cls, message: pb.ModelInferRequest, characters_max: int) -> Asked:
        texts = (message.model_name, message.model_version, message.id)
        return cls(*(text[:characters_max] for text in texts))


def encode_stream_error(asked: Asked, error: ServingError) -> bytes:
    """An error inside a stream, which stays open: the text, and the request it belongs to."""
    reply = pb.ModelStreamInferResponse(error_message=error.message)
    reply.infer_response.model_name = asked.model_name
    reply.infer_response.model_version = asked.model_version
    reply.infer_response.id = asked.request_id
    reply.infer_response.parameters["triton_final_response"].bool_param = True
    return reply.SerializeToString()


def version_of(text: str) -> int | None:
    """The version that a message names; none when it is empty.

    Raises:
        ServingError: INVALID_REQUEST.
    """
    if not text:
        return None
    version = parse_version(text)
    if version is None:
        raise _invalid(f"model version '{text[:64]}' is not a number from 1 without sign or leading zero")
    return version


def read_sticky_key(message: pb.ModelInferRequest, metadata: str | None, parameter: str) -> str | None:
    """The key that a request is routed by: from its metadata, else from its parameter of that name.

    Raises:
        ServingError: INVALID_REQUEST when it is no string, or too long.
    """
    key = metadata
    if key is None and parameter and parameter in message.parameters:
        kind = message.parameters[parameter].WhichOneof("parameter_choice")
        if kind != "string_param":
            raise _invalid(f"parameter '{parameter}' is a {kind}, it must be string_param: requests are routed by it")
        key = message.parameters[parameter].string_param
    if key is not None and len(key) > STICKY_CHARACTERS_MAX:
        raise _invalid(f"the sticky key has {len(key)} characters, the limit is {STICKY_CHARACTERS_MAX}: send its hash")
    return key or None


def _parameters(message: pb.ModelInferRequest) -> tuple[int, int]:
    """Check the request parameters; returns the queue timeout in microseconds and the priority, 0: none."""
    timeout_us = priority = 0
    for key, value in message.parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise _invalid(f"parameter '{key[:64]}' has no value")
        if key == "headers" or (key.startswith("triton_") and key not in _KINDS):
            raise _invalid(f"parameter '{key[:64]}' is reserved: choose another name")
        if kind not in _KINDS.get(key, kind):
            raise _invalid(f"parameter '{key}' is a {kind}, it must be {' or '.join(_KINDS[key])}")
        if key == "timeout":
            timeout_us = value.int64_param
        elif key == "priority":
            priority = value.uint64_param if kind == "uint64_param" else value.int64_param
        if min(timeout_us, priority) < 0:
            raise _invalid(f"parameter '{key}' is {value.int64_param}, it must be 0 or more")
    return timeout_us, priority


def _refuse_crowd(what: str, things: Sized, limits: DecodeLimits) -> None:
    if len(things) > limits.names_max:
        raise _invalid(f"the request has {len(things)} {what}, the limit is {limits.names_max}")


def _refuse_twice(
    what: str,
    tensors: Iterable[pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor],
) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise _invalid(f"{what} '{tensor.name}' is given twice")
        names.add(tensor.name)


def _inputs(message: pb.ModelInferRequest, limits: DecodeLimits) -> dict[str, Array]:
    raw = message.raw_input_contents
    strings = typed = 0
    if raw and len(raw) < len(message.inputs):
        raise _invalid(f"the request has {len(message.inputs)} inputs and only {len(raw)} raw_input_contents")
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(message.inputs):
        name = tensor.name
        if len(tensor.shape) > RANK_MAX:  # before anything walks over them
            raise _invalid(
                f"input '{name}': {len(tensor.shape)} dimensions, at most {RANK_MAX} are allowed: merge some"
            )
        _refuse_crowd(f"parameters of input '{name}'", tensor.parameters, limits)
        if tensor.parameters and (shared := _SHARED_MEMORY_KEYS.intersection(tensor.parameters)):
            raise _unsupported(
                f"input '{name}': parameter '{min(shared)}': Turnout has no shared memory, send the data"
            )
        try:
            datatype = DataType(tensor.datatype)
        except ValueError:
            known = ", ".join(d.value for d in DataType)
            raise _invalid(f"input '{name}' has unknown datatype '{tensor.datatype[:32]}', known: {known}") from None
        if datatype is _BYTES:
            strings += _count(tensor.shape)
            if strings > limits.bytes_elements_max:
                raise _too_many(name, strings, "BYTES elements", limits.bytes_elements_max)
        try:
            if raw:
                if tensor.HasField("contents"):
                    raise _invalid(f"input '{name}' has contents, and the request has raw_input_contents: use one")
                array = from_raw(raw[index], datatype, tensor.shape)
            else:
                typed += _count(tensor.shape)
                if typed > limits.typed_elements_max:
                    raise _too_many(name, typed, "typed elements", limits.typed_elements_max)
                array = _typed(tensor, datatype)
            inputs[name] = _text(array) if datatype is _BYTES else array
        except TensorError as error:
            raise _invalid(f"input '{name}': {error}") from None
    return inputs


def _count(shape: Sequence[int]) -> int:
    """Elements of a shape as far as it makes sense; whether it does is checked with the data."""
    dims = shape[:]
    return prod(dims) if len(dims) <= RANK_MAX and min(dims, default=0) >= 0 else 0


def _too_many(name: str, count: int, what: str, limit: int) -> ServingError:
    return _invalid(f"input '{name}': with it the request has {count} {what}, the limit is {limit}: split it")


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, datatype: DataType) -> Array:
    fields = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    expected = datatype.contents_field
    if expected is None:
        raise TensorError(f"{datatype.value} has no typed contents: use raw_input_contents")
    if any(field != expected for field in fields):
        raise TensorError(f"{datatype.value} belongs into {expected} alone, the contents hold {', '.join(fields)}")
    if not tensor.HasField("contents") and 0 not in tensor.shape:
        raise TensorError("it has no data: send raw_input_contents or contents")
    return from_contents(getattr(tensor.contents, expected), datatype, tensor.shape)


def _text(array: Array) -> Array:
    """ONNX strings are Unicode, so bytes that are not UTF-8 cannot reach a model."""
    text = np.empty(array.shape, dtype=object)
    flat = text.reshape(-1)  # a view: `text` is new and contiguous
    for index, element in enumerate(array.reshape(-1)):
        try:
            flat[index] = element.decode()
        except UnicodeDecodeError:
            raise TensorError(f"element {index} is not UTF-8, and ONNX strings are") from None
    return text


def _outputs(message: pb.ModelInferRequest, limits: DecodeLimits) -> tuple[tuple[str, ...], dict[str, int]]:
    """The requested outputs in order, and of how many classes those are that ask for a classification."""
    classes: dict[str, int] = {}
    for tensor in message.outputs:
        _refuse_crowd(f"parameters of output '{tensor.name}'", tensor.parameters, limits)
        for key, value in tensor.parameters.items():
            if key in _SHARED_MEMORY_KEYS:
                raise _unsupported(f"output '{tensor.name}': parameter '{key}': Turnout has no shared memory, leave it")
            if key != "classification":
                continue
            if value.WhichOneof("parameter_choice") != "int64_param" or value.int64_param < 1:
                raise _invalid(f"output '{tensor.name}': parameter 'classification' must be an int64 from 1")
            classes[tensor.name] = value.int64_param
    return tuple(tensor.name for tensor in message.outputs), classes


def _invalid(message: str) -> ServingError:
    return ServingError(Reason.INVALID_REQUEST, message)


def _unsupported(message: str) -> ServingError:
    return ServingError(Reason.UNSUPPORTED, message)
