"""Target: turnout_wire's conversions. An input is a datatype, a rank, so many int64 dimensions and the contents."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fuzz import oracle
from fuzz.mutation import Mutate, integer
from turnout_wire.tensors import Array, DataType, TensorError, from_contents, from_raw, to_bytes, to_raw

DATATYPES = tuple(DataType)
_HEAD = struct.Struct("<BBB")  # datatype, another one, rank
_DIMENSION = struct.Struct("<q")
_RANK_MAX = 40  # beyond what is allowed


def pack(datatype: DataType, shape: Sequence[int], contents: bytes, other: DataType = DataType.FP64) -> bytes:
    head = _HEAD.pack(DATATYPES.index(datatype), DATATYPES.index(other), len(shape))
    return head + b"".join(map(_DIMENSION.pack, shape)) + contents


def unpack(data: bytes) -> tuple[DataType, DataType, list[int], bytes] | None:
    if len(data) < _HEAD.size:
        return None
    datatype, other, rank = _HEAD.unpack_from(data)
    rank %= _RANK_MAX + 1
    end = _HEAD.size + rank * _DIMENSION.size
    if len(data) < end:
        return None
    shape = [dim for (dim,) in _DIMENSION.iter_unpack(data[_HEAD.size : end])]
    return DATATYPES[datatype % len(DATATYPES)], DATATYPES[other % len(DATATYPES)], shape, data[end:]


def run(data: bytes) -> None:
    if (case := unpack(data)) is None:
        return
    datatype, other, shape, contents = case
    _raw(contents, datatype, shape, data)
    if datatype.contents_field:
        _typed(_values(contents, datatype), datatype, shape, data)
        _strange(contents, datatype, data)
    _converted(contents, datatype, other, data)


def _raw(raw: bytes, datatype: DataType, shape: list[int], data: bytes) -> None:
    try:
        array = from_raw(raw, datatype, shape)
    except TensorError as refusal:
        oracle.refused(refusal, data)
        try:
            from_raw(memoryview(raw), datatype, shape)
        except TensorError as same:
            oracle.require(str(same) == str(refusal), f"a memoryview is refused as {same!s:.200}")
        else:
            raise oracle.Finding("bytes are refused, the same as a memoryview is not") from None
        return
    _check(array, datatype, shape, len(raw))
    unaligned = from_raw(memoryview(b"?" + raw)[1:], datatype, tuple(shape))
    _check(unaligned, datatype, shape, len(raw))
    sent = bytes(byte != 0 for byte in raw) if datatype is DataType.BOOL else raw
    for one in (array, unaligned):
        oracle.require(bytes(to_raw(one, datatype)) == sent, "from_raw and to_raw do not round trip")
        oracle.require(to_bytes(one, datatype) == sent, "from_raw and to_bytes do not round trip")
    backwards = array.T
    oracle.require(
        bytes(to_raw(backwards, datatype)) == to_bytes(np.array(backwards, order="C"), datatype), "order matters"
    )


def _typed(values: list[Any], datatype: DataType, shape: list[int], data: bytes) -> None:
    try:
        array = from_contents(values, datatype, shape)
    except TensorError as refusal:
        oracle.refused(refusal, data)
        return
    _check(array, datatype, shape, 8 * len(values))
    raw = to_bytes(array, datatype)
    oracle.require(to_bytes(from_raw(raw, datatype, shape), datatype) == raw, "from_contents does not round trip")
    for before, after in zip(values, array.reshape(-1).tolist(), strict=True):
        oracle.require(_same(before, after), f"{before!r} became {datatype.value} {after!r}")


def _converted(contents: bytes, datatype: DataType, other: DataType, data: bytes) -> None:
    """A tensor of one datatype written as another: refused, or every value is kept."""
    if datatype is DataType.BYTES:
        array: Array = np.array([contents[:4], contents[4:].decode(errors="surrogateescape")], dtype=object)
    else:
        array = from_raw(
            contents[: len(contents) // datatype.itemsize * datatype.itemsize],
            datatype,
            [len(contents) // datatype.itemsize],
        )
    try:
        raw = bytes(to_raw(array, other))
    except TensorError as refusal:
        oracle.refused(refusal, data)
        return
    oracle.require(raw == to_bytes(array, other), "to_raw and to_bytes differ")
    back = from_raw(raw, other, array.shape)
    for before, after in zip(array.reshape(-1).tolist(), back.reshape(-1).tolist(), strict=True):
        oracle.require(_same(before, after), f"{datatype.value} {before!r} became {other.value} {after!r}")


def _same(before: Any, after: Any) -> bool:
    """Equal; or both NaN, whichever; or text and its UTF-8."""
    if isinstance(before, str):
        return bool(before.encode() == after)
    return bool(before == after or (before != before and after != after))


def _check(array: Array, datatype: DataType, shape: list[int], bytes_max: int) -> None:
    oracle.require(array.shape == tuple(shape), f"shape {array.shape} for {shape}")
    oracle.require(array.dtype == datatype.dtype, f"{array.dtype} for {datatype}")
    oracle.require(not array.flags.writeable, "an array that can be written")
    oracle.require(DataType.from_numpy(array.dtype) is datatype, "another datatype")
    oracle.require(array.nbytes <= max(8 * bytes_max, 0), f"{array.nbytes} bytes from {bytes_max}")


def _values(contents: bytes, datatype: DataType) -> list[Any]:
    """Typed contents as protobuf gives them: the field's own width, not the datatype's."""
    match datatype:
        case DataType.BYTES:
            return contents.split(b"\0")
        case DataType.BOOL:
            return [bool(byte & 1) for byte in contents]
        case DataType.FP32 | DataType.FP64:
            dtype = datatype.dtype
        case DataType.INT64 | DataType.UINT64:
            dtype = datatype.dtype
        case _:
            dtype = np.dtype("<u4" if datatype.dtype.kind == "u" else "<i4")
    return list(np.frombuffer(contents[: len(contents) // dtype.itemsize * dtype.itemsize], dtype).tolist())


def _strange(contents: bytes, datatype: DataType, data: bytes) -> None:
    """What no protobuf field holds, and Python callers may pass: numpy converts it, or it is refused."""
    kinds: tuple[Any, ...] = (2**70, -(2**70), None, "text", "1", 1.5, b"bytes", True, [1], {}, 1j, 10**400)
    values = [kinds[byte % len(kinds)] for byte in contents[:16]]
    try:
        array = from_contents(values, datatype, [len(values)])
    except TensorError as refusal:
        oracle.refused(refusal, data)
    else:
        _check(array, datatype, [len(values)], 8 * len(values))


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    case = unpack(data)
    if case is None or rng.random() < 0.15:
        return mutate_bytes(data, bytes_max)
    datatype, other, shape, contents = case
    for _ in range(rng.choice((1, 1, 2))):
        match rng.randrange(7):
            case 0:
                datatype = rng.choice(DATATYPES)
            case 1:
                other = rng.choice(DATATYPES)
            case 2 if shape:
                shape[rng.randrange(len(shape))] = integer(rng, -(2**63), 2**63 - 1)
            case 3:
                shape = [*shape, rng.choice((0, 1, 2, 3))][-_RANK_MAX:]
            case 4:
                contents = mutate_bytes(contents or b"\0", 256)
            case 5:
                # A vector that fits: of raw contents, or of typed ones.
                width = rng.choice((datatype.itemsize or 4, 4, 8, 1))
                shape = [len(contents) // width]
                contents = contents[: shape[0] * width]
            case _:
                shape = shape[: rng.randint(0, len(shape))]
    return pack(datatype, shape, contents, other)[:bytes_max]
