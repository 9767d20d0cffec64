"""Readings as Prometheus takes them: its text format, or OpenMetrics with exemplars; compressed for who wants that."""

from __future__ import annotations

import gzip
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest, gzip_accepted
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from turnout.runtime.ports import ClockNs
from turnout.telemetry.instruments import Instrument, Kind
from turnout.telemetry.readings import Attributes, Distribution, Reading, Value

_KEPT_NS = 1_000_000_000  # whoever asks more often than that is given the same again
_ASKERS_MAX = 2  # of the threads that answer: the others are for probes
_WAIT_S_MAX = 5.0
_GZIP_LEVEL = 4
_OPENMETRICS = "application/openmetrics-text"  # with exemplars; who does not name it gets the older text format
_UNITS = {"s": "seconds", "By": "bytes"}


_Bucket: TypeAlias = tuple[str, float] | tuple[str, float, Exemplar]


@dataclass(frozen=True, slots=True)
class Page:
    """What one scrape is answered with."""

    body: bytes
    content_type: str
    compressed: bool


class Busy(Exception):
    """Others are being served."""


class Exposition(Collector):
    """Makes pages, one at a time and at most one a second of each format, however many ask. Any thread may call it.
    Two wait at most, so that other threads stay free.

    Args:
        collect: every reading as it is now; it may raise, as `page` then does.
        wall_ns: the time of day of a moment on the monotonic clock.
        about: of `target_info`: the service's name and version.
    """

    def __init__(
        self,
        collect: Callable[[], list[Reading]],
        clock_ns: ClockNs,
        wall_ns: Callable[[int], int],
        about: dict[str, str],
    ) -> None:
        self._collect = collect
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._about = about
        self._askers = threading.BoundedSemaphore(_ASKERS_MAX)
        self._lock = threading.Lock()
        self._pages: dict[tuple[bool, bool], tuple[int, Page]] = {}  # OpenMetrics or not, compressed or not

    def page(self, accept: str, accept_encoding: str) -> Page:
        """By the headers of the request. Raises what `collect` raises.

        Raises:
            Busy: two others wait for a page, or the one before was not ready in time.
        """
        key = (_OPENMETRICS in accept, gzip_accepted(accept_encoding))
        if (kept := self._kept(key)) is not None:
            return kept
        if not self._askers.acquire(blocking=False):
            raise Busy(f"{_ASKERS_MAX} scrapes are being answered; ask again in a moment")
        try:
            if not self._lock.acquire(timeout=_WAIT_S_MAX):
                raise Busy(f"another scrape has been under way for {_WAIT_S_MAX:g} s; ask again in a moment")
            try:
                if (kept := self._kept(key)) is None:
                    kept = self._make(*key)
                    self._pages[key] = (self._clock_ns(), kept)
                return kept
            finally:
                self._lock.release()
        finally:
            self._askers.release()

    def _kept(self, key: tuple[bool, bool]) -> Page | None:
        made_ns, page = self._pages.get(key, (0, None))
        return page if self._clock_ns() - made_ns < _KEPT_NS else None

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        yield InfoMetricFamily("target", "What is measured.", self._about)
        for reading in self._collect():
            yield self._family(reading)

    def _make(self, extended: bool, compressed: bool) -> Page:
        if extended:
            body: bytes = openmetrics.generate_latest(self)  # type: ignore[no-untyped-call]
            content_type = openmetrics.CONTENT_TYPE_LATEST
        else:
            body, content_type = generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4
        return Page(gzip.compress(body, _GZIP_LEVEL) if compressed else body, content_type, compressed)

    def _family(self, reading: Reading) -> Metric:
        instrument = reading.instrument
        family = _empty(instrument)
        for point in reading.points:
            match point:
                case Value() if not isinstance(family, HistogramMetricFamily):
                    family.add_metric(_labels(point.attributes), point.value)
                case Distribution() if isinstance(family, HistogramMetricFamily):
                    buckets = self._buckets(instrument, point)
                    family.add_metric(_labels(point.attributes), buckets, point.total)
                case _:
                    raise TypeError(f"'{instrument.name}' is a {instrument.kind.value}, and was read as {point}")
        return family

    def _buckets(self, instrument: Instrument, point: Distribution) -> list[_Bucket]:
        """Cumulative, with the last traced request of each."""
        exemplars: dict[int, Exemplar] = {}
        for each in sorted(point.exemplars, key=lambda exemplar: exemplar.ended_ns):
            value = each.duration_ns * point.part
            labels = dict(zip(("trace_id", "span_id"), each.trace.ids, strict=True))
            exemplars[bisect_left(instrument.bounds, value)] = Exemplar(
                labels, value, self._wall_ns(each.ended_ns) / 1e9
            )
        names = [*(repr(bound) for bound in instrument.bounds), "+Inf"]
        buckets: list[_Bucket] = []
        total = 0
        for number, (name, count) in enumerate(zip(names, point.buckets(instrument.bounds), strict=True)):
            total += count
            buckets.append((name, total, exemplars[number]) if number in exemplars else (name, total))
        return buckets


def _empty(
    instrument: Instrument,
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | UnknownMetricFamily:
    name, labels = instrument.prometheus, [label(attribute) for attribute in instrument.attributes]
    unit = "" if instrument.foreign else _UNITS.get(instrument.unit, "")
    match instrument.kind:
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(name, instrument.meaning, labels=labels, unit=unit)
        case Kind.GAUGE:
            return GaugeMetricFamily(name, instrument.meaning, labels=labels, unit=unit)
        case _ if instrument.foreign:  # a counter's name would have to end in `_total`
            return UnknownMetricFamily(name, instrument.meaning, labels=labels)
        case _:
            return CounterMetricFamily(name, instrument.meaning, labels=labels, unit=unit)


def label(attribute: str) -> str:
    """An attribute's name as OpenTelemetry's mapping to Prometheus has it."""
    return attribute.replace(".", "_")


def _labels(attributes: Attributes) -> list[str]:
    return [str(value).lower() if isinstance(value, bool) else value for value in attributes]
