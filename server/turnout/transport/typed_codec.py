"""The messages of a model's own service: a field for each tensor, to InferenceRequest and from InferenceResponse.

A request becomes what `codec` makes of the protocol's: a plan and raw contents, so that all checks are the same. Packed
numbers of fixed width are raw contents already: they are parsed as bytes, and Python never sees their values.
"""

from __future__ import annotations

from collections.abc import Sized
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.transport.codec import MESSAGE_BYTES_MAX, Asked, Received
from turnout.transport.plan import DecodeLimits, InputPlan, Parameters, Plan, invalid
from turnout_wire.tensors import RANK_MAX, Array, DataType, to_bytes, to_raw
from turnout_wire.typed import ANY, PACKAGE, Field, ModelService, file_descriptor
from turnout_wire.varint import to_varint, to_varints

# Bytes of a value, where the packed values are the tensor's raw contents, or those of FP32.
_WIDTHS = {"bool": 1, "fixed32": 4, "fixed64": 8, "sfixed32": 4, "sfixed64": 8, "float": 4, "double": 8}
_SINGLE = np.dtype("<f4")
_STICKY = "sticky_key"
_CODES: dict[str, int] = {code.name: code.value[0] for code in StatusCode}
_TWIN = "twin"  # a package
_FIELDS_MAX = 64  # beyond which protobuf's own parser goes over a message once more, and Python over none of it
_SEVEN_BITS = 0x7F
_LENGTH_DELIMITED = 2  # the wire type of all that a request usually has: text, packed values, bytes


class TypedCodec:
    """The dialect of one model's service; see `dialects.Dialect`."""

    def __init__(self, service: ModelService, limits: DecodeLimits) -> None:
        self._service = service
        self._limits = limits
        self.unary = service.predict_path[1:]
        self.stream = service.stream_path[1:]
        self._packed = frozenset(field.number for field in service.inputs if field.kind in _WIDTHS)

    @cached_property
    def _messages(self) -> tuple[Any, Any, Any]:
        """The classes of requests, of their twins and of answers; made when the first request comes."""
        pool = DescriptorPool()
        file = file_descriptor(self._service)
        for each in (file, _twin(file, self._service)):
            pool.AddSerializedFile(each.SerializeToString())  # type: ignore[no-untyped-call]
        names = (
            f"{PACKAGE}.{self._service.request_name}",
            f"{_TWIN}.{self._service.request_name}",
            f"{PACKAGE}.{self._service.response_name}",
        )
        request, twin, response = (GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)  # type: ignore[no-untyped-call]
        return request, twin, response

    def read(self, data: bytes) -> Received:
        message = self._parsed(data)
        inputs: list[InputPlan] = []
        contents: list[tuple[bytes, int, int]] = []
        refusal = None
        try:
            reading = _Reading(message, self._service, self._limits)
            for field in self._service.inputs:
                if (found := reading.tensor(field)) is not None:
                    dims, raw = found
                    inputs.append(_plan(field, dims, raw))
                    contents.append((raw, 0, len(raw)))
        except ServingError as error:
            refusal = (error.reason, error.message)  # not the error, which would keep the message
        plan = Plan(
            model=self._service.model,
            model_version=message.model_version,
            parameters=Parameters(),
            inputs=tuple(inputs),
            inputs_count=len(inputs),
            outputs=(),
            classes={},
            refusal=refusal,
            texts={_STICKY: message.sticky_key} if message.sticky_key else {},
        )
        return Received(plan, message.request_id, contents, len(contents), self._limits)

    def encode(
        self, request: InferenceRequest, response: InferenceResponse, *, identity: bool, streamed: bool = False
    ) -> bytes:
        """Raises:
        ServingError: RESPONSE_TOO_LARGE; UNSUPPORTED, the slot's outputs are not those of the service.
        """
        message = self._messages[2](request_id=request.request_id, model_version=str(response.revision.version))
        if identity:
            message.inference_id = request.inference_id
            message.slot = response.slot
            message.revision = str(response.revision)
            message.generation = response.generation
        outputs = {spec.name: (spec.datatype, array) for spec, array in response.outputs}
        parts: list[bytes | memoryview] = []
        for field in self._service.outputs:
            datatype, array = outputs.get(field.tensor.name, (None, None))
            if array is None or datatype is not field.tensor.datatype or not _admits(field, array.shape):
                raise self._differs(field, response)
            parts += _values(field, array, message)
            if field.shape_number:
                getattr(message, field.shape_name).extend(array.shape)
        parts.append(self._messages[2].SerializeToString(message))  # of the class: a tensor may be called so
        length = sum(map(len, parts))
        if length > MESSAGE_BYTES_MAX:
            raise ServingError(
                Reason.RESPONSE_TOO_LARGE,
                f"the answer of {length} bytes is above gRPC's limit of {MESSAGE_BYTES_MAX}: ask for fewer rows",
            )
        return b"".join(parts)

    def encode_stream_error(self, asked: Asked, error: ServingError, code: str) -> bytes:
        message = self._messages[2](
            request_id=asked.request_id,
            model_version=asked.model_version,
            error_code=_CODES[code],
            error_message=error.message,
            error_reason=error.reason.name,
            error_retry_after_ms=error.retry_after_ms or 0,
        )
        encoded: bytes = self._messages[2].SerializeToString(message)
        return encoded

    def _parsed(self, data: bytes) -> Any:
        """The request with the packed fields as bytes. What came in another encoding (numbers one by one, in many
        pieces, or a truth value in more than one byte), which is rare, is written again in the usual one."""
        request, twin, _ = self._messages
        message = twin.FromString(data)
        if not self._packed:
            return message
        usual = _is_usual(data) and all(
            all(map(bytes.isascii, getattr(message, field.name)))
            for field in self._service.inputs
            if field.kind == "bool"
        )
        return message if usual else twin.FromString(request.SerializeToString(request.FromString(data)))

    def _differs(self, field: Field, response: InferenceResponse) -> ServingError:
        tensor = field.tensor
        return ServingError(
            Reason.UNSUPPORTED,
            f"{response.revision} in slot '{response.slot}' gives no output '{tensor.name}' of {tensor.datatype.value} "
            f"{list(tensor.shape)}, which {self._service.full_name} promises: call ModelInfer, or pin another version",
        )


