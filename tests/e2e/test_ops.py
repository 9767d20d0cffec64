"""The ops port of a real process: from before its first model is loaded until the last is unloaded."""

from __future__ import annotations

import concurrent.futures
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from tritonclient.utils import InferenceServerException

from support import onnx_models
from support.otlp_sink import grpc_sink
from support.server import COMMAND, Server, address_of, environment, process, run, until
from turnout.telemetry.exposition import label
from turnout.telemetry.instruments import INSTRUMENTS, Kind
from turnout.telemetry.triton import TRITON_INSTRUMENTS


def get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", path, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def metrics(server: Server) -> dict[str, Any]:
    status, body = get(address_of(server, "ops"), "/metrics")
    assert status == 200, body
    return {family.name: family for family in parse_openmetrics(body)}


def work(number: int) -> list[triton.InferInput]:
    given = triton.InferInput("x", [1, 1], "INT64")
    given.set_data_from_numpy(np.full((1, 1), number, np.int64))
    return [given]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_models.slow_model(tmp_path_factory.mktemp("slow"))


def test_metrics_under_load_are_those_of_the_table(slow: Path) -> None:
    with process(slow) as server:

        def client(number: int) -> None:
            with triton.InferenceServerClient(server.address) as asking:
                for _ in range(20):
                    asking.infer("slow", work(2))
                with pytest.raises(InferenceServerException):
                    asking.infer(f"none {number}", work(2))

        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(client, number) for number in range(4)]
            for _ in range(5):  # each one parses, whatever moment it shows
                metrics(server)
            for each in asked:
                each.result()
        until(lambda: _value(metrics(server), "turnout_request_rows_total") == 80)
        families = metrics(server)
        _hold_against_the_table(families)
        rejected = families["turnout_request_rejected"].samples
        assert [(s.labels["turnout_model_name"], s.value) for s in rejected] == [("_OTHER", 4)]
        calls = {
            s.labels["rpc_response_status_code"]: s.value
            for s in families["rpc_server_call_duration_seconds"].samples
            if s.name.endswith("_count") and s.labels["rpc_method"].endswith("/ModelInfer")
        }
        assert calls == {"OK": 80, "NOT_FOUND": 4}
        assert _value(families, "nv_inference_request_success") == 80
        assert _value(families, "turnout_loop_lag_seconds_count") > 0
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def _value(families: dict[str, Any], name: str) -> float:
    return sum(s.value for family in families.values() for s in family.samples if s.name == name)


def _hold_against_the_table(families: dict[str, Any]) -> None:
    """Every name that is exported is in the table, with its labels; all of the table is there, GPUs apart."""
    table = {each.prometheus.removesuffix("_total"): each for each in (*INSTRUMENTS, *TRITON_INSTRUMENTS)}
    assert set(families) - {"target"} <= set(table)
    missing = {name for name in set(table) - set(families) if not name.startswith("hw_")}
    assert missing == set()
    for name, family in families.items():
        if name == "target":
            continue
        instrument = table[name]
        labels = {label(attribute) for attribute in instrument.attributes}
        for sample in family.samples:
            # A label without a value is none: error_type of a call that went well.
            assert set(sample.labels) - {"le"} == labels, sample
        if not instrument.foreign:
            assert family.type == instrument.kind.value
            assert family.type != Kind.COUNTER.value or all(s.name == f"{name}_total" for s in family.samples)


def test_probes_from_the_start_to_the_end(slow: Path) -> None:
    with process(slow, "--drain-delay-s=2") as server:
        ops = address_of(server, "ops")
        assert get(ops, "/livez") == get(ops, "/readyz") == (200, "ok\n")
        with triton.InferenceServerClient(server.address) as client:
            server.signal(signal.SIGTERM)
            until(lambda: get(ops, "/readyz") == (503, "the server starts, or stops\n"))
            assert get(ops, "/livez") == (200, "ok\n")
            assert _value(metrics(server), "turnout_server_ready") == 0
            assert client.infer("slow", work(0)).as_numpy("y").tolist() == [[0]], "it serves on meanwhile"
        assert server.wait() == 0


