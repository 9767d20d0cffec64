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
    assert packed.requests_in(whole) == raws


def test_answers_too() -> None:
    responses = [oip.ModelStreamInferResponse(error_message=text) for text in ("", "a", "b" * 300)]
    whole = pb.InferResponses(responses=responses).SerializeToString()
    assert packed.responses_in(whole) == [response.SerializeToString() for response in responses]
    unknown = b"\x10\x07"  # field 2: what a later version may say
    assert packed.responses_in(unknown + whole) == packed.responses_in(whole)


@given(st.binary(max_size=60))
def test_any_bytes_are_what_the_generated_parser_says(data: bytes) -> None:
    """But for what is inside of a request: whoever decodes that finds it."""
    try:
        expected = pb.InferRequests.FromString(data)
    except DecodeError:
        try:
            found = packed.requests_in(data)
        except DecodeError:
            return
        with pytest.raises(DecodeError):
            for each in found:
                oip.ModelInferRequest.FromString(each)
        return
    found = packed.requests_in(data)
    assert [oip.ModelInferRequest.FromString(each) for each in found] == list(expected.requests)


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x07"]
)
def test_what_is_cut_off_is_no_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        packed.requests_in(data)


def test_a_message_of_a_client_is_bounded() -> None:
    assert not packed.fits(False, [b"a"], 1, b"a")
    assert packed.fits(True, [b"a"], 1, b"a")
    assert not packed.fits(True, [b"a"] * packed.REQUESTS_MAX, 64, b"a")
    assert not packed.fits(True, [b"a"], packed.BYTES_MAX, b"a")
