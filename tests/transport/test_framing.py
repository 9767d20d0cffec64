"""The walk over a message's outermost fields, against the generated parser; and what of the requests is kept."""

from __future__ import annotations

import gc
import re
import sys
from typing import Any, SupportsIndex

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceRequest
from turnout.transport import codec, framing
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.varint import to_varint

LIMITS = codec.DecodeLimits(bytes_elements_max=100, typed_elements_max=1000)


def message(raw: bytes = bytes(8), datatype: str = "UINT8", name: str = "m", **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=[raw], **fields)
    request.inputs.add(name="x", datatype=datatype, shape=[len(raw) // {"UINT8": 1, "FP32": 4, "FP64": 8}[datatype]])
    return request


def field(number: int, content: bytes) -> bytes:
    return to_varint(number << 3 | 2) + to_varint(len(content)) + content


def read(requests: codec.Requests, data: bytes) -> InferenceRequest:
    return requests.read(data).request(None)


# Walking

contents = st.binary(max_size=6) | st.sampled_from([b"\xff", b"\xed\xa0\x80", "☃".encode(), bytes(127), bytes(128)])
fields = st.builds(field, st.integers(1, 9), contents) | st.sampled_from(
    [
        b"",
        b"\x18\x01",
        b"\x3a\x80\x00",
        b"\x1a\x81\x00x",
        b"\xba\x00\x01a",
        b"\x3a\x81\x80\x80\x80\x00a",
        b"\x3b\x3c",
        b"\x3a",
    ]
)


@given(st.lists(fields, max_size=6).map(b"".join) | st.binary(max_size=30))
def test_what_is_walked_over_is_what_the_parser_reads(data: bytes) -> None:
    frame = framing.walk(data)
    if frame is None:
        return
    try:
        whole = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            pb.ModelInferRequest.FromString(frame.header)
        return
    assert frame.request_id == whole.id
    assert [raw[start : start + size] for raw, start, size in frame.spans] == list(whole.raw_input_contents)
    whole.ClearField("id")
    whole.ClearField("raw_input_contents")
    assert pb.ModelInferRequest.FromString(frame.header) == whole


@given(st.text(max_size=5), st.lists(st.binary(max_size=300), max_size=5), st.text(max_size=3))
def test_what_clients_write_is_walked_over(request_id: str, raws: list[bytes], output: str) -> None:
    request = pb.ModelInferRequest(model_name="m", model_version="1", id=request_id, raw_input_contents=raws)
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.outputs.add(name=output)
    request.parameters["p"].int64_param = 1
    frame = framing.walk(request.SerializeToString())
    assert frame is not None and (frame.request_id, len(frame.spans)) == (request_id, len(raws))


@pytest.mark.parametrize(
    "data",
    [
        field(8, b""),  # unknown
        b"\x18\x01",  # the id as a number
        b"\x1b\x1c",  # the id as a group
        field(3, b"\xff"),
        field(3, b"\xed\xa0\x80"),  # a surrogate
        b"\x3a",
        b"\x3a\x80",
        b"\x3a\x02a",
        b"\x3a\x81\x00a",  # a length in more bytes than it needs
        b"\x3a\xff\xff\xff\xff\xff\x00",
        b"\xba\x00\x00",  # a tag in more
        field(1, bytes(framing.HEADER_BYTES_MAX)),
        field(1, bytes(3000)) + field(7, b"") + field(1, bytes(3000)),
        field(7, b"") * (framing.FIELDS_MAX + 1),
    ],
)
def test_what_is_left_to_the_parser(data: bytes) -> None:
    assert framing.walk(data) is None


def test_bounds_are_met_exactly() -> None:
    assert framing.walk(field(7, b"") * framing.FIELDS_MAX) is not None
    longest = field(1, bytes(framing.HEADER_BYTES_MAX - 3))
    frame = framing.walk(longest + field(7, bytes(1 << 20)))
    assert frame is not None and len(frame.header) == framing.HEADER_BYTES_MAX


class Counted(bytes):
    """Counts how often somebody looks, and how much is copied."""

    looks = 0
    copied = 0

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        self.looks += 1
        self.copied += len(found) if isinstance(found, bytes) else 0
        return found


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\x00" * (1 << 20),
        b"\x1a\x00" * (1 << 20),
        b"\x3a" + b"\x80" * (1 << 21),
        field(1, bytes(1 << 21)) + field(7, b""),
        field(5, bytes(1 << 21)),
    ],
    ids=["raw contents", "ids", "one length", "a name", "typed contents"],
)
def test_a_hostile_message_costs_little_before_it_is_left_to_the_parser(data: bytes) -> None:
    counted = Counted(data)
    assert framing.walk(counted) is None
    assert counted.looks <= 4 * framing.FIELDS_MAX and counted.copied <= framing.FIELDS_MAX * framing.HEADER_BYTES_MAX


