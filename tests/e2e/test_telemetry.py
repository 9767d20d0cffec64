"""Telemetry of a real process, received over OTLP: what arrives, and that no collector holds up serving or stopping."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support import onnx_models
from support.otlp_sink import Sink, grpc_sink, http_sink, values
from support.server import Server, address_of, environment, process, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=x"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
INFER = "inference.GRPCInferenceService/ModelInfer"
SOON = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "100",
    "OTEL_SERVICE_NAME": "digits-server",
    "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
}
NEVER = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    onnx_models.slow_model(root)
    onnx_models.lookup_model(root)
    return root


def work(number: int) -> list[triton.InferInput]:
    given = triton.InferInput("x", [1, 1], "INT64")
    given.set_data_from_numpy(np.full((1, 1), number, np.int64))
    return [given]


def infer(server: Server, number: int = 1, headers: Mapping[str, str] | None = None, **more: Any) -> None:
    with triton.InferenceServerClient(server.address) as client:
        result = client.infer("slow", work(number), headers=dict(headers or {}), **more)
    assert result.as_numpy("y").tolist() == [[number]]


def fail(server: Server, headers: Mapping[str, str] | None = None) -> None:
    index = triton.InferInput("index", [1, 1], "INT64")
    index.set_data_from_numpy(np.full((1, 1), 9, np.int64))
    with triton.InferenceServerClient(server.address) as client, pytest.raises(InferenceServerException) as failure:
        client.infer("lookup", [index], headers=dict(headers or {}))
    assert "INTERNAL" in failure.value.status()


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.stderr.splitlines()]


def stop(server: Server) -> float:
    """Seconds until it has ended, as asked."""
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait(20) == 0
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("sink", "protocol"), [(grpc_sink, "grpc"), (http_sink, "http/protobuf")], ids=["grpc", "http"]
)
def test_traces_logs_and_metrics_arrive(
    repository: Path, sink: Callable[[], AbstractContextManager[Sink]], protocol: str
) -> None:
    with sink() as got:
        more = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": got.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
        with process(repository, more=SOON | NEVER | more) as server:
            infer(server, 2, SAMPLED, request_id="r-1")
            until(lambda: got.named(INFER) and got.named("turnout.batch") and got.metrics)
            until(lambda: any(metric.name == "turnout.request.duration" for metric in got.metrics))
            assert stop(server) < 8
        _check_trace(got)
        _check_logs(got)
        _check_metrics(got)
        assert all(headers["authorization"] == "secret" for _, _, headers in got.requests)
        resource = values(got.requests[0][1].ListFields()[0][1][0].resource.attributes)
        assert resource["service.name"] == "digits-server"
        assert resource["deployment.environment.name"] == "test"
        assert resource["service.version"] and resource["service.instance.id"]


def _check_trace(got: Sink) -> None:
    [server] = got.named(INFER)
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN)
    assert server.kind == 2 and server.trace_state == "vendor=x" and server.status.code == 0
    attributes = values(server.attributes)
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": INFER,
        "rpc.response.status_code": "OK",
        "turnout.model.name": "slow",
        "turnout.inference.id": "r-1",
        "turnout.revision": "slow/1",
        "turnout.slot": "blue",
        "turnout.batch.rows": 1,
        "feature_flag.key": "slow",
        "feature_flag.provider.name": "turnout",
        "feature_flag.result.variant": "1",
        "feature_flag.result.reason": "static",
        "feature_flag.version": "1",
    }
    [queue], [compute], [batch] = (got.named(f"turnout.{name}") for name in ("queue", "compute", "batch"))
    for part in (queue, compute):
        assert (part.trace_id, part.parent_span_id) == (server.trace_id, server.span_id)
        assert part.kind == 1
    times = [server.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano]
    times += [compute.start_time_unix_nano, compute.end_time_unix_nano, server.end_time_unix_nano]
    assert times == sorted(times)
    assert abs(server.end_time_unix_nano / 1e9 - time.time()) < 60
    assert queue.end_time_unix_nano == compute.start_time_unix_nano
    assert values(compute.attributes)["turnout.compute.infer.duration"] > 0
    [link] = batch.links
    assert (link.trace_id, link.span_id) == (server.trace_id, server.span_id)
    assert not batch.parent_span_id and batch.trace_id != server.trace_id
    [back] = compute.links
    assert (back.trace_id, back.span_id) == (batch.trace_id, batch.span_id)
    assert values(batch.attributes)["turnout.batch.requests"] == 1


def _check_logs(got: Sink) -> None:
    bodies = [log.body.string_value for log in got.logs if not log.event_name]
    assert "serving" in bodies and "stopping" in bodies
    assert "slot changed" not in bodies  # that is an event
    changes = [values(log.attributes) for log in got.logs if log.event_name == "turnout.transition"]
    states = [one["turnout.slot.state"] for one in changes if one["turnout.model.name"] == "slow"]
    assert states[:3] == ["LOADING", "WARMING", "READY"]
    assert all(log.severity_number == 9 and log.time_unix_nano for log in got.logs)


def _check_metrics(got: Sink) -> None:
    duration = [m for m in got.metrics if m.name == "turnout.request.duration"][-1]
    assert duration.unit == "s" and duration.histogram.aggregation_temporality == 2
    [point] = duration.histogram.data_points
    assert values(point.attributes) == {
        "turnout.model.name": "slow",
        "turnout.slot": "blue",
        "turnout.revision": "slow/1",
        "turnout.outcome": "success",
        "turnout.pinned": False,
    }
    assert (point.count, sum(point.bucket_counts), len(point.bucket_counts)) == (1, 1, len(point.explicit_bounds) + 1)
    assert point.sum > 0 and point.start_time_unix_nano < point.time_unix_nano


def test_nothing_is_exported_unless_asked_for(repository: Path) -> None:
    with process(repository) as server:
        infer(server, 1, SAMPLED)
        assert psutil.Process(server.process.pid).is_running()
        [line] = [one for one in lines(server) if one["event"] == "telemetry"]
        assert "nothing" in line["exported"] and "--otlp-endpoint" in line["exported"]
        assert stop(server) < 5


def test_the_sdk_is_not_imported_unless_asked_for() -> None:
    code = "import turnout.cli, turnout.app, sys; sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_what_is_sampled(repository: Path) -> None:
    """Callers decide; of the others the ratio is traced. Slow and failed ones are in any case."""
    with grpc_sink() as got:
        flags = (f"--otlp-endpoint={got.url}", "--trace-slow-ms=200")
        with process(repository, *flags, more=SOON | NEVER) as server:
            infer(server, 1, request_id="no-one")
            infer(server, 1, UNSAMPLED, request_id="not-sampled")
            infer(server, 1, {"traceparent": "00-nonsense"}, request_id="nonsense")
            infer(server, 1, SAMPLED, request_id="sampled")
            infer(server, 2000, UNSAMPLED, request_id="slow")
            fail(server)
            until(lambda: len(got.named(INFER)) >= 3)
            stop(server)
        spans = {values(span.attributes).get("turnout.inference.id"): span for span in got.named(INFER)}
        captured = {id_: values(span.attributes).get("turnout.capture") for id_, span in spans.items()}
        [failed] = [id_ for id_, why in captured.items() if why == "failed"]
        assert captured == {"sampled": None, "slow": "slow", failed: "failed"}
        assert (spans["slow"].trace_id.hex(), spans["slow"].parent_span_id.hex()) == (TRACE, SPAN)
        attributes = values(spans[failed].attributes)
        assert attributes["rpc.response.status_code"] == attributes["error.type"] == "INTERNAL"
        assert attributes["turnout.slot"] == "blue" and attributes["turnout.revision"] == "lookup/1"
        assert spans[failed].status.code == 2 and not spans[failed].parent_span_id
        [log] = [log for log in got.logs if log.body.string_value == "model run failed"]
        assert values(log.attributes)["error_id"] in spans[failed].status.message


def test_a_batch_links_the_requests_in_it(repository: Path) -> None:
    with grpc_sink() as got, process(repository, f"--otlp-endpoint={got.url}", more=SOON) as server:
        first = threading.Thread(target=infer, args=(server, 600, SAMPLED))
        first.start()
        time.sleep(0.1)  # in real time: the first run is under way, and the others wait for it
        others = [threading.Thread(target=infer, args=(server, 2, SAMPLED)) for _ in range(3)]
        for thread in others:
            thread.start()
        for thread in (first, *others):
            thread.join()
        until(lambda: len(got.named(INFER)) == 4 and len(got.named("turnout.batch")) >= 2)
        stop(server)
    linked = [link.span_id for batch in got.named("turnout.batch") for link in batch.links]
    assert sorted(linked) == sorted(span.span_id for span in got.named(INFER))
    largest = max(got.named("turnout.batch"), key=lambda batch: len(batch.links))
    assert len(largest.links) == values(largest.attributes)["turnout.batch.requests"] > 1
    assert {values(link.attributes)["turnout.link.kind"] for link in largest.links} == {"batch_of"}
    sharing = [span for span in got.named("turnout.compute") if span.links[0].span_id == largest.span_id]
    assert len(sharing) == len(largest.links)


def test_a_failing_run_in_a_traced_request_has_the_trace_in_its_log_line(repository: Path) -> None:
    with grpc_sink() as got, process(repository, f"--otlp-endpoint={got.url}", more=SOON | NEVER) as server:
        fail(server, SAMPLED)
        until(lambda: got.named(INFER) and got.named("turnout.batch"))
        [line] = [one for one in lines(server) if one["event"] == "model run failed"]
        until(lambda: any(log.body.string_value == "model run failed" for log in got.logs))
        stop(server)
    [span], [batch] = got.named(INFER), got.named("turnout.batch")
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id.hex())
    [log] = [log for log in got.logs if log.body.string_value == "model run failed"]
    assert (log.trace_id, log.span_id) == (span.trace_id, span.span_id)
    assert batch.status.code == 2 and batch.links[0].span_id == span.span_id


def ctl(server: Server, *arguments: str) -> None:
    command = [sys.executable, "-m", "turnout_client.ctl", *arguments]
    endpoint = {"TURNOUTCTL_ENDPOINT": address_of(server, "admin")}
    subprocess.run(command, env=environment(endpoint), check=True, timeout=60)


def test_journal_lines_are_events(repository: Path) -> None:
    with grpc_sink() as got, process(repository, f"--otlp-endpoint={got.url}", more=SOON | NEVER) as server:
        ctl(server, "load", "lookup", "green", "1", "--reason", "to see it")
        until(lambda: len([log for log in got.logs if log.event_name == "turnout.rollout.transition"]) > 1)
        stop(server)
    found = [values(log.attributes) for log in got.logs if log.event_name == "turnout.rollout.transition"]
    asked, done = found[:2]
    assert asked["turnout.model.name"] == done["turnout.model.name"] == "lookup"
    assert asked["turnout.transition.object"] == done["turnout.transition.object"] == "slots/green"
    assert asked["turnout.transition.reason"] == "to see it"
    assert done["turnout.transition.to"].startswith("READY")
    assert 0 < asked["turnout.transition.seq"] < done["turnout.transition.seq"]


def test_a_shadow_inference_is_a_trace_of_its_own(tmp_path: Path) -> None:
    """Linked to its request where that was sampled, and there is one for every comparison that is told. Version 2
    answers something else."""
    for version, factor in ((1, 2), (2, 3)):
        policy = "version_policy { specific { versions: [1] } }"
        onnx_models.write(tmp_path, "scale", onnx_models.SCALE.format(factor=factor), policy, version)
    with grpc_sink() as got, process(tmp_path, f"--otlp-endpoint={got.url}", more=SOON | NEVER) as server:
        ctl(server, "load", "scale", "green", "2", "--wait")
        ctl(server, "shadow", "set", "scale", "green", "--sample", "100%", "--noise", "100%")
        given = triton.InferInput("x", [1, 3], "FP32")
        given.set_data_from_numpy(np.ones((1, 3), np.float32))
        with triton.InferenceServerClient(server.address) as client:
            client.infer("scale", [given], headers=SAMPLED, request_id="sampled")
            client.infer("scale", [given], headers=UNSAMPLED, request_id="not-sampled")
        until(lambda: len(got.named("turnout.shadow.infer")) == 2)
        assert not _comparisons(got), "told at the end of their window; only what is sampled has a span before"
        until(lambda: len(_comparisons(got)) == 2 and len(got.named("turnout.shadow.infer")) == 3)
        stop(server)
    [live] = got.named(INFER)
    copies = {
        (attributes["turnout.inference.id"], attributes["turnout.comparison.kind"]): (span, attributes)
        for span in got.named("turnout.shadow.infer")
        for attributes in [values(span.attributes)]
    }
    assert set(copies) == {("sampled", "shadow"), ("sampled", "noise"), ("not-sampled", "shadow")}
    for (inference_id, kind), (span, attributes) in copies.items():
        assert not span.parent_span_id and span.trace_id != live.trace_id
        shadow = kind == "shadow"
        assert attributes["turnout.comparison.result"] == ("mismatch" if shadow else "match")
        assert attributes["turnout.slot"] == ("green" if shadow else "blue")
        assert attributes["turnout.revision"] == ("scale/2" if shadow else "scale/1")
        linked = [(link.trace_id, link.span_id, values(link.attributes)) for link in span.links]
        told = {"turnout.link.kind": f"{kind}_of", "turnout.inference.id": inference_id}
        assert linked == ([(live.trace_id, live.span_id, told)] if inference_id == "sampled" else [])
        parts = [part.name for part in got.spans if part.parent_span_id == span.span_id]
        assert sorted(parts) == ["turnout.compute", "turnout.queue"]
        batches = [b for b in got.named("turnout.batch") if span.span_id in [link.span_id for link in b.links]]
        assert len(batches) == (1 if inference_id == "sampled" else 0)
    for log in _comparisons(got):
        attributes = values(log.attributes)
        span, _ = copies[attributes["turnout.inference.id"], "shadow"]
        ids = attributes["turnout.shadow.trace_id"], attributes["turnout.shadow.span_id"]
        assert ids == (span.trace_id.hex(), span.span_id.hex())
        sampled = attributes["turnout.inference.id"] == "sampled"
        assert (log.trace_id, log.span_id) == ((live.trace_id, live.span_id) if sampled else (b"", b""))


def _comparisons(got: Sink) -> list[Any]:
    return [log for log in got.logs if log.event_name == "turnout.shadow.comparison"]


@contextmanager
def nobody() -> Iterator[tuple[str, Callable[[], None]]]:
    """A port that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}", lambda: None


