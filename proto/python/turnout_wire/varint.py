"""Protobuf's variable-length integers, for those who write a message by hand because it holds more than they copy."""

from __future__ import annotations

from typing import Final

_SHORT: Final = tuple(bytes((value,)) for value in range(0x80))


def to_varint(value: int) -> bytes:
    """`value`, which is 0 or more, in seven bits a byte, the lowest first."""
    if value <= 0x7F:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
