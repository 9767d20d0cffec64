"""Tensors to and from the wire: every datatype, every refusal, and no surprise for any bytes at all."""

import struct
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from turnout_wire import tensors
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import RANK_MAX, DataType, TensorError, from_contents, from_raw, to_bytes, to_raw

FIXED = [datatype for datatype in DataType if datatype is not DataType.BYTES]
TYPED = [datatype for datatype in DataType if datatype.contents_field]
NARROW = [DataType.INT8, DataType.INT16, DataType.UINT8, DataType.UINT16]

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
elements_of_bytes = st.binary(max_size=9) | st.text(max_size=5)


@st.composite
def fixed_arrays(draw: st.DrawFn) -> tuple[Any, DataType]:
    """Any bits of any fixed-size datatype (BOOL: 0 and 1), so also NaNs and infinities."""
    datatype, shape = draw(st.sampled_from(FIXED)), draw(shapes)
    top = 1 if datatype is DataType.BOOL else 255
    bits = draw(hnp.arrays(np.uint8, (*shape, datatype.itemsize), elements=st.integers(0, top)))
    return np.frombuffer(bits.tobytes(), np.uint8).view(datatype.dtype).reshape(shape), datatype


@st.composite
def bytes_arrays(draw: st.DrawFn) -> Any:
    return draw(hnp.arrays(object, shapes, elements=elements_of_bytes))


# The table of datatypes


@pytest.mark.parametrize("datatype", DataType)
def test_datatype_facts(datatype: DataType) -> None:
    assert DataType(datatype.value) is datatype
    assert datatype.name == datatype.value
    assert DataType.from_numpy(datatype.dtype) is datatype
    assert datatype.config_name in model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    if datatype is DataType.BYTES:
        assert (datatype.dtype, datatype.itemsize) == (np.dtype(object), 0)
        assert datatype.config_name == "TYPE_STRING"
    else:
        assert datatype.itemsize == datatype.dtype.itemsize > 0
        assert datatype.dtype.newbyteorder("<") == datatype.dtype
        assert np_to_triton_dtype(datatype.dtype) == datatype.value
    if datatype in (DataType.FP16, DataType.BF16):
        assert datatype.contents_field is None
    else:
        assert datatype.contents_field in pb.InferTensorContents.DESCRIPTOR.fields_by_name


def test_there_are_14_datatypes_and_every_contents_field_has_one() -> None:
    assert len(DataType) == 14
    fields = {datatype.contents_field for datatype in TYPED}
    assert fields == set(pb.InferTensorContents.DESCRIPTOR.fields_by_name)
    with pytest.raises(ValueError, match="FP8"):
        DataType("FP8")


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        (">f4", DataType.FP32),
        (">i2", DataType.INT16),
        (np.longlong, DataType.INT64),
        (float, DataType.FP64),
        (bool, DataType.BOOL),
        ("S3", DataType.BYTES),
        ("U3", DataType.BYTES),
        (object, DataType.BYTES),
        (ml_dtypes.bfloat16, DataType.BF16),
    ],
)
def test_from_numpy(dtype: Any, datatype: DataType) -> None:
    assert DataType.from_numpy(dtype) is datatype


@pytest.mark.parametrize(
    "dtype",
    ["c8", "c16", "M8[s]", "m8[s]", "V2", "V4", np.longdouble, ml_dtypes.float8_e4m3fn, ml_dtypes.int4],
)
def test_from_numpy_refuses(dtype: Any) -> None:
    with pytest.raises(TensorError, match="has no datatype in the protocol; convert"):
        DataType.from_numpy(dtype)


# Raw contents of fixed-size datatypes


@given(fixed_arrays())
def test_fixed_round_trip(case: tuple[Any, DataType]) -> None:
    array, datatype = case
    raw = to_bytes(array, datatype)
    assert raw == array.tobytes() == bytes(to_raw(array, datatype))
    back = from_raw(raw, datatype, array.shape)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert not back.flags.writeable
    assert back.tobytes() == raw
    assert np.shares_memory(back, np.frombuffer(raw, np.uint8)) or not raw


@pytest.mark.parametrize("datatype", FIXED)
def test_from_raw_is_a_read_only_view(datatype: DataType) -> None:
    raw = bytes(6 * datatype.itemsize)
    array: Any = from_raw(raw, datatype, [2, 3])
    assert array.ctypes.data == np.frombuffer(raw, np.uint8).ctypes.data
    assert array.base is raw
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_from_raw_views_unaligned_and_writable_memory_read_only() -> None:
    memory = bytearray(b"\xff" + struct.pack("<3f", 1, 2, 3))
    array = from_raw(memoryview(memory)[1:], DataType.FP32, [3])
    assert array.tolist() == [1, 2, 3]
    assert not array.flags.writeable
    memory[1:5] = struct.pack("<f", 9)
    assert array[0] == 9