class _Reading:
    """One request message, field by field, within the limits of what Python reads element by element."""

    def __init__(self, message: Any, service: ModelService, limits: DecodeLimits) -> None:
        self._message = message
        self._service = service
        self._limits = limits
        self._numbers = 0
        self._strings = 0

    def tensor(self, field: Field) -> tuple[tuple[int, ...], bytes] | None:
        """The dimensions and raw contents; None: an optional input that is left out.

        Raises:
            ServingError: INVALID_REQUEST, naming the field.
            DecodeError: its packed values are none.
        """
        values = getattr(self._message, field.name)
        width = _WIDTHS.get(field.kind)
        if width is not None:
            if any(len(piece) % width for piece in values):
                raise DecodeError("packed values end within a value")
            values = values[0] if len(values) == 1 else b"".join(values)
        dims = self._dims(field, len(values) // (width or 1))
        if dims is None:
            return None
        datatype = field.tensor.datatype
        if datatype is DataType.FP16 or datatype is DataType.BF16:
            return dims, _narrowed(field, np.frombuffer(values, _SINGLE))
        if field.kind == "string":
            self._strings = self._counted(field, self._strings, values, "strings", self._limits.bytes_elements_max)
            return dims, to_bytes(np.array(values, dtype=object), datatype)
        if width is None and field.repeated:
            self._numbers = self._counted(field, self._numbers, values, "numbers", self._limits.typed_elements_max)
            return dims, _narrowed(field, np.fromiter(values, np.int64, len(values)))
        return dims, values

    def _dims(self, field: Field, count: int) -> tuple[int, ...] | None:
        tensor = field.tensor
        if field.shape_number:
            dims = tuple(getattr(self._message, field.shape_name)[: RANK_MAX + 1])
            if not dims and not count and tensor.optional:
                return None
            if not _admits(field, dims) or min(dims, default=0) < 0 or prod(dims) != count:
                raise self._invalid(
                    field,
                    f"has {count} values, and {field.shape_name} is {list(dims)}: give the sizes of {_shown(field)}, "
                    "and as many values",
                )
            return dims
        if not count and (tensor.optional or ANY in tensor.shape):
            if tensor.optional:
                return None
            raise self._invalid(field, f"is empty: send the values of {_shown(field)}, row by row")
        known = prod(dim for dim in tensor.shape if dim != ANY)
        if count % known if ANY in tensor.shape else count != known:
            many = f"a multiple of {known}" if ANY in tensor.shape else str(known)
            raise self._invalid(field, f"has {count} values, and {_shown(field)} takes {many}")
        return tuple(count // known if dim == ANY else dim for dim in tensor.shape)

    def _counted(self, field: Field, before: int, values: Sized, what: str, limit: int) -> int:
        count = before + len(values)
        if count > limit:
            raise self._invalid(field, f"is too long: with it the request has {count} {what}, the limit is {limit}")
        return count

    def _invalid(self, field: Field, what: str) -> ServingError:
        return invalid(f"field '{field.name}' of {self._service.request_name} {what}")


def _is_usual(data: bytes) -> bool:
    """Whether a message, which parses, is of a few length-delimited fields. Looks at no more of it than that: to list
    what it has beside its fields costs a Python object for every two bytes."""
    at, end = 0, len(data)
    for _ in range(_FIELDS_MAX):
        if at >= end:
            return True
        if data[at] & 7 != _LENGTH_DELIMITED:
            return False
        while data[at] > _SEVEN_BITS:  # the field's number
            at += 1
        at += 1
        size = data[at]
        shift = 0
        while data[at] > _SEVEN_BITS:
            at += 1
            shift += 7
            size = size & (1 << shift) - 1 | data[at] << shift
        at += 1 + size
    return at >= end


def _twin(file: FileDescriptorProto, service: ModelService) -> FileDescriptorProto:
    """The request with bytes for packed values: the same on the wire."""
    twin = FileDescriptorProto(name="twin.proto", package=_TWIN, syntax="proto3")
    message = twin.message_type.add()
    message.CopyFrom(file.message_type[0])
    packed = {field.number for field in service.inputs if field.kind in _WIDTHS}
    for field in message.field:
        if field.number in packed:
            field.type = FieldDescriptorProto.TYPE_BYTES  # repeated: packed values may come in pieces
    return twin


def _plan(field: Field, dims: tuple[int, ...], raw: bytes) -> InputPlan:
    datatype = field.tensor.datatype
    plain = raw and datatype is not DataType.BYTES and datatype is not DataType.BOOL
    return InputPlan(field.tensor.name, datatype, dims, datatype.dtype, len(raw) if plain else -1)


def _narrowed(field: Field, wide: Array) -> bytes:
    """In the tensor's own datatype: whole numbers must fit, others are rounded to the nearest and must stay finite."""
    datatype = field.tensor.datatype
    with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN becomes a quiet one
        narrow = wide.astype(datatype.dtype)
    kept = narrow.astype(wide.dtype)
    wrong = kept != wide if wide.dtype.kind == "i" else np.isfinite(wide) & ~np.isfinite(kept)
    if wrong.any():
        raise invalid(f"field '{field.name}' has the value {wide[wrong][0]}, which {datatype.value} cannot hold")
    return narrow.tobytes()


def _values(field: Field, array: Array, message: Any) -> list[bytes | memoryview]:
    """The field as it goes on the wire; nothing where it was put into the message instead."""
    if not array.size:
        return []
    if field.kind == "string":
        getattr(message, field.name).extend(array.reshape(-1).tolist())
        return []
    raw: bytes | memoryview
    if field.kind in _WIDTHS or not field.repeated:
        halved = field.tensor.datatype in (DataType.FP16, DataType.BF16)
        raw = to_raw(array, DataType.FP32 if halved else field.tensor.datatype)
    else:
        raw = to_varints(array)
    return [to_varint(field.number << 3 | 2), to_varint(len(raw)), raw]


def _admits(field: Field, shape: tuple[int, ...]) -> bool:
    wanted = field.tensor.shape
    return len(shape) == len(wanted) and all(want in (ANY, have) for want, have in zip(wanted, shape, strict=True))


def _shown(field: Field) -> str:
    return f"shape {list(field.tensor.shape)}"
