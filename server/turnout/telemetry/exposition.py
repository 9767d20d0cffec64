"""Readings as Prometheus takes them: its text format, or OpenMetrics with exemplars; compressed for who wants that."""

from __future__ import annotations

import gzip
import threading
from bisect import bisect_left
from collections.abc import Callable
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

_KEPT_NS_MIN = 1_000_000_000  # whoever asks more often than that is given the same again
_KEPT_TIMES = 20  # as long as it took to make: pages take a twentieth of a core at most, however many models there are
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


class Exposition:
    """Makes pages, one at a time, all formats from one set of readings, and at most one of each a second, less often
    where they are large, however many ask. Any thread may call it. Two wait at most, so that other threads stay free.

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
        self._edition: _Edition | None = None

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
                return self._kept(key) or self._make(*key)
            finally:
                self._lock.release()
        finally:
            self._askers.release()

    def _kept(self, key: tuple[bool, bool]) -> Page | None:
        edition = self._edition
        return edition.pages.get(key) if edition is not None and self._clock_ns() < edition.until_ns else None

    def _make(self, extended: bool, compressed: bool) -> Page:
        edition = self._edition
        if edition is None or self._clock_ns() >= edition.until_ns:
            readings = self._collect()
            edition = _Edition(self._clock_ns())
            started_ns = edition.taken_ns
            edition.families.append(InfoMetricFamily("target", "What is measured.", self._about))
            edition.families.extend(self._family(reading) for reading in readings)
        else:
            started_ns = self._clock_ns()
        page = edition.page(extended, compressed)
        edition.making_ns += self._clock_ns() - started_ns
        self._edition = edition
        return page

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


class _Edition(Collector):
    """Pages of one set of readings.

    Attributes:
        pages: by whether they are OpenMetrics, and compressed.
        making_ns: what all of them took, without the readings: those wait for others.
    """

    def __init__(self, taken_ns: int) -> None:
        self.taken_ns = taken_ns
        self.families: list[Metric] = []
        self.pages: dict[tuple[bool, bool], Page] = {}
        self.making_ns = 0

    @property
    def until_ns(self) -> int:
        return self.taken_ns + max(_KEPT_NS_MIN, _KEPT_TIMES * self.making_ns)

    def collect(self) -> list[Metric]:
        """For prometheus_client."""
        return self.families

    def page(self, extended: bool, compressed: bool) -> Page:
        if (extended, compressed) not in self.pages:
            self.pages[extended, compressed] = self._make(extended, compressed)
        return self.pages[extended, compressed]

    def _make(self, extended: bool, compressed: bool) -> Page:
        if compressed:
            plain = self.page(extended, compressed=False)
            return Page(gzip.compress(plain.body, _GZIP_LEVEL), plain.content_type, compressed)
        if extended:
            body: bytes = openmetrics.generate_latest(self)  # type: ignore[no-untyped-call]
            return Page(body, openmetrics.CONTENT_TYPE_LATEST, compressed)
        return Page(generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4, compressed)


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
