"""The providers as they are built: what they send where, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from support.otlp_sink import Sink, grpc_sink, http_sink, values
from turnout.core.tracing import TraceContext
from turnout.runtime.ports import Severity
from turnout.runtime.tracing import EndedRequest
from turnout.telemetry import otel
from turnout.telemetry.instruments import QUEUE_LIMIT
from turnout.telemetry.pipeline import Limits, Pipeline
from turnout.telemetry.readings import Reading, Value
from turnout.telemetry.settings import read

LIMITS = Limits(10**9, 10)
TRACE = TraceContext(0xA1, 0xB2)
OVER = {"grpc": "grpc", "http": "http/protobuf"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def built(endpoint: str, protocol: str) -> Pipeline:
    return otel.build(read({"OTEL_EXPORTER_OTLP_PROTOCOL": OVER[protocol]}, endpoint), LIMITS, "ours", str)


@pytest.mark.parametrize(("sink", "protocol"), [(grpc_sink, "grpc"), (http_sink, "http")])
async def test_the_flags_endpoint_goes_before_the_environments(
    sink: Callable[[], AbstractContextManager[Sink]], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,team=t")
    with sink() as got:
        pipeline = built(got.url + "/" * (protocol == "http"), protocol)
        assert pipeline.exported == ("traces", "metrics", "logs")
        pipeline.watch(lambda: [Reading(QUEUE_LIMIT, (Value((), 5),))], lambda: [])
        pipeline.tracer.request_ended(EndedRequest(TRACE, "ModelInfer", 1, 2, None, None, "CANCELLED"))
        pipeline.events.emit("turnout.shadow.comparison", Severity.WARN, {"turnout.live.argmax": 3}, TRACE)
        assert pipeline.write_line is not None
        await asyncio.to_thread(
            pipeline.write_line,
            "error",
            {"event": "e", "level": "error", "exc_info": ValueError("v"), "models": ["a", 1], "port": 1, "none": None},
        )
        assert await pipeline.stop(20)
    [span], [metric], [event, line] = got.spans, got.metrics, got.logs
    assert span.span_id.hex() == f"{TRACE.span_id:016x}" and metric.name == "turnout.queue.limit"
    assert (event.event_name, event.severity_text) == ("turnout.shadow.comparison", "WARN")
    assert (event.trace_id, event.span_id, event.flags) == (span.trace_id, span.span_id, 1)
    assert values(event.attributes) == {"turnout.live.argmax": 3}
    attributes = values(line.attributes)
    assert (line.body.string_value, line.severity_text, line.trace_id) == ("e", "ERROR", b"")
    assert attributes["exception.type"] == "ValueError" and attributes["exception.message"] == "v"
    assert (attributes["port"], attributes["none"]) == (1, "None")
    assert [one.string_value for one in attributes["models"].values] == ["a", "1"]
    [resource] = [message.resource_spans[0].resource for kind, message, _ in got.requests if kind == "traces"]
    assert (values(resource.attributes)["service.name"], values(resource.attributes)["team"]) == ("theirs", "t")


async def test_a_service_without_a_name_gets_ours(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
    }
    pipeline = otel.build(read(environment), LIMITS, "ours", str)
    pipeline.watch(lambda: [Reading(QUEUE_LIMIT, (Value((), 5),))], lambda: [])
    pipeline.tracer.request_ended(EndedRequest(TRACE, "ModelInfer", 1, 2, None, None, "CANCELLED"))
    pipeline.events.emit("turnout.transition", Severity.ERROR, {})
    assert await pipeline.stop(20)
    shown = capsys.readouterr().out
    assert '"service.name": "ours"' in shown
    assert "ModelInfer" in shown and "turnout.queue.limit" in shown and "turnout.transition" in shown


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_METRIC_EXPORT_INTERVAL", "soon"), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1")]
)
def test_a_variable_that_cannot_be_used_says_so(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="OTEL_ variables"):
        otel.build(read({"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}), LIMITS, "ours", str)
