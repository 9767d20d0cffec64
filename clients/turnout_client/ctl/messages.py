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


def enum_name(message: Message, name: str) -> str:
    """The value of an enumeration field without its prefix; its number, where it is of a later version."""
    field = message.DESCRIPTOR.fields_by_name[name]
    assert field.enum_type is not None
    values, number = field.enum_type.values_by_number, getattr(message, name)
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return values[number].name.removeprefix(prefix) if number in values else str(number)


def _value(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return dict(sorted(value.items())) if isinstance(value, Mapping) else [_one(each) for each in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.enum_type is not None:
        return enum_name(message, field.name) if value else None
    return _one(value)


def _one(value: Any) -> Any:
    match value:
        case Message():
            return _part(value)
        case float() if not math.isfinite(value):
            return _NO_JSON_NUMBER.get(value, "NaN")
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
