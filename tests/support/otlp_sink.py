"""An OTLP receiver on loopback, over gRPC and over HTTP, on the services of opentelemetry-proto: keeps what it gets.

As a program it is one gRPC receiver that prints its port, for tests that kill it.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

_SIGNALS = {
    "traces": (
        "opentelemetry.proto.collector.trace.v1.TraceService",
        traces.ExportTraceServiceRequest,
        traces.ExportTraceServiceResponse,
    ),
    "metrics": (
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
    ),
    "logs": (
        "opentelemetry.proto.collector.logs.v1.LogsService",
        logs.ExportLogsServiceRequest,
        logs.ExportLogsServiceResponse,
    ),
}


@dataclass
class Sink:
    """What came, by signal. `refusing`: everything is answered RESOURCE_EXHAUSTED, and kept all the same."""

    url: str = ""
    refusing: bool = False
    requests: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)  # with headers

    def take(self, signal: str, message: Any, headers: Iterable[tuple[str, Any]]) -> None:
        self.requests.append((signal, message, {name.lower(): str(value) for name, value in headers}))

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for message in self._of("traces")
            for r in message.resource_spans
            for s in r.scope_spans
            for span in s.spans
        ]

    @property
    def logs(self) -> list[Any]:
        return [
            log
            for message in self._of("logs")
            for r in message.resource_logs
            for s in r.scope_logs
            for log in s.log_records
        ]

    @property
    def metrics(self) -> list[Any]:
        return [
            m
            for message in self._of("metrics")
            for r in message.resource_metrics
            for s in r.scope_metrics
            for m in s.metrics
        ]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def _of(self, signal: str) -> list[Any]:
        return [message for kind, message, _ in list(self.requests) if kind == signal]


def values(attributes: Iterable[Any]) -> dict[str, Any]:
    """Attributes as Python values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


@contextmanager
def grpc_sink(port: int = 0) -> Iterator[Sink]:
    sink = Sink()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    for signal, (service, request, response) in _SIGNALS.items():
        handler = grpc.unary_unary_rpc_method_handler(
            _exported(sink, signal, response), request.FromString, response.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    sink.url = f"http://127.0.0.1:{bound}"
    try:
        yield sink
    finally:
        server.stop(0).wait()


def _exported(sink: Sink, signal: str, response: Any) -> Callable[[Any, Any], Any]:
    def export(message: Any, context: Any) -> Any:
        sink.take(signal, message, context.invocation_metadata())
        if sink.refusing:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
        return response()

    return export


@contextmanager
def http_sink() -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            signal = self.path.removeprefix("/v1/")
            _, request, response = _SIGNALS[signal]
            sink.take(signal, request.FromString(body), self.headers.items())
            answer = response().SerializeToString()
            self.send_response(429 if sink.refusing else 200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sink.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield sink
        finally:
            server.shutdown()


if __name__ == "__main__":
    with grpc_sink() as own:
        print(own.url, flush=True)
        time.sleep(600)
