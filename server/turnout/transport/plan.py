"""What a ModelInferRequest says beside its data: checked once, and the same for all requests with equal headers.

What a model takes is checked later, against its signature; here only the message itself is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np

from turnout.core.errors import Reason, ServingError
from turnout.core.ids import NO_VARIANT, parse_version
from turnout.core.variants import is_variant
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import RANK_MAX, DataType

VARIANT_PARAMETER = "turnout_variant"  # of a request; 'variant' alone may be anybody's
STICKY_CHARACTERS_MAX = 256  # a hash, an email address, a UUID
_BYTES = DataType.BYTES
_BOOL = DataType.BOOL
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


class InputPlan(NamedTuple):
    """One input. `size` is what its raw contents must have for an array of `dtype` to be laid over them as they are,
    in bytes; -1: somebody has to look at them."""

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    dtype: np.dtype[np.generic]
    size: int


class Parameters(NamedTuple):
    """What the request parameters ask for; 0: nothing."""

    timeout_ns: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A header. Where something is wrong with it, what comes before that in the order of checks, and the refusal.

    Attributes:
        texts: the request parameters that are strings; None for those that are something else.
        inputs_count: raw contents that the message needs, if it has any; 0 where the refusal comes before that.
        refusal: what is told once the inputs before it have been read.
        form: see InferenceRequest; of a plan that is kept.
    """

    model: str
    model_version: str
    parameters: Parameters
    inputs: tuple[InputPlan, ...]
    inputs_count: int
    outputs: tuple[str, ...]
    classes: Mapping[str, int]
    refusal: tuple[Reason, str] | None
    texts: Mapping[str, str | None] = field(default_factory=dict)
    form: object | None = field(default=None, compare=False, repr=False)


def plan_of(message: pb.ModelInferRequest, raw: bool, limits: DecodeLimits) -> Plan:
    """The plan of a message, or of its header alone.

    Args:
        raw: whether the message has raw contents, which the header does not show.
    """
    parameters = Parameters()
    texts: dict[str, str | None] = {}
    inputs: list[InputPlan] = []
    inputs_count = 0
    outputs: tuple[str, ...] = ()
    classes: dict[str, int] = {}
    refusal = None
    try:
        _refuse_crowd("parameters", message.parameters, limits)
        _refuse_crowd("inputs", message.inputs, limits)
        _refuse_crowd("outputs", message.outputs, limits)
        texts = {
            key: value.string_param if value.HasField("string_param") else None
            for key, value in message.parameters.items()
        }
        parameters = _parameters(message)
        _refuse_twice("input", message.inputs)
        _refuse_twice("output", message.outputs)
        inputs_count = len(message.inputs)
        _read_inputs(message, raw, limits, inputs)
        outputs, classes = _outputs(message, limits)
    except ServingError as error:
        refusal = (error.reason, error.message)  # not the error, which would keep the message
    return Plan(
        message.model_name,
        message.model_version,
        parameters,
        tuple(inputs),
        inputs_count,
        outputs,
        classes,
        refusal,
        texts,
    )


def version_of(text: str) -> int | None:
    """The version that a message names; none when it is empty.

    Raises:
        ServingError: INVALID_REQUEST.
    """
    if not text:
        return None
    version = parse_version(text)
    if version is None:
        raise invalid(f"model version '{text[:64]}' is not a number from 1 without sign or leading zero")
    return version


def read_sticky_key(plan: Plan, metadata: str | None, parameter: str) -> str | None:
    """The key that a request is routed by: from its metadata, else from its parameter of that name.

    Raises:
        ServingError: INVALID_REQUEST when it is no string, or too long.
    """
    key = metadata
    if key is None and parameter in plan.texts:
        key = plan.texts[parameter]
        if key is None:
            raise invalid(f"parameter '{parameter}' is no string_param, and requests are routed by it: make it one")
    if key is not None and len(key) > STICKY_CHARACTERS_MAX:
        raise invalid(f"the sticky key has {len(key)} characters, the limit is {STICKY_CHARACTERS_MAX}: send its hash")
    return key or None


def read_variant(plan: Plan, metadata: str | None) -> str | None:
    """The variant that a request pins: by its metadata, else by its parameter.

    Raises:
        ServingError: INVALID_REQUEST when it is no name of a variant.
    """
    name = metadata
    if name is None and VARIANT_PARAMETER in plan.texts:
        name = plan.texts[VARIANT_PARAMETER]
        if name is None:
            raise invalid(f"parameter '{VARIANT_PARAMETER}' is no string_param, and pins a variant: make it one")
    if name and not is_variant(name):
        raise invalid(
            f"'{name[:64]}' is no variant: lower-case letters, digits and hyphens, at most 32; "
            f"'{NO_VARIANT}' is the version's own file"
        )
    return name or None


