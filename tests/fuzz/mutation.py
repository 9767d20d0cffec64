"""Mutations that keep their input well-formed: protobuf messages by reflection, texts by tokens, bytes by havoc.

All chance comes from the `random.Random` that is passed in, so a seed repeats itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

Mutate = Callable[[bytes, int], bytes]  # of bytes, to at most so many

INTEGERS = tuple(
    sorted(
        {
            sign * value + step
            for value in (0, 1, 2, 3, 4, 8, 16, 32, 33, 100, 127, 255, 1000, 2**15, 2**16, 2**31, 2**32, 2**62, 2**63)
            for sign in (1, -1)
            for step in (-1, 0, 1)
        }
        | {0x5555555555555556, 2**64 - 1, 10**18, 10**18 - 1}
    )
)
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e38, 1e39, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    " ",
    "x",
    "\0",
    "\r\n\x1b[31m",
    "\u202e",
    "naïve ☃",
    "😀" * 8,
    "../../etc/passwd",
    "a" * 300,
    "'\"{}%s\\",
)
_RANGES = {
    Field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_DEPTH_MAX = 6


def integer(rng: random.Random, lowest: int, highest: int) -> int:
    if rng.random() < 0.4:
        return rng.randint(max(lowest, 0), min(highest, 8))
    value = rng.choice(INTEGERS)
    return value if lowest <= value <= highest else min(max(rng.randint(-10, 300), lowest), highest)


class MessageMutator:
    """Changes one field somewhere in a message.

    Args:
        texts: strings to prefer, by the name of the field that they are for.
    """

    def __init__(self, rng: random.Random, texts: Mapping[str, Sequence[str]], mutate_bytes: Mutate) -> None:
        self._rng = rng
        self._texts = texts
        self._mutate_bytes = mutate_bytes

    def __call__(self, message: Message) -> None:
        at = self._descend(message)
        fields = at.DESCRIPTOR.fields
        if fields:
            self._change(at, self._rng.choice(fields))

    def _descend(self, message: Message) -> Message:
        """A message at or below this one; each step is as likely as staying."""
        for _ in range(_DEPTH_MAX):
            below: list[Message] = []
            for field, value in message.ListFields():
                if field.message_type is None:
                    continue
                if not field.is_repeated:
                    below.append(value)
                elif not _is_map(field):
                    below.extend(value)
                elif field.message_type.fields_by_name["value"].message_type is not None:
                    below.extend(value.values())
            if not below or self._rng.random() < 0.4:
                break
            message = self._rng.choice(below)
        return message

    def _change(self, message: Message, field: Field) -> None:
        if _is_map(field):
            self._change_map(getattr(message, field.name), field.message_type)
        elif field.is_repeated:
            self._change_repeated(message, field)
        elif self._rng.random() < 0.15:
            message.ClearField(field.name)
        elif field.message_type is not None:
            part = getattr(message, field.name)
            part.SetInParent()
            if field.message_type.fields:
                self._change(part, self._rng.choice(field.message_type.fields))
        else:
            setattr(message, field.name, self._scalar(field, getattr(message, field.name)))

    def _change_map(self, entries: Any, entry: Any) -> None:
        rng, keys = self._rng, list(entries)
        if keys and rng.random() < 0.3:
            del entries[rng.choice(keys)]
            return
        key = rng.choice(keys) if keys and rng.random() < 0.5 else self._scalar(entry.fields_by_name["key"], None)
        value = entry.fields_by_name["value"]
        if value.message_type is None:
            entries[key] = self._scalar(value, entries.get(key))
        elif rng.random() < 0.9 and value.message_type.fields:
            self._change(entries[key], rng.choice(value.message_type.fields))
        else:
            entries[key].SetInParent()

    def _change_repeated(self, message: Message, field: Field) -> None:
        rng, items = self._rng, getattr(message, field.name)
        action = rng.random()
        if len(items) and action < 0.2:
            del items[rng.randrange(len(items))]
        elif len(items) and action < 0.35:
            first = items[rng.randrange(len(items))]  # once more
            items.add().CopyFrom(first) if field.message_type is not None else items.append(first)
        elif field.message_type is not None:
            part = items[rng.randrange(len(items))] if len(items) and action < 0.7 else items.add()
            if field.message_type.fields:
                self._change(part, rng.choice(field.message_type.fields))
        elif len(items) and action < 0.7:
            at = rng.randrange(len(items))
            items[at] = self._scalar(field, items[at])
        else:
            items.extend(self._scalar(field, None) for _ in range(rng.choice((1, 1, 1, 2, 5, 40))))

    def _scalar(self, field: Field, old: Any) -> Any:
        rng, kind = self._rng, field.cpp_type
        if kind in _RANGES:
            lowest, highest = _RANGES[kind]
            if isinstance(old, int) and rng.random() < 0.3:
                return min(max(old + rng.choice((-1, 1)), lowest), highest)
            return integer(rng, lowest, highest)
        if kind == Field.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if kind in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
            return rng.choice(FLOATS)
        if kind == Field.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            unknown = [] if field.enum_type.is_closed else [max(known) + 1]
            return rng.choice(unknown or known) if rng.random() < 0.1 else rng.choice(known)
        if field.type == Field.TYPE_BYTES:
            return self._mutate_bytes(old or b"\0\0\0\0", 64)
        known_texts = self._texts.get(field.name, ())
        if known_texts and rng.random() < 0.8:
            return rng.choice(known_texts)
        return rng.choice(TEXTS)


def _is_map(field: Field) -> bool:
    return bool(field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry)


def mutate_text(rng: random.Random, text: str, tokens: Sequence[str]) -> str:
    """One change to a text: a token put in, a line or a piece taken out, moved or repeated, a number replaced."""
    action = rng.random()
    if not text or action < 0.35:
        at = rng.randint(0, len(text))
        return text[:at] + rng.choice(tokens) + text[at:]
    lines = text.splitlines(keepends=True)
    if action < 0.5:
        lines.insert(rng.randint(0, len(lines)), rng.choice(lines))
        return "".join(lines)
    if action < 0.65:
        del lines[rng.randrange(len(lines))]
        return "".join(lines)
    start = rng.randrange(len(text))
    end = min(len(text), start + rng.choice((1, 1, 2, 4, 16)))
    if action < 0.8:
        return text[:start] + text[end:]
    if action < 0.9:
        return text[:start] + rng.choice((*tokens, str(rng.choice(INTEGERS)))) + text[end:]
    return text[:start] + text[start:end] * rng.choice((2, 3, 50)) + text[end:]


def havoc(rng: random.Random) -> Mutate:
    """What libFuzzer does to bytes, where there is none: flips, cuts, repeats, insertions."""

    def mutate(data: bytes, bytes_max: int) -> bytes:
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randint(0, len(out))
            match rng.randrange(4):
                case 0:
                    out[at:at] = rng.choice((b"\0", b"\xff", b"\x80", b"\0\0\0\x80", bytes([rng.randrange(256)])))
                case 1:
                    del out[at : at + rng.choice((1, 1, 4, 16))]
                case 2 if at < len(out):
                    out[at] ^= 1 << rng.randrange(8)
                case _:
                    out[at:at] = out[max(0, at - rng.choice((1, 4, 16))) : at]
        return bytes(out[:bytes_max])

    return mutate


def mutate_wire(rng: random.Random, data: bytes) -> bytes:
    """One change to the encoding of a message, somewhere in it, which protobuf reads in its own way: unknown groups, a
    known field in another wire type, a message in two parts, a number in more bytes than it needs."""
    fields = _split(data)
    if not fields:
        return data
    at = rng.randrange(len(fields))
    number, wire, content = fields[at]
    if wire == 2 and _split(content) and rng.random() < 0.75:
        return _join(fields[:at], (number, 2, mutate_wire(rng, content)), fields[at + 1 :])
    match rng.randrange(7):
        case 0:
            return _join(fields[:at], (1000, 3, b""), (1000, 4, b""), fields[at:])
        case 1:
            return _join(fields[:at], (number, 3, b""), (number, 4, b""), fields[at:])
        case 2:
            other = rng.choice(((0, b"\0"), (0, b"\1"), (0, b"\5"), (1, b"location"), (2, b"\0"), (5, b"\0\0\0\0")))
            return _join(fields[: at + 1], (number, *other), fields[at + 1 :])
        case 3 if wire == 2 and (parts := _split(content)):
            cut = rng.randint(0, len(parts))
            halves = (number, 2, _join(parts[:cut])), (number, 2, _join(parts[cut:]))
            return _join(fields[:at], *halves, fields[at + 1 :])
        case 4 if wire == 0:
            long = bytes((content[-1] | 0x80, 0x80, 0x80, 0x80, *rng.choice(((0x00,), (0x10,), (0x80, 0x01)))))
            return _join(fields[:at], (number, 0, content[:-1] + long), fields[at + 1 :])
        case 5:
            return _join(fields[:at], fields[at + 1 :])
        case _:
            return _join(fields[: at + 1], fields[rng.randrange(len(fields))], fields[at + 1 :])


def reorder(rng: random.Random, data: bytes) -> bytes:
    """The outermost fields in another order, and lengths in more bytes than they need."""
    fields = _split(data)
    rng.shuffle(fields)
    out = bytearray()
    for number, wire, content in fields:
        field = _join((number, wire, content))
        if wire == 2 and number < 16 and len(content) < 0x80 and rng.random() < 0.1:
            field = bytes((field[0], field[1] | 0x80, *rng.choice(((0x00,), (0x80, 0x00), (0x80,) * 4)))) + content
        out += field
    return bytes(out)


_Encoded = tuple[int, int, bytes]  # number, wire type, content without its length


def _split(data: bytes) -> list[_Encoded]:
    """The fields of a message; none where these are no fields, or it has groups."""
    fields: list[_Encoded] = []
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        start = at
        match tag & 7:
            case 0:
                at = _read_varint(data, at)[1]
            case 1:
                at += 8
            case 2:
                length, start = _read_varint(data, at)
                at = start + length
            case 5:
                at += 4
            case _:
                return []
        if at > len(data) or tag < 8:
            return []
        fields.append((tag >> 3, tag & 7, data[start:at]))
    return fields


def _join(*pieces: _Encoded | list[_Encoded]) -> bytes:
    out = bytearray()
    for piece in pieces:
        for number, wire, content in piece if isinstance(piece, list) else [piece]:
            out += _varint(number << 3 | wire)
            out += _varint(len(content)) + content if wire == 2 else content
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    return 0, len(data) + 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
