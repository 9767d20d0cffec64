"""Log lines and events as OpenTelemetry log records. Exporting happens on the SDK's own thread, behind its bounded
queue."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from turnout import __version__
from turnout.core.tracing import TraceContext
from turnout.runtime.ports import Severity
from turnout.telemetry import names

_LEVELS = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_SEVERITIES = {
    Severity.INFO: SeverityNumber.INFO,
    Severity.WARN: SeverityNumber.WARN,
    Severity.ERROR: SeverityNumber.ERROR,
}
_NOT_ATTRIBUTES = frozenset({"event", "level", "timestamp", "exc_info", "trace_id", "span_id"})


class Records:
    """The EventLog, and the taker of log lines. May be called on any thread."""

    def __init__(self, provider: LoggerProvider) -> None:
        self._logger = provider.get_logger(names.SCOPE, __version__, names.SCHEMA_URL)

    def emit(
        self,
        name: str,
        severity: Severity,
        attributes: Mapping[str, str | int | float | bool],
        trace: TraceContext | None = None,
    ) -> None:
        context = _context(trace.trace_id, trace.span_id, trace.sampled) if trace is not None else Context()
        number = _SEVERITIES[severity]
        with contextlib.suppress(Exception):  # a fault of the SDK's costs an event, and nothing that it is about
            self._logger.emit(
                timestamp=time.time_ns(),
                context=context,
                severity_number=number,
                severity_text=number.name,
                attributes=dict(attributes),
                event_name=name,
            )

    def write_line(self, level: str, fields: MutableMapping[str, Any]) -> None:
        number = _LEVELS.get(level, SeverityNumber.INFO)
        error = fields.get("exc_info")
        trace_id, span_id = fields.get("trace_id"), fields.get("span_id")
        context = _context(int(trace_id, 16), int(span_id, 16), True) if trace_id and span_id else Context()
        self._logger.emit(
            timestamp=time.time_ns(),
            context=context,
            severity_number=number,
            severity_text=number.name,
            body=str(fields.get("event", "")),
            attributes={name: _plain(value) for name, value in fields.items() if name not in _NOT_ATTRIBUTES},
            exception=error if isinstance(error, BaseException) else None,
        )


def _context(trace_id: int, span_id: int, sampled: bool) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, False, flags)), Context())


def _plain(value: object) -> str | int | float | bool | list[str]:
    if isinstance(value, (str, int, float, bool)):
        return value
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else str(value)