def test_from_raw_takes_a_memoryview_of_any_format() -> None:
    wide = np.arange(6, dtype="<f4").reshape(2, 3).data
    assert from_raw(wide, DataType.FP32, [6]).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("datatype", FIXED)
def test_scalars_and_empty_tensors(datatype: DataType) -> None:
    assert from_raw(bytes(datatype.itemsize), datatype, []).shape == ()
    for shape in ([0], [3, 0], [0, 2**40]):
        array = from_raw(b"", datatype, shape)
        assert array.shape == tuple(shape)
        assert not array.flags.writeable
        assert to_bytes(array, datatype) == b""
        assert bytes(to_raw(array, datatype)) == b""
    scalar = np.ones((), datatype.dtype)
    assert bytes(to_raw(scalar, datatype)) == scalar.tobytes()


@pytest.mark.parametrize("raw", [b"\x00\x01\x02\xff", memoryview(b"\x00\x01\x02\xff")])
def test_bool_is_normalised(raw: bytes | memoryview) -> None:
    array = from_raw(raw, DataType.BOOL, [2, 2])
    assert array.tobytes() == b"\x00\x01\x01\x01"
    assert array.dtype == np.bool_
    assert not array.flags.writeable


def test_bool_of_zeros_and_ones_is_a_view() -> None:
    raw = b"\x00\x01\x01\x00"
    array: Any = from_raw(raw, DataType.BOOL, [4])
    assert array.base is raw


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ([2, 2], r"12 bytes, but shape \[2, 2\] of FP32 takes 16 bytes; send exactly 16"),
        ([], r"12 bytes, but shape \[\] of FP32 takes 4 bytes"),
        ([0], r"12 bytes, but shape \[0\] of FP32 takes 0 bytes"),
        ([3, -1], r"negative dimension -1"),
        ([-3, -1], r"negative dimension -3"),
        ([2**62, 4], r"takes 73786976294838206464 bytes"),  # 0 in 64 bits
        ([2**63 - 1, 2**63 - 1], r"bytes, but shape"),
        ([2**32 + 1, 2**32 + 1, 3], r"bytes, but shape"),
        ([1] * 33, r"33 dimensions, and at most 32"),
        ([2**62] * 100_000, r"100000 dimensions, and at most 32"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_from_raw_refuses_a_wrong_shape(shape: list[int], match: str, kind: Any) -> None:
    with pytest.raises(TensorError, match=match) as raised:
        from_raw(kind(bytes(12)), DataType.FP32, shape)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("datatype", DataType)
@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ([0, -1], "negative dimension -1"),
        ([0, 2**40, 2**40], "multiply beyond the address space"),
        ([2**64, 0], "multiply beyond the address space"),
        ([0] * 33, "33 dimensions"),
    ],
)
def test_empty_tensors_of_impossible_shape(datatype: DataType, shape: list[int], match: str) -> None:
    with pytest.raises(TensorError, match=match):
        from_raw(b"", datatype, shape)
    if datatype.contents_field:
        with pytest.raises(TensorError, match=match):
            from_contents([], datatype, shape)


def test_every_allowed_rank_works() -> None:
    for rank in range(RANK_MAX + 1):
        assert from_raw(bytes(4), DataType.FP32, [1] * rank).ndim == rank


def test_dimensions_of_numpy_do_not_overflow() -> None:
    shape = np.array([2**62, 4], np.int64)
    with np.errstate(all="raise"), pytest.raises(TensorError, match="takes 73786976294838206464 bytes"):
        from_raw(b"", DataType.FP32, shape)  # type: ignore[arg-type]


@given(st.binary(max_size=64), st.sampled_from(DataType), st.lists(st.integers(-3, 2**63 - 1), max_size=5))
def test_any_bytes_give_a_tensor_or_a_tensor_error(raw: bytes, datatype: DataType, shape: list[int]) -> None:
    try:
        array = from_raw(raw, datatype, shape)
    except TensorError:
        return
    assert array.shape == tuple(shape)


# Writing raw contents


