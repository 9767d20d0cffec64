"""What is written is what the generated parser reads; what cannot be sent is refused by name."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout_client import Client
from turnout_client.answers import Class
from turnout_client.connection import Target, channel_options, target_of
from turnout_client.errors import InferenceError
from turnout_client.replies import answer_of, stream_error
from turnout_client.requests import InferRequest, _header, timeout_of
from turnout_client.retrying import Retries
from turnout_client.sending import goes_alone
from turnout_client.settings import Keepalive, Retry, Settings, Streams, Tls
from turnout_wire.gen import grpc_service_pb2 as pb

NONE: dict[str, Any] = {
    "outputs": (),
    "classification": None,
    "version": "",
    "slot": "",
    "key": "",
    "request_id": "",
    "priority": 0,
    "parameters": None,
    "metadata": None,
}


def request(inputs: Any = None, **more: Any) -> InferRequest:
    return InferRequest.of("m", {"x": np.ones(3, np.float32)} if inputs is None else inputs, **{**NONE, **more})


def read(raw: bytes) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(raw)


DTYPES = st.sampled_from(["?", "u1", "<u2", ">u4", "<i8", "i1", ">f4", "<f8", "<f2", ml_dtypes.bfloat16])


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)


@given(hnp.arrays("u1", SHAPES, elements=st.integers(0, 100)).flatmap(lambda a: DTYPES.map(a.astype)))
def test_arrays_come_back_as_they_were(array: np.ndarray) -> None:
    sent = read(request({"a": array, "b": array[..., None]}).message())
    reply = pb.ModelInferResponse(raw_output_contents=sent.raw_input_contents)
    for tensor in sent.inputs:
        reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    answer = answer_of(reply)
    assert answer["a"].shape == array.shape and answer["b"].shape == (*array.shape, 1)
    np.testing.assert_array_equal(answer["a"], array)


def test_texts_and_bytes_are_bytes_elements() -> None:
    sent = read(request({"t": [["é", "b"]], "b": np.array([b"\0\xff"], object)}).message())
    assert [(tensor.datatype, list(tensor.shape)) for tensor in sent.inputs] == [("BYTES", [1, 2]), ("BYTES", [1])]
    assert sent.raw_input_contents[0] == b"\x02\0\0\0\xc3\xa9\x01\0\0\0b"


def test_everything_that_is_asked_for_is_written() -> None:
    asked = request(
        outputs=["y"],
        classification={"z": 3},
        version=2,
        slot="green",
        key="user-7",
        request_id="r-1",
        priority=1,
        parameters={"flag": True, "n": 1, "f": 0.5, "s": "text"},
        metadata={"x-tenant": "t"},
    )
    sent = read(asked.message())
    assert (sent.model_name, sent.model_version, sent.id) == ("m", "2", "r-1")
    assert [(o.name, o.parameters["classification"].int64_param) for o in sent.outputs] == [("y", 0), ("z", 3)]
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in sent.parameters.items()}
    assert kinds == {
        "flag": "bool_param",
        "n": "int64_param",
        "f": "double_param",
        "s": "string_param",
        "priority": "uint64_param",
    }
    assert asked.call_metadata == (("x-tenant", "t"), ("turnout-slot", "green"), ("turnout-sticky-key", "user-7"))
    streamed = read(asked.stream_message("r-2", 0.2)).parameters
    assert (streamed["sticky_key"].string_param, streamed["timeout"].int64_param) == ("user-7", 200_000)


def test_equal_values_of_other_kinds_are_other_requests() -> None:
    for value, kind in ((True, "bool_param"), (1, "int64_param"), (1.0, "double_param")):
        sent = read(request(parameters={"p": value}).message())
        assert sent.parameters["p"].WhichOneof("parameter_choice") == kind


def test_a_header_with_a_long_text_is_not_kept() -> None:
    before = _header.cache_info().currsize
    assert b"x" * 100_000 in request(parameters={"text": "x" * 100_000}).message()
    assert _header.cache_info().currsize == before


def test_a_key_that_metadata_cannot_hold_is_a_parameter() -> None:
    asked = request(key="Zoë")
    assert asked.call_metadata == ()
    assert read(asked.message()).parameters["sticky_key"].string_param == "Zoë"


@given(st.floats(1e-6, 86_400))
def test_a_stream_s_timeout_is_rounded_up_to_two_digits(seconds: float) -> None:
    written = read(request().stream_message("r", seconds)).parameters["timeout"].int64_param
    assert int(seconds * 1e6) <= written <= seconds * 1e6 * 1.11 + 1
    assert len(str(written).rstrip("0")) <= 2


@pytest.mark.parametrize(
    ("inputs", "more", "words"),
    [
        ({"x": np.array([1j])}, {}, "input 'x': numpy dtype complex128"),
        ({"x": np.array([None], object)}, {}, "input 'x': BYTES element 0 is a NoneType"),
        (None, {"parameters": {"timeout": 1}}, "parameter 'timeout': use the argument timeout_s"),
        (None, {"parameters": {"sticky_key": "k"}}, "use the argument key"),
        (None, {"parameters": {"p": None}}, "parameter 'p' is a NoneType"),
        (None, {"parameters": {"p": 2**63}}, "an int64 goes from"),
        (None, {"slot": "blü"}, "metadata 'turnout-slot' is no printable ASCII"),
        (None, {"metadata": {"x-tenant": "a\n"}}, "metadata 'x-tenant' is no printable ASCII"),
        (None, {"metadata": {"X-Tenant": "a"}}, "metadata key 'X-Tenant'"),
        (None, {"metadata": {"a b": "a"}}, "metadata key 'a b'"),
    ],
)
def test_what_cannot_be_sent_is_refused(inputs: Any, more: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("^", r"\^")):
        request(inputs, **more)


@pytest.mark.parametrize("given_s", [float("inf"), float("nan"), 1e6])
def test_every_call_has_a_deadline(given_s: float) -> None:
    assert timeout_of(None, 3.0) == 3.0
    with pytest.raises(ValueError, match="timeout_s is"):
        timeout_of(given_s, 3.0)


def test_classes_are_read() -> None:
    reply = pb.ModelInferResponse()
    reply.outputs.add(name="p", datatype="BYTES", shape=[1, 2])
    reply.raw_output_contents.append(b"\x0a\0\0\x000.9:3:a:bc\x05\0\0\x000.1:7")
    assert answer_of(reply).classes("p") == [[Class(0.9, 3, "a:bc"), Class(0.1, 7, "")]]
    reply.raw_output_contents[0] = b"\x01\0\0\0x\x01\0\0\0y"
    with pytest.raises(ValueError, match="'p' is no classification"):
        answer_of(reply).classes("p")


def test_typed_answers_are_read_and_broken_ones_refused() -> None:
    reply = pb.ModelInferResponse()
    reply.outputs.add(name="y", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
    assert answer_of(reply)["y"].tolist() == [1, 2]
    reply.outputs[0].shape[0] = 3
    with pytest.raises(InferenceError, match="INTERNAL: the answer cannot be read: output 'y'"):
        answer_of(reply)


def test_parameters_of_another_kind_than_a_turnout_server_s_are_passed_over() -> None:
    reply = pb.ModelStreamInferResponse(error_message="no")
    reply.infer_response.parameters["turnout_generation"].string_param = "first"
    reply.infer_response.parameters["turnout_retry_after_ms"].string_param = "soon"
    assert answer_of(reply.infer_response).generation == 0
    assert (stream_error(reply).code, stream_error(reply).retry_after_s) == ("UNKNOWN", None)


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("host:8001", Target("host:8001", False)),
        ("dns:///turnout:8001", Target("dns:///turnout:8001", True)),
        (["10.0.0.1:1", "localhost:2"], Target("ipv4:10.0.0.1:1,127.0.0.1:2", True)),
        (["[::1]:1", "[fe80::1]:2"], Target("ipv6:[::1]:1,[fe80::1]:2", True)),
        (["host:8001"], Target("host:8001", False)),
        ("unix:/run/t", Target("unix:/run/t", False)),
    ],
)
def test_targets(endpoint: Any, target: Target) -> None:
    assert target_of(endpoint) == target


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("host", "no HOST:PORT"),
        ("host:port", "no HOST:PORT"),
        ("host:70000", "no HOST:PORT"),
        ([], "no endpoint"),
        (["a:1", "b:2"], "dns:///NAME:PORT"),
        (["10.0.0.1:1", "[::1]:2"], "one family"),
    ],
)
def test_endpoints_that_are_none(endpoint: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        target_of(endpoint)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Retry(attempts_max=6), "attempts_max is 6"),
        (lambda: Retry(backoff_s=0.001), "backoff_s is 0.001, and it goes from 0.01"),
        (lambda: Retry(tokens_max=float("nan")), "tokens_max is nan"),
        (lambda: Keepalive(interval_s=0.1), "interval_s is 0.1"),
        (lambda: Streams(inflight_max=0), "inflight_max is 0"),
        (lambda: Tls(certificate=b"c"), "both certificate and private_key"),
        (lambda: settings(token="t"), "a token without TLS"),
        (lambda: settings(transport="udp"), "choose 'unary' or 'stream'"),
        (lambda: settings(timeout_s=0), "timeout_s is 0"),
        (lambda: Client("127.0.0.1:1", metadata={"x": "ü"}), "metadata 'x' is no printable ASCII"),
        (lambda: Client("127.0.0.1:1", token="t\n", insecure_token=True), "metadata 'authorization' is no printable"),
    ],
)
def test_settings_out_of_bounds(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def settings(**more: Any) -> Settings:
    given: dict[str, Any] = {
        "timeout_s": 1.0,
        "retry": Retry(),
        "transport": "unary",
        "streams": Streams(),
        "wait_for_ready": True,
        "keepalive": Keepalive(),
        "tls": None,
        "token": None,
        "insecure_token": False,
        "metadata": {},
        "trace_headers": None,
        "options": {},
    }
    return Settings(**{**given, **more})


def test_the_caller_s_channel_options_win() -> None:
    options = dict(channel_options(Target("h:1", True), settings(options={"grpc.keepalive_time_ms": 7})))
    assert options["grpc.keepalive_time_ms"] == 7 and "round_robin" in str(options["grpc.service_config"])


@pytest.mark.parametrize(
    ("more", "trace", "alone"),
    [
        ({}, (), False),
        ({"key": "k"}, (), False),
        ({"slot": "green"}, (), True),
        ({"metadata": {"a": "b"}}, (), True),
        ({}, (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),), True),
        ({}, (("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),), False),
        ({"inputs": {"x": np.zeros(100_000, np.float32)}}, (), True),
    ],
)
def test_what_a_stream_cannot_carry(more: Any, trace: Any, alone: bool) -> None:
    assert goes_alone(request(**more), trace, Streams()) is alone


@given(st.lists(st.booleans(), max_size=400), st.integers(1, 60), st.floats(0.01, 2), st.integers(1, 5))
def test_no_more_than_the_budget_is_sent_again(fails: list[bool], tokens: int, ratio: float, attempts: int) -> None:
    retries = Retries(Retry(attempts_max=attempts, tokens_max=tokens, token_ratio=ratio))
    again = 0
    for failed in fails:
        if failed:
            delay_s = retries.delay_s(InferenceError("UNAVAILABLE", ""), 1, 10.0, random.random())
            again += delay_s is not None
        else:
            retries.succeeded()
    assert again <= tokens / 2 + ratio * fails.count(False)
    if attempts == 1:
        assert again == 0


@given(st.integers(1, 4), st.floats(0, 0.999), st.floats(0, 3))
def test_a_delay_ends_before_the_deadline(attempts: int, chance: float, remaining_s: float) -> None:
    retry = Retry(attempts_max=5)
    delay_s = Retries(retry).delay_s(InferenceError("UNAVAILABLE", ""), attempts, remaining_s, chance)
    if delay_s is None:
        assert remaining_s <= 0.05 * 2 ** (attempts - 1) * 1.2
    else:
        assert delay_s < remaining_s
        assert 0.8 * 0.05 * 2 ** (attempts - 1) <= delay_s <= 1.2 * retry.backoff_s_max


def test_the_current_span_becomes_headers() -> None:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    from turnout_client.tracing import opentelemetry_headers

    assert opentelemetry_headers() == {}
    span = NonRecordingSpan(SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        headers = opentelemetry_headers()
    assert headers["traceparent"] == f"00-{0xA:032x}-{0xB:016x}-01"
    assert goes_alone(request(), tuple(headers.items()), Streams())


def test_names_of_the_package_are_found_when_they_are_used() -> None:
    import turnout_client

    assert {name for name in turnout_client.__all__ if getattr(turnout_client, name) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = turnout_client.Nothing
