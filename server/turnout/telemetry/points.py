"""Readings as OpenTelemetry metric data: sums and histograms, cumulative or as what came since the last time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Buckets as ExponentialBuckets
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from turnout import __version__
from turnout.telemetry import names
from turnout.telemetry.instruments import Instrument, Kind
from turnout.telemetry.readings import Distribution, Reading, Value, time_of_day_ns

Bins: TypeAlias = dict[int, int]  # counts by the number of the bucket
_Key: TypeAlias = tuple[str, tuple[object, ...]]
Data: TypeAlias = Sum | Gauge | Histogram | ExponentialHistogram

_SCALE = 3  # buckets a factor of 2 ** (1 / 8) apart, about as fine as what is counted
_BUCKETS_MAX = 160  # OpenTelemetry's own default
_SCALE_MIN = -10
_ZERO = -(1 << 20)  # the bucket of zeros, which no number falls into


@dataclass(frozen=True, slots=True)
class Form:
    """How counts are written.

    Attributes:
        delta: what came since the last time, not since the start.
        exponential: histograms with exponential buckets, not with the instruments' own.
    """

    delta: bool = False
    exponential: bool = False


@dataclass(slots=True)
class _Series:
    """What one set of attributes showed the last time, and since when it has been counted."""

    since_ns: int
    value: float = 0.0
    total: float = 0.0
    bins: Bins | None = None


class Points:
    """Used on one thread."""

    def __init__(self, resource: Resource, form: Form, started_ns: int) -> None:
        self._resource = resource
        self._scope = InstrumentationScope(names.SCOPE, __version__, names.SCHEMA_URL)
        self._form = form
        self._temporality = AggregationTemporality.DELTA if form.delta else AggregationTemporality.CUMULATIVE
        self._started_ns = started_ns
        self._before_ns = started_ns
        self._series: dict[_Key, _Series] = {}
        self._last: dict[_Key, _Series] = {}

    def make(self, readings: Iterable[Reading], now_ns: int) -> MetricsData:
        """Everything that was read at `now_ns`, the time of day."""
        self._last, self._series = self._series, {}  # what is read no more is forgotten
        metrics = [
            Metric(
                reading.instrument.name,
                reading.instrument.meaning,
                reading.instrument.unit,
                self._data(reading, now_ns),
            )
            for reading in readings
            if reading.points
        ]
        self._before_ns = now_ns
        scope = ScopeMetrics(self._scope, metrics, names.SCHEMA_URL)
        return MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])

    def _data(self, reading: Reading, now_ns: int) -> Data:
        instrument = reading.instrument
        values = [point for point in reading.points if isinstance(point, Value)]
        if instrument.kind is Kind.GAUGE:
            return Gauge([NumberDataPoint(_named(instrument, p.attributes), 0, now_ns, p.value) for p in values])
        if instrument.kind is Kind.COUNTER:
            return Sum([self._number(instrument, point, now_ns) for point in values], self._temporality, True)
        found = [point for point in reading.points if isinstance(point, Distribution)]
        if self._form.exponential:
            exponential = [self._exponential(instrument, point, now_ns) for point in found]
            return ExponentialHistogram(exponential, self._temporality)
        return Histogram([self._histogram(instrument, p, now_ns) for p in found], self._temporality)

    def _number(
        self,
        instrument: Instrument,
        point: Value,
        now_ns: int,
    ) -> NumberDataPoint:
        key = (instrument.name, point.attributes)
        last = self._last.get(key) or _Series(self._started_ns)
        restarted = point.value < last.value
        since_ns = self._before_ns if restarted else last.since_ns
        self._series[key] = _Series(since_ns, point.value)
        if self._form.delta:
            value = point.value if restarted else point.value - last.value
            return NumberDataPoint(_named(instrument, point.attributes), self._before_ns, now_ns, value)
        return NumberDataPoint(_named(instrument, point.attributes), since_ns, now_ns, point.value)

    def _counted(
        self,
        instrument: Instrument,
        point: Distribution,
        bins: Bins,
    ) -> tuple[int, Bins, float]:
        """Since when, the counts by bucket, and the sum: as they are to be written."""
        key = (instrument.name, point.attributes)
        last = self._last.get(key) or _Series(self._started_ns, bins={})
        old = last.bins or {}
        restarted = any(count > bins.get(bucket, 0) for bucket, count in old.items())
        since_ns = self._before_ns if restarted else last.since_ns
        self._series[key] = _Series(since_ns, total=point.total, bins=bins)
        if not self._form.delta:
            return since_ns, bins, point.total
        if restarted:
            return self._before_ns, bins, point.total
        came = {bucket: more for bucket, count in bins.items() if (more := count - old.get(bucket, 0))}
        return self._before_ns, came, point.total - last.total

    def _histogram(
        self,
        instrument: Instrument,
        point: Distribution,
        now_ns: int,
    ) -> HistogramDataPoint:
        bins = {bucket: n for bucket, n in enumerate(point.buckets(instrument.bounds)) if n}
        since_ns, bins, total = self._counted(instrument, point, bins)
        counts = [bins.get(bucket, 0) for bucket in range(len(instrument.bounds) + 1)]
        attributes = _named(instrument, point.attributes)
        # No least and no greatest value: what was counted knows them only as closely as its bins are wide.
        return HistogramDataPoint(
            attributes,
            since_ns,
            now_ns,
            sum(counts),
            total,
            counts,
            instrument.bounds,
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            self._exemplars(point),
        )

    def _exemplars(self, point: Distribution) -> list[Exemplar]:
        """The last traced request of each bucket; where only what came is told, of what came."""
        after_ns = self._before_ns if self._form.delta else 0
        return [
            Exemplar({}, each.duration_ns * point.part, ended_ns, each.trace.span_id, each.trace.trace_id)
            for each in point.exemplars
            if (ended_ns := time_of_day_ns(each.ended_ns)) >= after_ns
        ]

    def _exponential(
        self,
        instrument: Instrument,
        point: Distribution,
        now_ns: int,
    ) -> ExponentialHistogramDataPoint:
        fine: Bins = {}
        zeros = 0
        for value, count in point.counts:
            if value > 0:
                bucket = math.ceil(math.log2(value) * 2**_SCALE) - 1
                fine[bucket] = fine.get(bucket, 0) + count
            else:
                zeros += count
        since_ns, bins, total = self._counted(instrument, point, {**fine, _ZERO: zeros} if zeros else fine)
        zeros = bins.get(_ZERO, 0)
        scale, offset, counts = _fitted({bucket: n for bucket, n in bins.items() if bucket != _ZERO})
        return ExponentialHistogramDataPoint(
            _named(instrument, point.attributes),
            since_ns,
            now_ns,
            sum(counts) + zeros,
            total,
            scale,
            zeros,
            ExponentialBuckets(offset, counts),
            ExponentialBuckets(0, []),
            0,
            None,  # type: ignore[arg-type]  # as above
            None,  # type: ignore[arg-type]
        )


def _fitted(bins: Bins) -> tuple[int, int, Sequence[int]]:
    """Scale, first bucket and counts, with pairs of buckets joined until there are few enough of them."""
    if not bins:
        return _SCALE, 0, []
    scale = _SCALE
    while max(bins) - min(bins) >= _BUCKETS_MAX and scale > _SCALE_MIN:
        joined: Bins = {}
        for bucket, count in bins.items():
            joined[bucket >> 1] = joined.get(bucket >> 1, 0) + count
        bins, scale = joined, scale - 1
    first = min(bins)
    return scale, first, [bins.get(bucket, 0) for bucket in range(first, max(bins) + 1)]


def _named(instrument: Instrument, attributes: tuple[str | bool, ...]) -> dict[str, str | bool]:
    """An attribute without a value is none."""
    return {name: value for name, value in zip(instrument.attributes, attributes, strict=True) if value != ""}
