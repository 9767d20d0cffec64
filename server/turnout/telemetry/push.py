"""Sends metrics at intervals, on a thread of its own. Readings are taken on the loop thread, where counters are
written; all that takes time happens here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource

from turnout.telemetry.masking import Mask
from turnout.telemetry.pipeline import Take
from turnout.telemetry.points import Form, Points
from turnout.telemetry.readings import Reading

_TAKE_S_MAX = 5.0  # a loop that is stuck for so long has no new counts to tell


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often, how long at most, and in which form."""

    interval_s: float = 60.0
    timeout_s: float = 30.0
    form: Form = field(default_factory=Form)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Schedule:
        """Raises:
        ValueError: a variable is no positive number of milliseconds.
        """
        prefix = "OTEL_EXPORTER_OTLP_METRICS_"
        preference = environment.get(prefix + "TEMPORALITY_PREFERENCE", "").strip().lower()
        aggregation = environment.get(prefix + "DEFAULT_HISTOGRAM_AGGREGATION", "").strip().lower()
        return cls(
            _seconds(environment, "OTEL_METRIC_EXPORT_INTERVAL", 60.0),
            _seconds(environment, "OTEL_METRIC_EXPORT_TIMEOUT", 30.0),
            Form(preference in ("delta", "lowmemory"), aggregation == "base2_exponential_bucket_histogram"),
        )


class Pusher:
    """`start` once, on the loop thread; `shutdown` once, on any other."""

    def __init__(
        self,
        exporters: Sequence[MetricExporter],
        resource: Resource,
        schedule: Schedule,
        time_ns: Callable[[], int],
        mask: Mask = str,
    ) -> None:
        self._exporters = exporters
        self._schedule = schedule
        self._time_ns = time_ns
        self._mask = mask
        self._points = Points(resource, schedule.form, time_ns())
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = structlog.get_logger()

    def start(self, take: Take, take_slow: Take) -> None:
        """`take` is asked on the loop thread, `take_slow` on the pusher's own."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(take, take_slow, loop), name="metrics", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Send what has come since the last time; blocks, as long as an exporter does."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for exporter in self._exporters:
            exporter.shutdown()

    def _run(self, take: Take, take_slow: Take, loop: asyncio.AbstractEventLoop) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(self._schedule.interval_s)
            try:
                data = self._points.make([*_taken(take, loop), *take_slow()], self._time_ns())
                for exporter in self._exporters:
                    exporter.export(data, timeout_millis=self._schedule.timeout_s * 1000)
            except Exception as error:  # noqa: BLE001 - the next time may be better
                self._log.warning("metrics were not sent", error=self._mask(repr(error)), export=False)


def _taken(take: Take, loop: asyncio.AbstractEventLoop) -> Sequence[Reading]:
    future: Future[Sequence[Reading]] = Future()

    def read() -> None:
        try:
            future.set_result(take())
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            future.set_exception(error)

    loop.call_soon_threadsafe(read)
    return future.result(_TAKE_S_MAX)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "").strip()
    try:
        seconds = float(text) / 1000 if text else default
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{name} = '{text[:64]}' is no positive number of milliseconds")
    return seconds
