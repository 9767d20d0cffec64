"""ModelInferRequest to InferenceRequest and InferenceResponse to ModelInferResponse.

Large tensors come in as views over the received bytes, and leave with exactly one copy, into the message. What repeats
from message to message is read and written once: see `plan` for requests; for answers, below.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.core.tracing import TraceContext
from turnout.transport import framing
from turnout.transport.plan import (
    DecodeLimits,
    InputPlan,
    Plan,
    invalid,
    plan_of,
    read_sticky_key,
    read_variant,
    version_of,
)
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import Array, DataType, TensorError, from_contents, from_raw, to_bytes, to_raw
from turnout_wire.varint import to_varint

__all__ = [
    "Asked",
    "DecodeLimits",
    "Received",
    "Requests",
    "encode",
    "encode_stream_error",
    "read_sticky_key",
    "read_variant",
    "version_of",
]

MESSAGE_BYTES_MAX = 2**31 - 1  # gRPC's own limit
# Headers of requests whose plans are kept. A plan takes up to about thirty times its header.
_PLANS_MAX = 1024
_PLANNED_BYTES_MAX = 1 << 18
_COPIED_BYTES_MAX = 1 << 14  # up to here a copy costs less than to find out whether there has to be one
_BYTES = DataType.BYTES
_FRAME_BYTES_MAX = 16  # a streamed answer's own tag and length
_ID_TAG = b"\x1a"  # ModelInferResponse.id: field 3, length-delimited
_RAW_OUTPUT_TAG = b"\x32"  # ModelInferResponse.raw_output_contents: field 6
_INFER_RESPONSE_TAG = b"\x12"  # ModelStreamInferResponse.infer_response: field 2
_mint = random.Random().getrandbits  # noqa: S311 - seeded by the system; an id tells requests apart, and is no secret


class Requests:
    """Reads ModelInferRequests. Keeps the plans of those whose tensors came raw, by the bytes of their headers."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()  # the least recently used first
        self._planned_bytes = 0

    def read(self, data: bytes) -> Received:
        """The request in a message; whether it can be served is found out by `Received.request`.

        Raises:
            DecodeError: it is no ModelInferRequest.
        """
        frame = framing.walk(data)
        if frame is None or not frame.spans:  # typed contents are in the header: no two of them are equal
            return self.parse(data)
        header, request_id, spans = frame
        plan = self._plans.get(header)
        if plan is None:
            plan = plan_of(pb.ModelInferRequest.FromString(header), True, self._limits)
            if plan.refusal is None:
                if all(each.datatype is not _BYTES for each in plan.inputs):
                    plan = replace(plan, form=object())
                self._keep(header, plan)
        else:
            self._plans.move_to_end(header)
        return Received(plan, request_id, spans, len(spans), self._limits)

    def parse(self, data: bytes) -> Received:
        """The same by way of the generated parser, for any message."""
        message = pb.ModelInferRequest.FromString(data)
        count = len(message.raw_input_contents)
        plan = plan_of(message, bool(count), self._limits)
        contents = [(raw, 0, len(raw)) for raw in message.raw_input_contents]
        return Received(plan, message.id, contents, count, self._limits, None if count else message)

    def _keep(self, header: bytes, plan: Plan) -> None:
        self._plans[header] = plan
        self._planned_bytes += len(header)
        while len(self._plans) > _PLANS_MAX or self._planned_bytes > _PLANNED_BYTES_MAX:
            oldest, _ = self._plans.popitem(last=False)
            self._planned_bytes -= len(oldest)


