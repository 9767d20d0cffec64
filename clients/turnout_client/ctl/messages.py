"""Any message as JSON, field by field, as `shapes` writes those of models: enum values without their prefix, times in
RFC 3339, durations as NAME_ms, revisions as text, 64-bit numbers as numbers. What is not set is null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from turnout_client.desired import RevisionSpec
from turnout_wire.gen import slots_pb2 as pb

_NO_JSON_NUMBER = {math.inf: "Infinity", -math.inf: "-Infinity"}  # as protobuf's own JSON writes them


def shape(message: Message) -> dict[str, Any]:
    """With every field of its type, in their order."""
    shaped = {}
    for field in message.DESCRIPTOR.fields:
        of_time = field.message_type is not None and field.message_type.name == "Duration"
        shaped[f"{field.name}_ms" if of_time else field.name] = _value(message, field)
    return shaped


def _value(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return dict(sorted(value.items())) if isinstance(value, Mapping) else [_one(each, field) for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _one(value, field)


def _one(value: Any, field: FieldDescriptor) -> Any:
    match value:
        case Message():
            return _part(value)
        case float() if not math.isfinite(value):
            return _NO_JSON_NUMBER.get(value, "NaN")
        case int() if field.enum_type is not None:
            return _enum_value(value, field)
    return value


def _part(message: Message) -> Any:
    match message:
        case Timestamp():
            return message.ToJsonString()
        case Duration():
            return message.ToNanoseconds() / 1e6
        case pb.Revision():
            return RevisionSpec(message.version, message.variant).text(message.model) if message.version else None
    return shape(message)


def _enum_value(number: int, field: FieldDescriptor) -> str | None:
    """None: unspecified. A value that this version does not know is its number."""
    values = field.enum_type.values_by_number
    if number not in values:
        return str(number)
    return values[number].name.removeprefix(values[0].name.removesuffix("UNSPECIFIED")) if number else None