def _parameters(message: pb.ModelInferRequest) -> Parameters:
    """Check the request parameters. `timeout` is in microseconds."""
    timeout_us = priority = 0
    for key, value in message.parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise invalid(f"parameter '{key[:64]}' has no value")
        if key == "headers" or (key.startswith("triton_") and key not in _KINDS):
            raise invalid(f"parameter '{key[:64]}' is reserved: choose another name")
        if kind not in _KINDS.get(key, kind):
            raise invalid(f"parameter '{key}' is a {kind}, it must be {' or '.join(_KINDS[key])}")
        if key == "timeout":
            timeout_us = value.int64_param
        elif key == "priority":
            priority = value.uint64_param if kind == "uint64_param" else value.int64_param
        if min(timeout_us, priority) < 0:
            raise invalid(f"parameter '{key}' is {value.int64_param}, it must be 0 or more")
    return Parameters(timeout_us * 1000, priority)


def _refuse_crowd(what: str, things: Sized, limits: DecodeLimits) -> None:
    if len(things) > limits.names_max:
        raise invalid(f"the request has {len(things)} {what}, the limit is {limits.names_max}")


def _refuse_twice(what: str, tensors: Iterable[_Tensor]) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise invalid(f"{what} '{tensor.name}' is given twice")
        names.add(tensor.name)


def _read_inputs(message: pb.ModelInferRequest, raw: bool, limits: DecodeLimits, inputs: list[InputPlan]) -> None:
    """Fill `inputs`, up to the first one that is refused."""
    strings = typed = 0
    for tensor in message.inputs:
        name = tensor.name
        if len(tensor.shape) > RANK_MAX:  # before anything walks over them
            raise invalid(f"input '{name}': {len(tensor.shape)} dimensions, at most {RANK_MAX} are allowed: merge some")
        _refuse_crowd(f"parameters of input '{name}'", tensor.parameters, limits)
        if tensor.parameters and (shared := _SHARED_MEMORY_KEYS.intersection(tensor.parameters)):
            raise unsupported(f"input '{name}': parameter '{min(shared)}': Turnout has no shared memory, send the data")
        try:
            datatype = DataType(tensor.datatype)
        except ValueError:
            known = ", ".join(d.value for d in DataType)
            raise invalid(f"input '{name}' has unknown datatype '{tensor.datatype[:32]}', known: {known}") from None
        dims = tuple(tensor.shape[:])  # sliced first: walking over a protobuf field costs several times as much
        count = _count(dims)
        if datatype is _BYTES:
            strings += count
            if strings > limits.bytes_elements_max:
                raise _too_many(name, strings, "BYTES elements", limits.bytes_elements_max)
        if raw:
            if tensor.HasField("contents"):
                raise invalid(f"input '{name}' has contents, and the request has raw_input_contents: use one")
        else:
            typed += count
            if typed > limits.typed_elements_max:
                raise _too_many(name, typed, "typed elements", limits.typed_elements_max)
        # An array of no elements can still have dimensions that numpy refuses.
        plain = count and datatype is not _BYTES and datatype is not _BOOL
        inputs.append(InputPlan(name, datatype, dims, datatype.dtype, count * datatype.itemsize if plain else -1))


def _count(dims: Sequence[int]) -> int:
    """Elements of a shape as far as it makes sense; whether it does is checked with the data."""
    return prod(dims) if min(dims, default=0) >= 0 else 0


def _too_many(name: str, count: int, what: str, limit: int) -> ServingError:
    return invalid(f"input '{name}': with it the request has {count} {what}, the limit is {limit}: split it")


def _outputs(message: pb.ModelInferRequest, limits: DecodeLimits) -> tuple[tuple[str, ...], dict[str, int]]:
    """The requested outputs in order, and of how many classes those are that ask for a classification."""
    classes: dict[str, int] = {}
    for tensor in message.outputs:
        _refuse_crowd(f"parameters of output '{tensor.name}'", tensor.parameters, limits)
        for key, value in tensor.parameters.items():
            if key in _SHARED_MEMORY_KEYS:
                raise unsupported(f"output '{tensor.name}': parameter '{key}': Turnout has no shared memory, leave it")
            if key != "classification":
                continue
            if value.WhichOneof("parameter_choice") != "int64_param" or value.int64_param < 1:
                raise invalid(f"output '{tensor.name}': parameter 'classification' must be an int64 from 1")
            classes[tensor.name] = value.int64_param
    return tuple(tensor.name for tensor in message.outputs), classes


def invalid(message: str) -> ServingError:
    return ServingError(Reason.INVALID_REQUEST, message)


def unsupported(message: str) -> ServingError:
    return ServingError(Reason.UNSUPPORTED, message)