class Received:
    """A request message. Holds the received bytes: whoever has taken the request lets go of this.

    Args:
        contents: where the raw contents are: within which bytes, from where, how many. Those of the inputs come first.
        contents_count: how many there are.
        message: where the inputs have typed contents.
    """

    __slots__ = ("_contents", "_contents_count", "_limits", "_message", "plan", "request_id")

    def __init__(
        self,
        plan: Plan,
        request_id: str,
        contents: Sequence[tuple[bytes, int, int]],
        contents_count: int,
        limits: DecodeLimits,
        message: pb.ModelInferRequest | None = None,
    ) -> None:
        self.plan = plan
        self.request_id = request_id
        self._contents = contents
        self._contents_count = contents_count
        self._limits = limits
        self._message = message

    def request(
        self,
        deadline_ns: int | None,
        version: int | None = None,
        slot: str | None = None,
        sticky_key: str | None = None,
        trace: TraceContext | None = None,
        variant: str | None = None,
    ) -> InferenceRequest:
        """The request. Its arrays cannot be written; where one is not a copy, it is a view over the message.

        Args:
            version, slot, variant: the pins, which the caller has read and found to be there.
            sticky_key: as `read_sticky_key` gives it.

        Raises:
            ServingError: INVALID_REQUEST or UNSUPPORTED, naming the tensor or parameter.
        """
        plan, request_id = self.plan, self.request_id
        if len(request_id) > self._limits.id_characters_max:
            raise invalid(f"the id has {len(request_id)} characters, the limit is {self._limits.id_characters_max}")
        inputs = self._inputs()
        if plan.refusal is not None:
            raise ServingError(*plan.refusal)
        return InferenceRequest(
            model=plan.model,
            inputs=inputs,
            outputs=plan.outputs,
            version=version,
            slot=slot,
            variant=variant,
            sticky_key=sticky_key,
            request_id=request_id,
            inference_id=request_id or f"{_mint(64):016x}",
            deadline_ns=deadline_ns,
            timeout_ns=plan.parameters.timeout_ns,
            priority=plan.parameters.priority,
            classes=plan.classes,
            trace=trace,
            form=plan.form,
        )

    def _inputs(self) -> dict[str, Array]:
        planned, count = self.plan.inputs, self._contents_count
        if 0 < count < self.plan.inputs_count:
            raise invalid(f"the request has {self.plan.inputs_count} inputs and only {count} raw_input_contents")
        inputs: dict[str, Array] = {}
        index = 0
        try:
            if self._message is None:
                for index, plan in enumerate(planned[: len(self._contents)]):
                    inputs[plan.name] = _array(plan, *self._contents[index])
            else:
                for index, tensor in enumerate(self._message.inputs[: len(planned)]):
                    inputs[planned[index].name] = _typed(planned[index], tensor)
        except TensorError as error:
            raise invalid(f"input '{planned[index].name}': {error}") from None
        return inputs


def _array(plan: InputPlan, data: bytes, start: int, size: int) -> Array:
    """The tensor in `size` bytes of `data`.

    A view where it is large, is most of the bytes that it would keep alive, and lies where a load of its elements is
    defined in C: a batch of one goes to the model as it is. A copy otherwise.
    """
    array: Array
    if size > _COPIED_BYTES_MAX and size == plan.size and size > len(data) // 2:
        array = np.ndarray(plan.dims, plan.dtype, data, start)
        if array.flags.aligned:
            return array
    raw = data[start : start + size]  # itself, if that is all of it; memory for the widest element
    if size == plan.size:
        return np.ndarray(plan.dims, plan.dtype, raw)
    array = from_raw(raw, plan.datatype, plan.dims)
    return _text(array) if plan.datatype is _BYTES else array


def _typed(plan: InputPlan, tensor: pb.ModelInferRequest.InferInputTensor) -> Array:
    datatype = plan.datatype
    fields = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    expected = datatype.contents_field
    if expected is None:
        raise TensorError(f"{datatype.value} has no typed contents: use raw_input_contents")
    if any(field != expected for field in fields):
        raise TensorError(f"{datatype.value} belongs into {expected} alone, the contents hold {', '.join(fields)}")
    if not tensor.HasField("contents") and 0 not in plan.dims:
        raise TensorError("it has no data: send raw_input_contents or contents")
    array = from_contents(getattr(tensor.contents, expected), datatype, plan.dims)
    return _text(array) if datatype is _BYTES else array


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


