"""Spans as they reach an exporter, for every way in which a request can end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags

from turnout.core.assignment import Assignment, Choice
from turnout.core.copies import Copy, Pair, PairKind, Side
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.pairs import Result
from turnout.core.tensors import InferenceRequest, InferenceResponse, Timings
from turnout.core.tracing import Allowance, Sampling, TraceContext
from turnout.runtime.tracing import EndedBatch, EndedCopy, EndedRequest
from turnout.telemetry.spans import SpanTracer

REVISION = Revision("digits", 2, "int8", "d" * 64)
TRACE = TraceContext(0xA1 << 64 | 7, 0xB2, True, 0xC3, "vendor=x")
NOW_NS, DAY_NS = 5_000_000, 1_700_000_000_000_000_000
RESOURCE = Resource({"service.name": "turnout"})
OFFSET_NS = DAY_NS - NOW_NS
TIMINGS = Timings(300, 10, 20, 30, 8, 1_000_500, TraceContext(77, 78))


class Told:
    """A tracer over an exporter in memory; its clock stands still."""

    def __init__(self, captures_per_s: float = 2, w3c: bool = True) -> None:
        self.exporter = InMemorySpanExporter()
        processors = [SimpleSpanProcessor(self.exporter)]
        draw = random.Random(1).getrandbits
        allowance = Allowance(captures_per_s, NOW_NS)
        self.tracer = SpanTracer(
            processors, RESOURCE, Sampling(0.0), w3c, 1 << 63, allowance, lambda: NOW_NS, lambda: DAY_NS, draw
        )

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def server(self, outcome: Any, status: str, captured: str = "", request: Any = "r") -> ReadableSpan:
        request = InferenceRequest("digits", {}, inference_id=request) if request else None
        self.tracer.request_ended(
            EndedRequest(TRACE, "ModelInfer", 1_000_000, 1_002_000, request, outcome, status, captured)
        )
        return self.spans()["inference.GRPCInferenceService/ModelInfer"]


def test_a_method_of_another_service_is_called_by_its_whole_name() -> None:
    told = Told()
    told.tracer.request_ended(EndedRequest(TRACE, "turnout.models.Digits/Predict", 1, 2, None, None, "CANCELLED"))
    span = told.spans()["turnout.models.Digits/Predict"]
    assert (span.attributes or {})["rpc.method"] == "turnout.models.Digits/Predict"


def response(choice: Choice = Choice.SPLIT) -> InferenceResponse:
    return InferenceResponse(REVISION, "green", 7, (), TIMINGS, choice)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_an_answered_request_is_a_server_span_with_its_wait_and_its_run() -> None:
    told = Told()
    server = told.server(response(), "OK")
    queue, compute = told.spans()["turnout.queue"], told.spans()["turnout.compute"]
    assert (server.context.trace_id, server.context.span_id) == (TRACE.trace_id, TRACE.span_id)
    assert server.parent is not None and server.parent.span_id == 0xC3 and server.parent.is_remote
    assert server.resource is RESOURCE and server.instrumentation_scope is not None
    assert (server.context.trace_flags, server.parent.trace_flags) == (TraceFlags.SAMPLED, TraceFlags.SAMPLED)
    assert server.context.trace_state.get("vendor") == "x" and server.kind is SpanKind.SERVER
    assert (server.start_time, server.end_time) == (OFFSET_NS + 1_000_000, OFFSET_NS + 1_002_000)
    assert server.status.status_code is StatusCode.UNSET
    assert (queue.start_time, queue.end_time) == (OFFSET_NS + 1_000_200, OFFSET_NS + 1_000_500)
    assert (compute.start_time, compute.end_time) == (OFFSET_NS + 1_000_500, OFFSET_NS + 1_000_560)
    for part in (queue, compute):
        assert part.parent is not None and part.parent.span_id == TRACE.span_id and not part.parent.is_remote
        assert part.context.trace_id == TRACE.trace_id and part.context.trace_state.get("vendor") == "x"
    assert [link.context.span_id for link in compute.links] == [78]
    assert attributes(compute)["turnout.compute.infer.duration"] == pytest.approx(20e-9)
    assert attributes(server)["feature_flag.result.variant"] == "2@int8"
    assert attributes(server)["feature_flag.version"] == "7"
    assert "error.type" not in attributes(server) and "turnout.capture" not in attributes(server)


def test_a_trace_that_begins_here_says_that_its_id_is_random() -> None:
    told = Told()
    told.tracer.request_ended(EndedRequest(TraceContext(5, 6), "ModelInfer", 1, 2, None, None, "CANCELLED"))
    (span,) = told.spans().values()
    assert span.parent is None and span.context.trace_flags == TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID


def test_the_environment_s_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "2")
    told = Told()
    server = told.server(response(), "OK")
    assert len(attributes(server)) == 3 and server.dropped_attributes > 0
    assert {value for value in attributes(server).values() if isinstance(value, str)} == {"digi", "gree"}
    told.tracer.batch_ended(EndedBatch(TRACE, REVISION, [TraceContext(1, span) for span in (2, 3, 4)], 3, 3, 1, 2))
    batch = told.spans()["turnout.batch"]
    assert [link.context.span_id for link in batch.links] == [3, 4] and batch.dropped_links == 1
    assert [dict(link.attributes or {}) for link in batch.links] == [{"turnout.link.kind": "batc"}] * 2


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (Choice.PIN, "targeting_match"),
        (Choice.SPLIT, "split"),
        (Choice.ONLY, "static"),
        (Choice.FALLBACK, "error"),
    ],
)
def test_the_reason_of_an_assignment(choice: Choice, reason: str) -> None:
    assert attributes(Told().server(response(choice), "OK"))["feature_flag.result.reason"] == reason


@pytest.mark.parametrize(
    ("reason", "status", "is_error"),
    [
        (Reason.EXECUTION_FAILED, "INTERNAL", True),
        (Reason.NOT_READY, "UNAVAILABLE", True),
        (Reason.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", True),
        (Reason.INVALID_REQUEST, "INVALID_ARGUMENT", False),
        (Reason.QUEUE_FULL, "RESOURCE_EXHAUSTED", False),
        (Reason.QUEUE_FULL, "UNAVAILABLE", True),
    ],
)
def test_failures(reason: Reason, status: str, is_error: bool) -> None:
    error = ServingError(reason, "what happened")
    error.assignment = Assignment("green", REVISION, 7, Choice.SPLIT)
    span = Told().server(error, status, "failed")
    assert attributes(span)["error.type"] == attributes(span)["rpc.response.status_code"] == status
    assert attributes(span)["turnout.revision"] == "digits/2@int8"
    assert attributes(span)["turnout.capture"] == "failed"
    expected = (StatusCode.ERROR, "what happened") if is_error else (StatusCode.UNSET, None)
    assert (span.status.status_code, span.status.description) == expected


def test_a_client_that_left_and_a_request_that_was_not_understood() -> None:
    told = Told()
    span = told.server(None, "CANCELLED", request=None)
    assert attributes(span)["error.type"] == "CANCELLED" and span.status.status_code is StatusCode.UNSET
    assert "turnout.model.name" not in attributes(span)
    assert set(told.spans()) == {span.name}


def test_a_batch_is_a_trace_of_its_own_with_links() -> None:
    told = Told()
    links = [TraceContext(n, n) for n in range(1, 201)]
    place = told.tracer.root()
    told.tracer.batch_ended(EndedBatch(place, REVISION, links, 300, 512, 1_000, 2_000, TIMINGS))
    [span] = told.exporter.get_finished_spans()
    assert span.name == "turnout.batch" and span.parent is None and span.kind is SpanKind.INTERNAL
    assert (span.context.trace_id, span.context.span_id) == (place.trace_id, place.span_id)
    assert [link.context.trace_id for link in span.links] == list(range(1, 129)), "128 at most"
    assert attributes(span)["turnout.batch.rows"] == 512 and attributes(span)["turnout.batch.requests"] == 300
    assert (span.start_time, span.end_time) == (OFFSET_NS + 1_000, OFFSET_NS + 2_000)


def test_a_batch_that_failed_is_an_error() -> None:
    told = Told()
    told.tracer.batch_ended(EndedBatch(told.tracer.root(), REVISION, [TRACE], 1, 1, 1_000, 2_000))
    [span] = told.exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


def copied(shadow: Side, kind: PairKind = PairKind.SHADOW, live: TraceContext | None = TRACE) -> Pair:
    request = InferenceRequest("digits", {}, inference_id="r-1", trace=live)
    copy = Copy(request, Side("blue", Revision("digits", 1, "", "c" * 64), {}, TIMINGS), kind, 7, 900_000, 1, 100)
    return Pair(copy, shadow, 1_000_100, 1_003_000)


def test_a_copy_is_a_trace_of_its_own_with_a_link_to_its_request() -> None:
    told = Told()
    place = told.tracer.root()
    told.tracer.copy_ended(EndedCopy(place, copied(Side("green", REVISION, {}, TIMINGS)), Result.MISMATCH))
    spans = told.spans()
    span, queue, compute = (spans[f"turnout.{name}"] for name in ("shadow.infer", "queue", "compute"))
    assert span.parent is None and span.kind is SpanKind.INTERNAL and span.status.status_code is StatusCode.UNSET
    assert (span.context.trace_id, span.context.span_id) == (place.trace_id, place.span_id)
    assert span.context.trace_id != TRACE.trace_id and not span.context.trace_state
    assert (span.start_time, span.end_time) == (OFFSET_NS + 1_000_100, OFFSET_NS + 1_003_000)
    assert attributes(span) == {
        "turnout.model.name": "digits",
        "turnout.slot": "green",
        "turnout.revision": "digits/2@int8",
        "turnout.inference.id": "r-1",
        "turnout.comparison.kind": "shadow",
        "turnout.comparison.result": "mismatch",
        "turnout.batch.rows": 8,
    }
    [link] = span.links
    assert (link.context.trace_id, link.context.span_id) == (TRACE.trace_id, TRACE.span_id)
    assert dict(link.attributes or {}) == {"turnout.link.kind": "shadow_of", "turnout.inference.id": "r-1"}
    for part in (queue, compute):
        assert part.parent is not None and part.parent.span_id == place.span_id
        assert part.context.trace_id == place.trace_id
    assert (queue.start_time, compute.end_time) == (OFFSET_NS + 1_000_200, OFFSET_NS + 1_000_560)
    assert [link.context.span_id for link in compute.links] == [78]


def test_a_copy_of_a_request_that_is_not_traced_has_no_link() -> None:
    told = Told()
    pair = copied(Side("blue", REVISION, {}, TIMINGS), PairKind.NOISE, live=None)
    told.tracer.copy_ended(EndedCopy(told.tracer.root(), pair, Result.MATCH))
    span = told.spans()["turnout.shadow.infer"]
    assert not span.links and attributes(span)["turnout.comparison.kind"] == "noise"


def test_a_copy_that_failed_and_one_that_could_not_be_compared() -> None:
    told = Told()
    failed = copied(Side("blue", REVISION, None, reason=Reason.EXECUTION_FAILED), PairKind.NOISE)
    told.tracer.copy_ended(EndedCopy(told.tracer.root(), failed, Result.SHADOW_ERROR))
    [span] = told.exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "execution_failed"
    assert "turnout.batch.rows" not in attributes(span)
    assert [dict(link.attributes or {})["turnout.link.kind"] for link in span.links] == ["noise_of"]
    told.tracer.copy_ended(EndedCopy(told.tracer.root(), copied(Side("green", REVISION, {}, TIMINGS)), None))
    assert "turnout.comparison.result" not in attributes(told.spans()["turnout.shadow.infer"])


PARENT = f"00-{TRACE.trace_id:032x}-{TRACE.parent_id:016x}-01"


@given(st.text(max_size=512))
@example("a=1,,b")
@example("=,A=1")
def test_no_trace_state_costs_a_span(state: str) -> None:
    told = Told()
    trace = told.tracer.begin(PARENT, state)
    assert trace is not None
    told.tracer.request_ended(EndedRequest(trace, "ModelInfer", 1, 2, None, None, "CANCELLED"))
    assert len(told.spans()) == 1


def test_a_fault_costs_a_span_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    for _ in range(2):
        told.tracer.request_ended(EndedRequest(None, "ModelInfer", 1, 2, None, None, "OK"))  # type: ignore[arg-type]
        told.tracer.batch_ended(None)  # type: ignore[arg-type]
        told.tracer.copy_ended(None)  # type: ignore[arg-type]
    assert not told.spans()
    assert "".join(capsys.readouterr()).count("a span could not be made") == 1  # where other tests have sent logs to
    told.server(response(), "OK")


def test_callers_decide_unless_their_headers_are_not_read() -> None:
    trace = Told().tracer.begin(PARENT, "vendor=x")
    assert trace is not None and (trace.trace_id, trace.parent_id) == (TRACE.trace_id, 0xC3)
    assert Told(w3c=False).tracer.begin(PARENT, "") is None


def test_captures_are_bounded_in_rate() -> None:
    told = Told(captures_per_s=2)
    found = [told.tracer.capture(PARENT[:-1] + "0", "") for _ in range(4)]
    assert [trace is not None for trace in found] == [True, True, False, False]
    assert found[0] is not None and found[0].trace_id == TRACE.trace_id and found[0].sampled
    ignored = Told(w3c=False).tracer.capture(PARENT, "")
    assert ignored is not None and ignored.trace_id != TRACE.trace_id
