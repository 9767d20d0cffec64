"""Protobuf's variable-length integers, for those who write a message by hand because it holds more than they copy."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

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


def to_varints(values: npt.NDArray[Any]) -> bytes:
    """Integers of 16 bits or fewer one after the other, those of a signed type as protobuf's sint32."""
    wide = values.reshape(-1).astype(np.int32)
    if values.dtype.kind == "i":
        wide = wide << 1 ^ wide >> 31
    second, third = wide > 0x7F, wide > 0x3FFF  # whether there are so many bytes
    parts = np.empty((wide.size, 3), np.uint8)
    parts[:, 0] = wide & 0x7F
    parts[second, 0] |= 0x80
    parts[:, 1] = wide >> 7 & 0x7F
    parts[third, 1] |= 0x80
    parts[:, 2] = wide >> 14
    return parts[np.column_stack((np.ones_like(second), second, third))].tobytes()
