"""Tensors on the wire: the protocol's datatypes, raw bytes and typed contents, to and from numpy.

Knows neither protobuf nor gRPC nor models: callers pass bytes, datatype and shape, and add the tensor's name
to an error. Every array that leaves this module is read-only; a shape's claim of a size allocates nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from turnout_wire.datatypes import DataType, TensorError

__all__ = ["RANK_MAX", "Array", "DataType", "TensorError", "from_contents", "from_raw", "to_bytes", "to_raw"]

Array = npt.NDArray[Any]

# numpy 1 allows no more dimensions. It also bounds the cost of multiplying a hostile shape's dimensions.
RANK_MAX: Final = 32
# A BYTES element's length is a uint32.
ELEMENT_BYTES_MAX: Final = 2**32 - 1
LENGTH_BYTES: Final = 4


_LIMITS: Final = {
    member: (int(np.iinfo(member.dtype).min), int(np.iinfo(member.dtype).max))
    for member in DataType
    if member.dtype.kind in "iu"
}
# The enum's members as module names: reaching them through the class costs a fifth of a small from_raw.
_BOOL: Final = DataType.BOOL
_BYTES: Final = DataType.BYTES


def from_raw(raw: bytes | memoryview, datatype: DataType, shape: Sequence[int]) -> Array:
    """The tensor of `shape` in raw contents: row-major, little-endian.

    A read-only view over `raw`, which it keeps alive; unaligned bytes are fine. Two datatypes are copied:
    BYTES (an object array of `bytes`) and BOOL where a byte is neither 0 nor 1 (the copy holds 1 for it). A
    memoryview must be contiguous. Raises TensorError for a negative dimension, more than 32 dimensions, a
    size that does not match, or bad framing.
    """
    # Sliced first: walking over a protobuf field costs several times as much.
    dims = tuple(map(int, shape[:]))
    if datatype is _BYTES:
        return _from_framed(bytes(raw), dims)
    size = len(raw) if type(raw) is bytes else memoryview(raw).nbytes
    # A long or a negative shape may pass here, and numpy refuses it; the reason is looked for only then.
    if len(dims) > RANK_MAX or prod(dims) * datatype.itemsize != size:
        raise _size_error(size, datatype, dims)
    try:
        array: Array = np.ndarray(dims, datatype.dtype, raw)
    except ValueError:
        raise _size_error(size, datatype, dims) from None
    if type(raw) is not bytes:
        array.setflags(write=False)
    return _normalised(array) if datatype is _BOOL else array


def from_contents(values: Sequence[Any], datatype: DataType, shape: Sequence[int]) -> Array:
    """The tensor of `shape` in typed contents: `values` is the field named by `datatype.contents_field`.

    Copies. Raises TensorError for FP16 and BF16 (no typed form), a bad shape, another number of values than
    the shape has elements, a value outside the datatype's range or of another kind.
    """
    if datatype.contents_field is None:
        raise TensorError(f"{datatype.value} has no typed contents; send the tensor as raw contents")
    dims = tuple(map(int, shape[:]))
    count = _count(dims)
    if len(values) != count:
        raise TensorError(
            f"{datatype.contents_field} holds {len(values)} values, but shape {_show(dims)} has {count} "
            f"elements; send exactly {count} values or correct the shape"
        )
    try:
        flat = _from_bytes_values(values) if datatype is _BYTES else _from_numbers(values, datatype)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, TensorError):
            raise
        raise TensorError(
            f"{datatype.contents_field} holds a value that is not {datatype.value} ({error}); "
            "send values of the tensor's datatype"
        ) from None
    return _shaped(flat, dims)


def to_raw(array: Array, datatype: DataType) -> bytes | memoryview:
    """The raw contents of a tensor: row-major, little-endian; of BYTES, each element after its uint32 length.

    A view of `array` (a memoryview of bytes) where its memory already is that, else a copy. Only conversions
    that keep every value are made (byte order, FP16 to FP32, INT8 to INT64). Elements of BYTES are `bytes`,
    or `str` written as UTF-8. Raises TensorError for any other conversion or element.
    """
    if datatype is _BYTES:
        return _to_framed(array)
    return _little_endian(array, datatype).reshape(-1).view(np.uint8).data


def to_bytes(array: Array, datatype: DataType) -> bytes:
    """As `to_raw`, in one copy of its own: protobuf's bytes fields take nothing but `bytes`."""
    if datatype is _BYTES:
        return _to_framed(array)
    return _little_endian(array, datatype, contiguous=False).tobytes()


def _size_error(size: int, datatype: DataType, dims: tuple[int, ...]) -> TensorError:
    try:
        needed = _count(dims) * datatype.itemsize
    except TensorError as error:
        return error
    if needed == size:
        return _unrepresentable(dims)
    return TensorError(
        f"raw contents hold {size} bytes, but shape {_show(dims)} of {datatype.value} takes {needed} bytes; "
        f"send exactly {needed} bytes or correct the shape"
    )


def _count(dims: tuple[int, ...]) -> int:
    """The number of elements, in integers that cannot overflow."""
    if len(dims) > RANK_MAX:
        raise TensorError(
            f"shape {_show(dims)} has {len(dims)} dimensions, and at most {RANK_MAX} are allowed; merge some"
        )
    if dims and (lowest := min(dims)) < 0:
        raise TensorError(f"shape {_show(dims)} has the negative dimension {lowest}; give the actual size, 0 or more")
    return prod(dims)


