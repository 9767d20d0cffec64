"""W3C trace context for calls: the hook that data clients take as `trace_headers`, on top of OpenTelemetry's API."""

from __future__ import annotations

from collections.abc import Mapping


def opentelemetry_headers() -> Mapping[str, str]:
    """`traceparent` and `tracestate` of the current span, by the propagator that the program has set. The package
    opentelemetry-api is the program's, not this one's."""
    from opentelemetry.propagate import inject

    headers: dict[str, str] = {}
    inject(headers)
    return headers
