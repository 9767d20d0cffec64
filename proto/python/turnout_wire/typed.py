"""A model's own service: from its inputs and outputs to the messages with a field for each, as a descriptor.

Pure, and the same for the server, which serves it, and for `turnoutctl codegen`, which writes it down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from turnout_wire.datatypes import DataType
from turnout_wire.typed_names import field_names, field_numbers, file_stem, service_name, shape_name

PACKAGE: Final = "turnout.models"
ANY: Final = -1  # a dimension that each request chooses

# How values of a datatype stand in a message. Packed numbers of fixed width are, byte for byte, the tensor's raw
# contents: where there are such, they are used.
KINDS: Final[dict[DataType, str]] = {
    DataType.BOOL: "bool",
    DataType.UINT8: "bytes",
    DataType.UINT16: "uint32",
    DataType.UINT32: "fixed32",
    DataType.UINT64: "fixed64",
    DataType.INT8: "sint32",
    DataType.INT16: "sint32",
    DataType.INT32: "sfixed32",
    DataType.INT64: "sfixed64",
    DataType.FP16: "float",
    DataType.FP32: "float",
    DataType.FP64: "double",
    DataType.BYTES: "string",
    DataType.BF16: "float",
}


@dataclass(frozen=True, slots=True)
class Plain:
    """A field that is no tensor, and what it says."""

    name: str
    number: int
    kind: str
    says: str


REQUEST: Final = (
    Plain("request_id", 1, "string", "The caller's own id; copied to the answer."),
    Plain("sticky_key", 2, "string", "Requests with the same key are answered by the same slot."),
    Plain("model_version", 3, "string", "Decimal, 1 or more: only this version may answer. Empty: the route decides."),
)
RESPONSE: Final = (
    Plain("request_id", 1, "string", "The request's, unchanged."),
    Plain("inference_id", 2, "string", "The request's id, or one that the server made; labels refer to it."),
    Plain("model_version", 3, "string", "The version that ran."),
    Plain("slot", 4, "string", "The slot that answered."),
    Plain("revision", 5, "string", "The revision in it, such as digits/2@int8."),
    Plain("generation", 6, "int64", "Of the route that led there."),
    Plain("error_code", 7, "int32", "Of PredictStream only: the gRPC status of a request that failed; else 0."),
    Plain("error_message", 8, "string", "Why it failed. A failed request ends no stream."),
    Plain("error_reason", 9, "string", "The same for programs, such as QUEUE_FULL."),
    Plain("error_retry_after_ms", 10, "int64", "When to ask again; 0: the server does not say."),
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model: `shape` as clients see it, with the batch dimension (ANY) where there is one."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def shape_follows(self) -> bool:
        """Whether the number of values tells the shape: at most one dimension is open, and no other is 0."""
        return self.shape.count(ANY) == 0 or (self.shape.count(ANY) == 1 and 0 not in self.shape)


@dataclass(frozen=True, slots=True)
class Field:
    """A tensor in a message. `shape_number` is that of the field NAME_shape, where there has to be one; else 0."""

    tensor: Tensor
    name: str
    number: int
    shape_number: int

    @property
    def kind(self) -> str:
        """The type of its values."""
        return KINDS[self.tensor.datatype]

    @property
    def repeated(self) -> bool:
        return self.kind != "bytes"

    @property
    def shape_name(self) -> str:
        return shape_name(self.name)


@dataclass(frozen=True, slots=True)
class ModelService:
    """The service of a model: `name` is Digits for `digits`; the messages are DigitsRequest and DigitsResponse."""

    model: str
    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    @property
    def full_name(self) -> str:
        return f"{PACKAGE}.{self.name}"

    @property
    def predict_path(self) -> str:
        return f"/{self.full_name}/Predict"

    @property
    def stream_path(self) -> str:
        return f"/{self.full_name}/PredictStream"

    @property
    def request_name(self) -> str:
        return f"{self.name}Request"

    @property
    def response_name(self) -> str:
        return f"{self.name}Response"


def model_service(model: str, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> ModelService:
    """The service of a model with these inputs and outputs."""
    name = service_name(model)
    return ModelService(model, name, _fields(tuple(inputs), REQUEST), _fields(tuple(outputs), RESPONSE))


def file_name(service: ModelService) -> str:
    """As imports and reflection have it."""
    return f"{PACKAGE.replace('.', '/')}/{file_stem(service.model)}.proto"


def file_descriptor(service: ModelService) -> FileDescriptorProto:
    """The file of a service; it imports nothing."""
    request, response = service.request_name, service.response_name
    file = FileDescriptorProto(name=file_name(service), package=PACKAGE, syntax="proto3")
    file.message_type.append(_message(request, REQUEST, service.inputs))
    file.message_type.append(_message(response, RESPONSE, service.outputs))
    described = file.service.add(name=service.name)
    for method, stream in (("Predict", False), ("PredictStream", True)):
        rpc = described.method.add(
            name=method, input_type=f".{PACKAGE}.{request}", output_type=f".{PACKAGE}.{response}"
        )
        if stream:
            rpc.client_streaming = rpc.server_streaming = True
    return file


def _fields(tensors: tuple[Tensor, ...], envelope: tuple[Plain, ...]) -> tuple[Field, ...]:
    unclear = {tensor.name for tensor in tensors if not tensor.shape_follows}
    names = field_names([tensor.name for tensor in tensors], unclear, [plain.name for plain in envelope])
    numbers = field_numbers((tensor.name, tensor.datatype.value) for tensor in tensors)
    return tuple(
        Field(t, names[t.name], numbers[t.name], numbers[t.name] + 1 if t.name in unclear else 0) for t in tensors
    )


def _message(name: str, envelope: tuple[Plain, ...], fields: tuple[Field, ...]) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for plain in envelope:
        _add(message, plain.name, plain.number, plain.kind, False)
    for field in fields:
        _add(message, field.name, field.number, field.kind, field.repeated)
        if field.shape_number:
            _add(message, field.shape_name, field.shape_number, "int64", True)
    return message


def _add(message: DescriptorProto, name: str, number: int, kind: str, repeated: bool) -> None:
    label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    typed = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    message.field.add(name=name, number=number, label=label, type=typed, json_name=_json_name(name))


def _json_name(name: str) -> str:
    """As protoc makes it: clients by reflection show it."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)
