"""Packed messages against the generated parser."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from turnout_wire import packed
from turnout_wire.gen import grpc_service_pb2 as oip
from turnout_wire.gen import packed_pb2 as pb

REQUESTS = st.lists(
    st.builds(
        lambda name, raw: oip.ModelInferRequest(model_name=name, raw_input_contents=[raw]),
        st.text(max_size=40),
        st.binary(max_size=400),
    ),
    max_size=6,
)


@given(REQUESTS)
def test_what_is_packed_is_the_message_and_comes_out_again(requests: list[oip.ModelInferRequest]) -> None:
    raws = [request.SerializeToString() for request in requests]
    whole = pb.InferRequests(requests=requests).SerializeToString()
    assert packed.pack(raws) == whole
    assert packed.unpack(whole) == raws


# Fields that a later version may have: a varint, 8 bytes, 4 bytes, text, and a number of two bytes.
LATER = st.sampled_from([b"\x10\x07", b"\x19" + bytes(8), b"\x25" + bytes(4), b"\x2a\x03abc", b"\x82\x01\x01z"])


@given(REQUESTS, st.lists(LATER, max_size=3))
def test_fields_that_are_not_known_are_skipped(requests: list[oip.ModelInferRequest], later: list[bytes]) -> None:
    responses = [oip.ModelStreamInferResponse(error_message=each.model_name) for each in requests]
    parts = [packed.pack([each.SerializeToString()]) for each in responses]
    whole = b"".join((*later, *parts, *later))
    assert list(pb.InferResponses.FromString(whole).responses) == responses
    assert packed.unpack(whole) == [each.SerializeToString() for each in responses]


@given(st.binary(max_size=60))
def test_what_is_found_in_any_bytes_is_what_the_generated_parser_finds(data: bytes) -> None:
    """What is inside of a request is for whoever decodes that."""
    try:
        found = [oip.ModelInferRequest.FromString(each) for each in packed.unpack(data)]
    except DecodeError:
        return
    assert found == list(pb.InferRequests.FromString(data).requests)


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x0a", b"\x0a\x05abc", b"\x10", b"\x19abc", b"\x0a" + b"\xff" * 10 + b"\x01", b"\xff" * 11),
        *(b"\x07", b"\x0b", b"\x02\x00"),  # no such kind, a group, field 0
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        packed.unpack(data)


def test_more_messages_than_anybody_reads_at_once() -> None:
    assert len(packed.unpack(packed.pack([b""] * packed.MESSAGES_MAX))) == packed.MESSAGES_MAX
    for many in (packed.pack([b""] * (packed.MESSAGES_MAX + 1)), b"\x10\x07" * (1 << 20)):
        with pytest.raises(DecodeError, match="more than 1024 messages in one: send fewer together"):
            packed.unpack(many)


def test_a_message_of_a_client_is_bounded() -> None:
    assert not packed.fits(False, [b"a"], 1, b"a")
    assert packed.fits(True, [b"a"], 1, b"a")
    assert not packed.fits(True, [b"a"] * packed.REQUESTS_MAX, 64, b"a")
    assert not packed.fits(True, [b"a"], packed.BYTES_MAX, b"a")