@pytest.mark.parametrize("datatype", FIXED)
def test_to_raw_is_a_view_of_bytes(datatype: DataType) -> None:
    array = np.ones((2, 3), datatype.dtype)
    raw = to_raw(array, datatype)
    assert isinstance(raw, memoryview)
    assert (raw.format, raw.ndim, raw.nbytes) == ("B", 1, array.nbytes)
    assert np.shares_memory(np.frombuffer(raw, np.uint8), array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3).T,
        np.arange(6, dtype=">f4").reshape(3, 2),
        np.arange(12, dtype="<f4").reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(6, dtype="<f4").reshape(3, 2)),
        np.broadcast_to(np.float32(1), (3, 2)),
        np.arange(6, dtype=np.float16).reshape(3, 2),
        np.arange(6, dtype=ml_dtypes.bfloat16).reshape(3, 2),
        np.arange(6, dtype=np.int16).reshape(3, 2),
    ],
    ids=["transposed", "big-endian", "strided", "fortran", "broadcast", "fp16", "bf16", "int16"],
)
def test_to_raw_copies_other_layouts(array: Any) -> None:
    for write in (to_raw, to_bytes):
        raw = write(array, DataType.FP32)
        assert np.array_equal(from_raw(raw, DataType.FP32, [3, 2]), array.astype(np.float32))
    assert isinstance(to_bytes(array, DataType.FP32), bytes)


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        ("f8", DataType.FP32),
        ("i8", DataType.INT8),
        ("i8", DataType.FP64),
        ("u8", DataType.FP64),
        ("f4", DataType.BF16),
        ("f4", DataType.INT64),
        ("O", DataType.FP32),
    ],
)
@pytest.mark.parametrize("write", [to_raw, to_bytes])
def test_to_raw_refuses_a_lossy_conversion(dtype: str, datatype: DataType, write: Any) -> None:
    with pytest.raises(TensorError, match=rf"does not convert to {datatype.value} .* astype"):
        write(np.zeros(2, dtype), datatype)


# BYTES


@given(bytes_arrays())
def test_bytes_round_trip(array: Any) -> None:
    raw = to_raw(array, DataType.BYTES)
    assert raw == to_bytes(array, DataType.BYTES)
    back = from_raw(raw, DataType.BYTES, array.shape)
    assert (back.shape, back.dtype) == (array.shape, np.dtype(object))
    assert not back.flags.writeable
    written = [one.encode() if isinstance(one, str) else one for one in array.reshape(-1).tolist()]
    assert back.reshape(-1).tolist() == written
    if array.size:
        assert raw == serialize_byte_tensor(np.array(written, object)).item()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([["a", "é"]]), [b"a", "é".encode()]),
        (np.array([b"ab", b"c"]), [b"ab", b"c"]),
        (np.array([["a", b"b"], [b"c\0", ""]], object).T, [b"a", b"c\0", b"b", b""]),
        (np.array("scalar", object), [b"scalar"]),
    ],
)
def test_bytes_from_other_string_arrays(array: Any, expected: list[bytes]) -> None:
    back = from_raw(to_raw(array, DataType.BYTES), DataType.BYTES, array.shape)
    assert back.reshape(-1).tolist() == expected


def test_bytes_of_a_memoryview_do_not_keep_it() -> None:
    memory = bytearray(framed(b"ab"))
    array = from_raw(memoryview(memory), DataType.BYTES, [1])
    memory[-2:] = b"xx"
    assert array[0] == b"ab"


def framed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize(
    ("raw", "shape", "match"),
    [
        (framed(b"ab") + b"\x01\x00", [2], "element 1 has 2 bytes left for its length, which takes 4"),
        (b"\x01", [1], "element 0 has 1 bytes left for its length"),
        (framed(b"ab", b"c"), [1], r"hold 5 bytes after the last BYTES element: too many elements for the 1"),
        (framed(b""), [0], r"too many elements for the 0 of shape \[0\]"),
        (framed(b"ab", b"c"), [3], r"hold 2 BYTES elements, but shape \[3\] has 3; send exactly 3"),
        (b"", [], r"hold 0 BYTES elements, but shape \[\] has 1"),
        (b"", [2**62, 4], "hold 0 BYTES elements"),
        (framed(b"ab") + b"\x05\x00\x00\x00abcd", [2], "element 1 says it has 5 bytes, but only 4 are left"),
        (b"\xff\xff\xff\xff", [1], "says it has 4294967295 bytes, but only 0"),
        (framed(b"a"), [-1], "negative dimension -1"),
    ],
)
def test_bytes_framing_errors(raw: bytes, shape: list[int], match: str) -> None:
    with pytest.raises(TensorError, match=match):
        from_raw(raw, DataType.BYTES, shape)


@given(
    st.lists(st.binary(max_size=4) | st.integers(0, 9).map(lambda n: struct.pack("<I", n)), max_size=8),
    st.integers(0, 9),
)
def test_bytes_framing_fuzz(pieces: list[bytes], count: int) -> None:
    raw = b"".join(pieces)
    try:
        array = from_raw(raw, DataType.BYTES, [count])
    except TensorError:
        return
    assert framed(*array) == raw


