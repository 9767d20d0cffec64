"""Packed streams: many messages in one, without parsing them. `turnout/packed/v1/packed.proto` says what they are."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Final

from turnout_wire.gen import packed_pb2 as pb
from turnout_wire.varint import to_varint

SERVICE: Final = "turnout.packed.v1.PackedService"
PATH: Final = f"/{SERVICE}/Infer"

_TAG = 1 << 3 | 2  # field 1 of both messages, length-delimited
_TAG_BYTES = bytes((_TAG,))
_SEVEN_BITS = 0x7F


# What clients put into one message at most; what servers do is their own.
REQUESTS_MAX: Final = 64
BYTES_MAX: Final = 1 << 18


def fits(packed: bool, messages: Sized, size: int, further: bytes) -> bool:
    """Whether a further request goes into the same message as others of `size` bytes together."""
    return packed and len(messages) < REQUESTS_MAX and size + len(further) <= BYTES_MAX


def pack(messages: Iterable[bytes]) -> bytes:
    """InferRequests of serialised requests, or InferResponses of serialised answers, in order."""
    parts: list[bytes] = []
    for message in messages:
        parts += (_TAG_BYTES, to_varint(len(message)), message)
    return b"".join(parts)


def requests_in(data: bytes) -> list[bytes]:
    """The serialised requests in an InferRequests, in order.

    Raises:
        DecodeError: it is none.
    """
    try:
        return _walk(data)
    except (_Unusual, IndexError):
        return [each.SerializeToString() for each in pb.InferRequests.FromString(data).requests]


def responses_in(data: bytes) -> list[bytes]:
    """The serialised answers in an InferResponses, in order.

    Raises:
        DecodeError: it is none.
    """
    try:
        return _walk(data)
    except (_Unusual, IndexError):
        return [each.SerializeToString() for each in pb.InferResponses.FromString(data).responses]


class _Unusual(Exception):
    """Unknown fields, or no message at all: the generated parser can tell."""


def _walk(data: bytes) -> list[bytes]:
    messages: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        if data[at] != _TAG:
            raise _Unusual
        size, shift, byte = 0, 0, 0x80
        while byte > _SEVEN_BITS:
            at += 1
            byte = data[at]
            size |= (byte & _SEVEN_BITS) << shift
            shift += 7
        at += 1
        if at + size > end:
            raise _Unusual
        messages.append(data[at : at + size])
        at += size
    return messages
