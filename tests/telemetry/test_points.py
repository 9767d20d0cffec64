"""Readings as metric data: cumulative and delta, restarts, both kinds of histogram."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.resources import Resource

from turnout.core.tracing import TraceContext
from turnout.runtime.account import Exemplar
from turnout.telemetry.instruments import BATCH_SIZE, QUEUE_DEPTH, REQUEST_ROWS, RPC_DURATION
from turnout.telemetry.points import Form, Points
from turnout.telemetry.push import Schedule
from turnout.telemetry.readings import Distribution, Reading, Value

KEY = ("m", "blue", "m/1")
NAMED = {"turnout.model.name": "m", "turnout.slot": "blue", "turnout.revision": "m/1"}


def points(**form: bool) -> Points:
    return Points(Resource.get_empty(), Form(**form), 100)


def made(points: Points, reading: Reading, now_ns: int) -> Any:
    [resource] = points.make([reading], now_ns).resource_metrics
    [scope] = resource.scope_metrics
    [metric] = scope.metrics
    assert (metric.name, metric.unit) == (reading.instrument.name, reading.instrument.unit)
    return metric.data


def rows(value: float) -> Reading:
    return Reading(REQUEST_ROWS, (Value(KEY, value),))


def sizes(*counts: tuple[float, int]) -> Reading:
    return Reading(BATCH_SIZE, (Distribution(KEY, counts, sum(size * count for size, count in counts)),))


def test_a_gauge_is_what_it_is() -> None:
    [point] = made(points(delta=True), Reading(QUEUE_DEPTH, (Value(KEY, 3),)), 200).data_points
    assert (point.value, point.time_unix_nano, point.attributes) == (3, 200, NAMED)


def test_a_counter_counts_from_the_start() -> None:
    told = points()
    found = [made(told, rows(value), at).data_points[0] for value, at in ((5, 200), (9, 300), (2, 400), (3, 500))]
    assert [(p.value, p.start_time_unix_nano, p.time_unix_nano) for p in found] == [
        (5, 100, 200),
        (9, 100, 300),
        (2, 300, 400),  # it began anew some time after 300
        (3, 300, 500),
    ]


def test_a_counter_can_tell_what_came_since() -> None:
    told = points(delta=True)
    data = [made(told, rows(value), at) for value, at in ((5, 200), (9, 300), (2, 400))]
    assert all(one.aggregation_temporality is AggregationTemporality.DELTA and one.is_monotonic for one in data)
    assert [(p.value, p.start_time_unix_nano) for one in data for p in one.data_points] == [
        (5, 100),
        (4, 200),
        (2, 300),
    ]


def test_a_histogram_falls_into_its_instruments_buckets() -> None:
    told = points()
    [point] = made(told, sizes((1.0, 4), (3.0, 2), (4.0, 1), (300.0, 1)), 200).data_points
    assert point.bucket_counts == [4, 0, 3, 0, 0, 0, 0, 0, 0, 1]
    assert (point.count, point.sum, point.explicit_bounds) == (8, 314, BATCH_SIZE.bounds)


@pytest.mark.parametrize("exponential", [False, True])
def test_a_histogram_can_tell_what_came_since(exponential: bool) -> None:
    told = points(delta=True, exponential=exponential)
    readings = [sizes((1.0, 4)), sizes((1.0, 4), (8.0, 2)), sizes((1.0, 1))]
    found = [made(told, one, 200 + at).data_points[0] for at, one in enumerate(readings)]
    assert [(point.count, point.sum) for point in found] == [(4, 4.0), (2, 16.0), (1, 1.0)]


def test_what_is_read_no_more_is_forgotten() -> None:
    told = points(delta=True)
    made(told, rows(5), 200)
    made(told, Reading(QUEUE_DEPTH, (Value(KEY, 3),)), 300)
    assert made(told, rows(6), 400).data_points[0].value == 6


def test_nothing_that_was_not_read_is_told() -> None:
    [resource] = points().make([Reading(REQUEST_ROWS, ())], 200).resource_metrics
    assert not resource.scope_metrics[0].metrics


@given(st.dictionaries(st.floats(1e-9, 1e9) | st.just(0.0), st.integers(1, 100), min_size=1, max_size=50))
def test_exponential_buckets_hold_what_fell_into_them(values: dict[float, int]) -> None:
    counts = tuple(sorted(values.items()))
    reading = Reading(BATCH_SIZE, (Distribution(KEY, counts, 1.0),))
    [point] = made(points(exponential=True), reading, 200).data_points
    assert len(point.positive.bucket_counts) <= 160
    assert point.count == sum(values.values()) and point.zero_count == values.get(0.0, 0)
    base = 2 ** (2**-point.scale)
    expected: dict[int, int] = {}
    for value, count in counts:
        if value:
            bucket = next(
                index
                for index in itertools.count(math.floor(math.log(value, base)) - 2)
                if base**index * (1 - 1e-12) < value <= base ** (index + 1) * (1 + 1e-12)
            )
            expected[bucket] = expected.get(bucket, 0) + count
    found = {point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n}
    # A value on an edge may be on either side of it, as far as doubles can tell.
    assert sum(found.values()) == sum(expected.values())
    assert all(any(abs(bucket - other) <= 1 for other in expected) for bucket in found)


def test_the_schedule_of_the_environment() -> None:
    assert Schedule.of({}) == Schedule(60.0, 30.0, Form())
    read = Schedule.of(
        {
            "OTEL_METRIC_EXPORT_INTERVAL": "250",
            "OTEL_METRIC_EXPORT_TIMEOUT": "1000",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
        }
    )
    assert read == Schedule(0.25, 1.0, Form(True, True))


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1e300"])
def test_an_interval_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="OTEL_METRIC_EXPORT_INTERVAL"):
        Schedule.of({"OTEL_METRIC_EXPORT_INTERVAL": text})


@pytest.mark.parametrize(("delta", "told"), [(False, [1, 2]), (True, [2])])
def test_exemplars_of_what_is_told(delta: bool, told: list[int]) -> None:
    now_ns = time.monotonic_ns()
    before, after = (Exemplar(2 * 10**9, TraceContext(n, n + 5), now_ns + n * 10**9) for n in (1, 2))
    reading = Reading(RPC_DURATION, (Distribution(("grpc", "M", "OK", ""), ((2.0, 2),), 4.0, (before, after)),))
    points = Points(Resource.get_empty(), Form(delta=delta), time.time_ns() + 1_500_000_000)
    [point] = made(points, reading, time.time_ns() + 3 * 10**9).data_points
    assert [(e.trace_id, e.span_id, e.value) for e in point.exemplars] == [(n, n + 5, 2.0) for n in told]
    assert abs(point.exemplars[-1].time_unix_nano - time.time_ns() - 2 * 10**9) < 10**9
    assert point.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "M",
        "rpc.response.status_code": "OK",
    }, "an attribute without a value is none"