@pytest.mark.parametrize(
    ("elements", "match"),
    [
        ([b"a", None], "element 1 is a NoneType; give bytes or str"),
        ([b"a", 1], "element 1 is a int"),
        ([bytearray(b"a")], "element 0 is a bytearray"),
        (["\ud800"], "element 0 has a character that UTF-8 cannot write"),
    ],
)
def test_bytes_refuses_other_elements(elements: list[Any], match: str) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    with pytest.raises(TensorError, match=match):
        to_raw(array, DataType.BYTES)


def test_bytes_refuses_an_element_beyond_its_length_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "ELEMENT_BYTES_MAX", 3)
    with pytest.raises(TensorError, match="element 0 has 4 bytes, and 3 is the limit; split it"):
        to_raw(np.array([b"abcd"]), DataType.BYTES)


def test_bytes_refuses_an_array_of_numbers() -> None:
    with pytest.raises(TensorError, match="float32 is not BYTES"):
        to_raw(np.zeros(2, np.float32), DataType.BYTES)


# Typed contents


@pytest.mark.parametrize("as_field", [True, False], ids=["protobuf", "list"])
@pytest.mark.parametrize("datatype", TYPED)
def test_contents_round_trip(datatype: DataType, as_field: bool) -> None:
    values = typed_values(datatype)
    assert datatype.contents_field
    field: Sequence[Any] = values
    if as_field:
        field = getattr(pb.InferTensorContents(**{datatype.contents_field: values}), datatype.contents_field)
    array = from_contents(field, datatype, [2, 2])
    assert (array.shape, array.dtype) == ((2, 2), datatype.dtype)
    assert array.reshape(-1).tolist() == values
    assert not array.flags.writeable
    assert from_contents(field[:1], datatype, []).tolist() == values[0]
    assert from_contents(field[:0], datatype, [0, 3]).shape == (0, 3)


def typed_values(datatype: DataType) -> list[Any]:
    match datatype.dtype.kind:
        case "b":
            return [True, False, False, True]
        case "i" | "u":
            limits = np.iinfo(datatype.dtype)
            return [int(limits.min), 0, 1, int(limits.max)]
        case "f":
            return [0.0, -1.5, 0.25, float("inf")]
    return [b"", b"a\0", b"\xff", b"bc"]


@pytest.mark.parametrize("datatype", NARROW)
@pytest.mark.parametrize("off", [-1, 1])
def test_contents_are_range_checked(datatype: DataType, off: int) -> None:
    limits = np.iinfo(datatype.dtype)
    value = int(limits.min if off < 0 else limits.max) + off
    with pytest.raises(TensorError, match=rf"holds {value}, and {datatype.value} goes from {limits.min} to"):
        from_contents([0, value, 1], datatype, [3])


@pytest.mark.parametrize(
    ("values", "datatype", "shape", "match"),
    [
        (
            [1, 2],
            DataType.INT32,
            [3],
            r"int_contents holds 2 values, but shape \[3\] has 3 elements; send exactly 3",
        ),
        ([1, 2], DataType.FP32, [], "fp32_contents holds 2 values"),
        ([], DataType.FP32, [2**62, 4], "holds 0 values"),
        ([1, 2], DataType.FP32, [-1, -2], "negative dimension -2"),
        ([1], DataType.FP16, [1], "FP16 has no typed contents; send the tensor as raw"),
        ([1], DataType.BF16, [1], "BF16 has no typed contents"),
        ([2**70], DataType.INT64, [1], "value that is not INT64"),
        ([-1], DataType.UINT64, [1], "value that is not UINT64"),
        ([2**31], DataType.INT32, [1], "INT32 goes from"),
        (["x"], DataType.FP32, [1], "value that is not FP32"),
        ([None], DataType.INT8, [1], "value that is not INT8"),
        (["x"], DataType.BYTES, [1], "bytes_contents holds a str at 0; give bytes"),
    ],
)
def test_contents_refusals(values: list[Any], datatype: DataType, shape: list[int], match: str) -> None:
    with pytest.raises(TensorError, match=match):
        from_contents(values, datatype, shape)


@given(
    st.lists(st.integers(-(2**65), 2**65) | st.floats(width=32) | st.booleans() | st.binary(max_size=3), max_size=4),
    st.sampled_from(TYPED),
    st.lists(st.integers(-1, 4), max_size=3),
)
def test_any_values_give_a_tensor_or_a_tensor_error(values: list[Any], datatype: DataType, shape: list[int]) -> None:
    try:
        array = from_contents(values, datatype, shape)
    except TensorError:
        return
    assert array.shape == tuple(shape)