@contextmanager
def black_hole() -> Iterator[tuple[str, Callable[[], None]]]:
    """Takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", lambda: None


@contextmanager
def refusing() -> Iterator[tuple[str, Callable[[], None]]]:
    with grpc_sink() as sink:
        sink.refusing = True
        yield sink.url, lambda: None


@contextmanager
def dying() -> Iterator[tuple[str, Callable[[], None]]]:
    """A receiver in a process of its own, which is killed in mid-run."""
    program = Path(__file__).parents[1] / "support" / "otlp_sink.py"
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            yield receiver.stdout.readline().strip(), receiver.kill
        finally:
            receiver.kill()


@pytest.mark.parametrize(
    ("collector", "protocol"),
    [
        *((one, "grpc") for one in (nobody, black_hole, refusing, dying)),
        *((one, "http/protobuf") for one in (nobody, black_hole)),
    ],
)
def test_no_collector_holds_up_serving_or_stopping(
    repository: Path, collector: Callable[[], AbstractContextManager[tuple[str, Callable[[], None]]]], protocol: str
) -> None:
    bounds = {"OTEL_BSP_MAX_QUEUE_SIZE": "512", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "256"}
    with collector() as (url, kill):
        more = SOON | bounds | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_TRACES_SAMPLER": "always_on"}
        with process(repository, f"--otlp-endpoint={url}", more=more) as server:
            memory = psutil.Process(server.process.pid).memory_info
            with triton.InferenceServerClient(server.address) as client:
                for number in range(900):
                    if number == 300:
                        kill()
                    if number == 600:  # the queues have been full for long
                        before = memory().rss
                    assert client.infer("slow", work(0)).as_numpy("y").tolist() == [[0]]
            assert memory().rss - before < 8 << 20
            assert stop(server) < 6
        assert len(server.stdout) < 10_000
