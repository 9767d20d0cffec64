"""Packed streams: many messages in one, without parsing them. `turnout/packed/v1/packed.proto` says what they are."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Final

from google.protobuf.message import DecodeError

from turnout_wire.varint import to_varint

SERVICE: Final = "turnout.packed.v1.PackedService"
PATH: Final = f"/{SERVICE}/Infer"
MESSAGES_MAX: Final = 1024  # in one; each costs whoever reads it
# What clients put into one at most.
REQUESTS_MAX: Final = 64
BYTES_MAX: Final = 1 << 18

_TAG = 1 << 3 | 2  # field 1 of InferRequests and of InferResponses, length-delimited
_TAG_BYTES = bytes((_TAG,))
_SEVEN_BITS = 0x7F
_VARINT_BITS_MAX = 70
_NUMBER_MAX = (1 << 29) - 1  # of a field
_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5  # wire types


def fits(packed: bool, messages: Sized, size: int, further: bytes) -> bool:
    """Whether a client's further request goes into the same message as others of `size` bytes together."""
    return packed and len(messages) < REQUESTS_MAX and size + len(further) <= BYTES_MAX


def pack(messages: Iterable[bytes]) -> bytes:
    """InferRequests of serialised requests, or InferResponses of serialised answers, in order."""
    parts: list[bytes] = []
    for message in messages:
        parts += (_TAG_BYTES, to_varint(len(message)), message)
    return b"".join(parts)


def unpack(data: bytes) -> list[bytes]:
    """The serialised messages in an InferRequests or InferResponses, in order. Fields that are not known are skipped.

    Raises:
        DecodeError: it is neither, or has more than MESSAGES_MAX messages, with those fields.
    """
    messages: list[bytes] = []
    at, end, fields = 0, len(data), 0
    try:
        while at < end:
            fields += 1
            if fields > MESSAGES_MAX:
                raise DecodeError(f"more than {MESSAGES_MAX} messages in one: send fewer together")
            tag, at = _varint(data, at)
            size, start = _extent(tag, data, at)
            at = start + size
            if tag == _TAG and at <= end:
                messages.append(data[start:at])
    except IndexError:
        at = end + 1
    if at > end:
        raise DecodeError("a field goes beyond the end")
    return messages


def _extent(tag: int, data: bytes, at: int) -> tuple[int, int]:
    """The size of a field's value, and where it begins."""
    kind = tag & 7
    if 0 < tag >> 3 <= _NUMBER_MAX:
        if kind == _DELIMITED:
            return _varint(data, at)
        if kind == _VARINT:
            return 0, _varint(data, at)[1]
        if kind in (_FIXED_64, _FIXED_32):
            return 8 if kind == _FIXED_64 else 4, at
    raise DecodeError("a field of a kind that is not known")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, _VARINT_BITS_MAX, 7):
        byte = data[at]
        at += 1
        value |= (byte & _SEVEN_BITS) << shift
        if byte <= _SEVEN_BITS:
            return value, at
    raise DecodeError("a number of more than ten bytes")