# What is kept


def test_equal_headers_share_a_plan_whatever_their_ids_and_data() -> None:
    requests = codec.Requests(LIMITS)
    plans = {id(requests.read(message(bytes([n] * 8), id=f"r{n}").SerializeToString()).plan) for n in range(5)}
    assert len(plans) == 1
    assert read(requests, message(b"\7\7\7\7\7\7\7\7", id="r7").SerializeToString()).inputs["x"].tolist() == [7] * 8
    assert requests.read(message(name="n").SerializeToString()).plan.model == "n"


def kept(requests: codec.Requests) -> set[bytes]:
    return set(requests._plans)


def test_plans_are_bounded_in_number_and_the_least_recently_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_PLANS_MAX", 3)
    requests = codec.Requests(LIMITS)
    for name in "abcabad":
        requests.read(message(name=name).SerializeToString())
    assert {pb.ModelInferRequest.FromString(header).model_name for header in kept(requests)} == set("abd")


def test_plans_are_bounded_in_bytes() -> None:
    requests = codec.Requests(LIMITS)
    for index in range(300):
        requests.read(message(name=f"{index:03}" + "x" * 4000).SerializeToString())
        assert sum(map(len, kept(requests))) <= codec._PLANNED_BYTES_MAX
    assert 60 <= len(kept(requests)) <= 65


def test_a_plan_is_not_much_larger_than_its_header() -> None:
    """The worst: very many inputs, each as short as can be."""
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b""])
    for index in range(240):
        request.inputs.add(name=chr(0x100 + index), datatype="INT8", shape=[300] * 3)
    received = codec.Requests(LIMITS).read(request.SerializeToString())
    inputs = received.plan.inputs
    size = sum(sys.getsizeof(one) + sys.getsizeof(one.dims) + sys.getsizeof(one.name) + 3 * 32 for one in inputs)
    assert size < 30 * request.ByteSize()


def test_typed_contents_and_refusals_are_not_kept() -> None:
    requests = codec.Requests(LIMITS)
    typed = message()
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(range(8))
    assert read(requests, typed.SerializeToString()).inputs["x"].tolist() == list(range(8))
    wrong = message()
    wrong.inputs[0].datatype = "FP8"
    for _ in range(2):
        with pytest.raises(ServingError, match="unknown datatype 'FP8'"):
            read(requests, wrong.SerializeToString())
    assert not kept(requests)


# What keeps what alive, and where it lies


@pytest.mark.parametrize("pad", range(8))
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_large_arrays_are_views_where_their_elements_lie_well_and_copies_elsewhere(pad: int, datatype: str) -> None:
    array = np.arange(10_000, dtype="<f4" if datatype == "FP32" else "<f8")
    data = message(array.tobytes(), datatype, id="i" * (pad + 1)).SerializeToString()
    got = read(codec.Requests(LIMITS), data).inputs["x"]
    start = data.index(array[1:].tobytes()) - array.itemsize
    assert got.tolist() == array.tolist()
    assert got.flags.aligned and not got.flags.writeable
    assert (got.base is data) == (np.ndarray(1, array.dtype, data, start).flags.aligned)


@pytest.mark.parametrize("size", [8, 40_000])
def test_a_small_part_of_a_message_does_not_keep_all_of_it(size: int) -> None:
    request = message(bytes(size))
    request.raw_input_contents.append(bytes(1 << 20))  # which no input asks for
    data = request.SerializeToString()
    before = sys.getrefcount(data)
    got = read(codec.Requests(LIMITS), data)
    gc.collect()
    assert sys.getrefcount(data) == before
    assert got.inputs["x"].nbytes == size


def test_minted_ids_look_as_before_and_differ() -> None:
    requests, data = codec.Requests(LIMITS), message().SerializeToString()
    minted = [read(requests, data).inference_id for _ in range(1000)]
    assert len(set(minted)) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in minted)