def test_probes_while_models_load(tmp_path: Path) -> None:
    """The port is known beforehand, as in a container: the table that names it comes when everything is loaded."""
    for number in range(6):
        onnx_models.write(tmp_path, f"m{number}", onnx_models.SCALE.format(factor=2), "max_batch_size: 8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*COMMAND, "serve", f"--model-repository={tmp_path}", "--host=127.0.0.1", "--grpc-port=0"]
    with subprocess.Popen(
        [*command, "--provider=cpu", f"--ops-port={port}"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as starting:
        try:
            seen = []

            def ready() -> bool:
                try:
                    seen.append((get(f"127.0.0.1:{port}", "/livez")[0], get(f"127.0.0.1:{port}", "/readyz")[0]))
                except OSError:
                    assert starting.poll() is None
                    return False
                return seen[-1] == (200, 200)

            until(ready, 60)
            assert (200, 503) in seen, "alive and not ready, before it was both"
        finally:
            starting.kill()


@pytest.mark.parametrize("hanging", ["nvmlInit", "nvmlDeviceGetUtilizationRates"])
def test_a_gpu_driver_that_hangs_holds_nothing_up(slow: Path, tmp_path: Path, hanging: str) -> None:
    (tmp_path / "pynvml.py").write_text(f"hanging = {hanging!r}\n{_NVML}")
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with process(slow, more={"PYTHONPATH": paths}) as server:
        address = address_of(server, "ops")
        for _ in range(3):
            assert "turnout_server_ready" in metrics(server)
        assert get(address, "/livez")[0] == get(address, "/readyz")[0] == 200
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0


_NVML = """
import time

class NVMLError(Exception):
    pass

def __getattr__(name):
    def answer(*_):
        if name == hanging:
            time.sleep(3600)
        return 1
    return answer
"""


def test_no_ops_has_no_port(slow: Path) -> None:
    with process(slow, "--no-ops") as server:
        assert not re.search(r"^ops ", server.stdout, re.MULTILINE)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_used_ops_port_is_refused_before_models_are_loaded(slow: Path) -> None:
    with process(slow) as server:
        host, _, port = address_of(server, "ops").rpartition(":")
        done = run("serve", f"--model-repository={slow}", f"--host={host}", "--grpc-port=0", f"--ops-port={port}")
        assert done.returncode == 1
        remedy = "choose another --ops-host or --ops-port, or use --no-ops"
        assert f"cannot listen on {host}:{port}: Address already in use; {remedy}" in done.stderr


def test_exemplars_point_at_spans_that_were_sent(slow: Path) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with (
        grpc_sink() as sink,
        process(slow, f"--otlp-endpoint={sink.url}", more={"OTEL_METRIC_EXPORT_INTERVAL": "100"}) as server,
        triton.InferenceServerClient(server.address) as client,
    ):
        client.infer("slow", work(1))
        client.infer("slow", work(1), headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})

        def scraped() -> list[Any]:
            samples = metrics(server)["turnout_request_duration_seconds"].samples
            return [sample.exemplar for sample in samples if sample.exemplar is not None]

        until(scraped)
        (exemplar,) = scraped()
        assert exemplar.labels["trace_id"] == trace
        assert abs(float(exemplar.timestamp) - time.time()) < 60

        def exported() -> list[Any]:
            found = [metric for metric in sink.metrics if metric.name == "turnout.request.duration"]
            points = [point for metric in found[-1:] for point in metric.histogram.data_points]
            return [each for point in points for each in point.exemplars]

        until(exported)
        assert {(e.trace_id.hex(), e.span_id.hex()) for e in exported()} == {(trace, exemplar.labels["span_id"])}
        sent = {metric.name for metric in sink.metrics}
        named = {each.name for each in INSTRUMENTS}
        assert sent <= named
        assert sent >= {"process.memory.usage", "turnout.loop.lag", "rpc.server.call.duration"}
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        spans = {(span.trace_id.hex(), span.span_id.hex()) for span in sink.spans}
        assert (trace, exemplar.labels["span_id"]) in spans