def _shaped(flat: Array, dims: tuple[int, ...]) -> Array:
    try:
        array = flat.reshape(dims)
    except ValueError:
        raise _unrepresentable(dims) from None
    array.setflags(write=False)
    return array


def _unrepresentable(dims: tuple[int, ...]) -> TensorError:
    # Only a shape without elements comes here: numpy still multiplies its other dimensions.
    return TensorError(
        f"shape {_show(dims)} is empty, but its other dimensions multiply beyond the address space; make them smaller"
    )


def _show(dims: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, dims[:8]))
    return f"[{shown}, ...]" if len(dims) > 8 else f"[{shown}]"


def _normalised(array: Array) -> Array:
    """BOOL with every byte 0 or 1: kernels pass another byte on unchanged, and it would equal neither."""
    raw = array.view(np.uint8)
    if np.bitwise_or.reduce(raw, axis=None) <= 1:
        return array
    copy: Array = raw != 0
    copy.setflags(write=False)
    return copy


_length_at: Final = struct.Struct("<I").unpack_from
_length_of: Final = struct.Struct("<I").pack


def _from_framed(raw: bytes, dims: tuple[int, ...]) -> Array:
    count, end = _count(dims), len(raw)
    elements: list[bytes] = []
    at = 0
    # Stops at the end of the data, whatever count the shape claims.
    while at < end and len(elements) < count:
        start = at + LENGTH_BYTES
        if start > end:
            raise TensorError(
                f"BYTES element {len(elements)} has {end - at} bytes left for its length, which takes "
                f"{LENGTH_BYTES}; write each element as a little-endian uint32 length and that many bytes"
            )
        at = start + _length_at(raw, at)[0]
        if at > end:
            raise TensorError(
                f"BYTES element {len(elements)} says it has {at - start} bytes, but only {end - start} are "
                "left; correct its length or send the rest"
            )
        elements.append(raw[start:at])
    if at < end:
        raise TensorError(
            f"raw contents hold {end - at} bytes after the last BYTES element: too many elements for the "
            f"{count} of shape {_show(dims)}; send exactly {count} elements or correct the shape"
        )
    if len(elements) < count:
        raise TensorError(
            f"raw contents hold {len(elements)} BYTES elements, but shape {_show(dims)} has {count}; "
            f"send exactly {count} elements or correct the shape"
        )
    return _shaped(np.array(elements, dtype=object), dims)


def _to_framed(array: Array) -> bytes:
    if array.dtype.kind not in "OSU":
        raise TensorError(f"numpy dtype {array.dtype} is not BYTES; give an array of bytes or str, or its own datatype")
    parts: list[bytes] = []
    for index, element in enumerate(array.reshape(-1).tolist()):
        encoded = _encoded(element, index)
        parts.append(_length_of(len(encoded)))
        parts.append(encoded)
    return b"".join(parts)


def _encoded(element: object, index: int) -> bytes:
    if isinstance(element, str):
        try:
            element = element.encode()
        except UnicodeEncodeError as error:
            raise TensorError(
                f"BYTES element {index} has a character that UTF-8 cannot write ({error.reason}); give bytes"
            ) from None
    if not isinstance(element, bytes):
        raise TensorError(f"BYTES element {index} is a {type(element).__name__}; give bytes or str (written as UTF-8)")
    if len(element) > ELEMENT_BYTES_MAX:
        raise TensorError(
            f"BYTES element {index} has {len(element)} bytes, and {ELEMENT_BYTES_MAX} is the limit; split it"
        )
    return element


def _little_endian(array: Array, datatype: DataType, *, contiguous: bool = True) -> Array:
    if array.dtype == datatype.dtype and (not contiguous or array.flags.c_contiguous):
        return array
    # numpy calls it safe to write a 64-bit integer as a double of 53 bits.
    rounds = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and datatype is DataType.FP64
    if rounds or not np.can_cast(array.dtype, datatype.dtype, casting="safe"):
        raise TensorError(
            f"numpy dtype {array.dtype} does not convert to {datatype.value} without changing values; "
            f"convert it with astype({datatype.dtype.name!r}) where that is meant"
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return array.astype(datatype.dtype, order="C")


def _from_numbers(values: Sequence[Any], datatype: DataType) -> Array:
    dtype = datatype.dtype
    if dtype.kind not in "iu" or dtype.itemsize == 8:
        return np.fromiter(values, dtype, len(values))
    # The typed fields have 32 bits, and numpy 1 would wrap what does not fit: check in 64.
    wide = np.fromiter(values, np.int64, len(values))
    if wide.size:
        lowest, highest = _LIMITS[datatype]
        for value in (int(wide.min()), int(wide.max())):
            if not lowest <= value <= highest:
                raise TensorError(
                    f"{datatype.contents_field} holds {value}, and {datatype.value} goes from {lowest} "
                    f"to {highest}; correct the value or use a wider datatype"
                )
    return wide.astype(dtype)


def _from_bytes_values(values: Sequence[Any]) -> Array:
    elements = list(values)
    for index, element in enumerate(elements):
        if not isinstance(element, bytes):
            raise TensorError(f"bytes_contents holds a {type(element).__name__} at {index}; give bytes")
    return np.array(elements, dtype=object)