def encode(request: InferenceRequest, response: InferenceResponse, *, identity: bool, streamed: bool = False) -> bytes:
    """The serialised ModelInferResponse: raw outputs, and with `identity` who answered. `streamed` marks it as the only
    answer of its request, and puts it into a ModelStreamInferResponse.

    Raises:
        ServingError: RESPONSE_TOO_LARGE.
    """
    names, parameters = _answerer(
        request.model, response.slot, response.revision, response.generation, identity, streamed
    )
    parts: list[bytes | memoryview] = [b"", names]
    if request.request_id:
        text = request.request_id.encode()
        parts += (_head(_ID_TAG, len(text)), text)
    parts.append(parameters)
    if identity:
        text = request.inference_id.encode()
        parts += (_inference_id_head(len(text)), text)
    for spec, array in response.outputs:
        parts.append(_output(spec.name, spec.datatype, array.shape))
    for spec, array in response.outputs:
        small = array.nbytes <= _COPIED_BYTES_MAX
        raw = to_bytes(array, spec.datatype) if small else to_raw(array, spec.datatype)
        parts += (_head(_RAW_OUTPUT_TAG, len(raw)), raw)
    length = sum(map(len, parts))
    if streamed:
        parts[0] = _head(_INFER_RESPONSE_TAG, length)
    if length > MESSAGE_BYTES_MAX - _FRAME_BYTES_MAX:
        raise ServingError(
            Reason.RESPONSE_TOO_LARGE,
            f"the answer of {length} bytes is above gRPC's limit of {MESSAGE_BYTES_MAX}: ask for fewer rows or outputs",
        )
    return b"".join(parts)


@lru_cache(maxsize=256)
def _answerer(
    model: str, slot: str, revision: Revision, generation: int, identity: bool, streamed: bool
) -> tuple[bytes, bytes]:
    """What is the same in every answer of a slot: the fields before the id, and the parameters."""
    names = pb.ModelInferResponse(model_name=model, model_version=str(revision.version))
    rest = pb.ModelInferResponse()
    if identity:
        rest.parameters["turnout_slot"].string_param = slot
        rest.parameters["turnout_revision"].string_param = str(revision)
        rest.parameters["turnout_generation"].int64_param = generation
    if streamed:
        rest.parameters["triton_final_response"].bool_param = True
    return names.SerializeToString(), rest.SerializeToString()


@lru_cache(maxsize=1024)
def _output(name: str, datatype: DataType, shape: tuple[int, ...]) -> bytes:
    """The description of an output: clients send the same shapes again and again."""
    part = pb.ModelInferResponse()
    part.outputs.add(name=name, datatype=datatype.value, shape=shape)
    return part.SerializeToString()


@lru_cache(maxsize=4096)
def _head(tag: bytes, size: int) -> bytes:
    """What comes before the bytes of a field."""
    return tag + to_varint(size)


@lru_cache(maxsize=256)
def _inference_id_head(size: int) -> bytes:
    """What comes before the text of the parameter `inference_id`: an entry (field 4) of key (1) and value (2), which is
    an InferParameter with a text (3)."""
    text = b"\x1a" + to_varint(size)
    key = b"\x0a\x0cinference_id\x12" + to_varint(len(text) + size)
    return b"\x22" + to_varint(len(key) + len(text) + size) + key + text


class Asked(NamedTuple):
    """What an error inside a stream says of the request that it belongs to; no more than a bound of each."""

    model_name: str = ""
    model_version: str = ""
    request_id: str = ""

    @classmethod
    def of(cls, plan: Plan, request_id: str, characters_max: int) -> Asked:
        return cls(plan.model[:characters_max], plan.model_version[:characters_max], request_id[:characters_max])


def encode_stream_error(asked: Asked, error: ServingError, code: str) -> bytes:
    """An error inside a stream, which stays open: the text, the request it belongs to, and as parameters what the
    status of a call would say (`code`: its name)."""
    reply = pb.ModelStreamInferResponse(error_message=error.message)
    reply.infer_response.model_name = asked.model_name
    reply.infer_response.model_version = asked.model_version
    reply.infer_response.id = asked.request_id
    parameters = reply.infer_response.parameters
    parameters["triton_final_response"].bool_param = True
    parameters["turnout_code"].string_param = code
    parameters["turnout_reason"].string_param = error.reason.name
    if error.retry_after_ms is not None:
        parameters["turnout_retry_after_ms"].int64_param = error.retry_after_ms
    return reply.SerializeToString()
