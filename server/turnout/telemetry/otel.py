"""OpenTelemetry's providers, built from its environment variables. Imported only where something is exported.

Queues, batches, limits, headers, TLS, compression and retries are the SDK's, and so are the threads that export.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter, LogRecordExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from turnout import __version__
from turnout.core.tracing import Allowance
from turnout.telemetry.masking import Mask
from turnout.telemetry.pipeline import Limits, Pipeline
from turnout.telemetry.push import Pusher, Schedule
from turnout.telemetry.records import Records
from turnout.telemetry.settings import Exporter, Settings
from turnout.telemetry.spans import SpanTracer


def build(settings: Settings, limits: Limits, service: str, mask: Mask) -> Pipeline:
    """Raises:
    ValueError: the SDK cannot use what its variables say.
    """
    pipeline = Pipeline(tuple(settings.exporters))
    resource = _resource(service)
    try:
        if exporters := settings.exporters.get("logs"):
            _logs(pipeline, resource, [_log_exporter(one, settings.endpoint) for one in exporters])
        if exporters := settings.exporters.get("traces"):
            _traces(pipeline, resource, settings, limits, [_span_exporter(e, settings.endpoint) for e in exporters])
        if exporters := settings.exporters.get("metrics"):
            _metrics(pipeline, resource, [_metric_exporter(one, settings.endpoint) for one in exporters], mask)
    except Exception as error:
        raise ValueError(f"OTEL_ variables: {mask(str(error))}") from error
    return pipeline


def _traces(
    pipeline: Pipeline, resource: Resource, settings: Settings, limits: Limits, exporters: list[SpanExporter]
) -> None:
    processors = [BatchSpanProcessor(exporter) for exporter in exporters]
    pipeline.tracer = SpanTracer(
        processors,
        resource,
        settings.sampling,
        settings.w3c,
        limits.slow_ns,
        Allowance(limits.captures_per_s_max, time.monotonic_ns()),
        time.monotonic_ns,
        time.time_ns,
        random.Random().getrandbits,  # noqa: S311 - an id tells traces apart, and is no secret
    )
    pipeline.shutdowns += [processor.shutdown for processor in processors]


def _logs(pipeline: Pipeline, resource: Resource, exporters: list[LogRecordExporter]) -> None:
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    records = Records(provider)
    pipeline.events = records
    pipeline.write_line = records.write_line
    pipeline.shutdowns.append(provider.shutdown)


def _metrics(pipeline: Pipeline, resource: Resource, exporters: list[MetricExporter], mask: Mask) -> None:
    pusher = Pusher(exporters, resource, Schedule.of(os.environ), time.time_ns, mask)
    pipeline.watch = pusher.start
    pipeline.shutdowns.append(pusher.shutdown)


def _resource(service: str) -> Resource:
    """The environment's, and ours for what it leaves open."""
    said = OTELResourceDetector().detect().attributes
    ours = {"service.name": service, "service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    return Resource.create({name: value for name, value in ours.items() if name not in said})


def _span_exporter(exporter: Exporter, endpoint: str) -> SpanExporter:
    match exporter:
        case Exporter.OTLP_GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

            return Grpc(**_grpc(endpoint))
        case Exporter.OTLP_HTTP:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

            return Http(**_http(endpoint, "traces"))
        case Exporter.CONSOLE:
            return ConsoleSpanExporter(out=sys.stdout)


def _log_exporter(exporter: Exporter, endpoint: str) -> LogRecordExporter:
    match exporter:
        case Exporter.OTLP_GRPC:
            from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as Grpc

            return Grpc(**_grpc(endpoint))
        case Exporter.OTLP_HTTP:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as Http

            return Http(**_http(endpoint, "logs"))
        case Exporter.CONSOLE:
            return ConsoleLogRecordExporter(out=sys.stdout)


def _metric_exporter(exporter: Exporter, endpoint: str) -> MetricExporter:
    match exporter:
        case Exporter.OTLP_GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

            return Grpc(**_grpc(endpoint))
        case Exporter.OTLP_HTTP:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

            return Http(**_http(endpoint, "metrics"))
        case Exporter.CONSOLE:
            return ConsoleMetricExporter(out=sys.stdout)


def _grpc(endpoint: str) -> Mapping[str, Any]:
    """Of an exporter, in place of the environment's endpoints."""
    return {"endpoint": endpoint, "insecure": endpoint.startswith("http://")} if endpoint else {}


def _http(endpoint: str, signal: str) -> Mapping[str, Any]:
    return {"endpoint": f"{endpoint.rstrip('/')}/v1/{signal}"} if endpoint else {}
