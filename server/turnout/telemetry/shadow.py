"""Shadowing as metrics and events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

from turnout.core.pairs import Result
from turnout.core.records import Compared, ShadowReport, comparison_fields, qualified, summary_fields
from turnout.core.sampling import Export
from turnout.core.sketch import Sketch
from turnout.runtime.ports import EventLog, Severity
from turnout.runtime.shadow_account import MILLI, NANO
from turnout.runtime.shadows import Shadows
from turnout.telemetry import instruments as i
from turnout.telemetry import names
from turnout.telemetry.readings import Distribution, Reading, Value

Key = TypeVar("Key", bound=tuple[str, ...])
_FAILED = frozenset({Result.LIVE_ERROR, Result.SHADOW_ERROR, Result.BOTH_ERROR})


class ComparisonEvents:
    """The ComparisonSink port, as events: a comparison belongs to the trace of its live request."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def compared(self, told: Export[Compared]) -> None:
        result = told.record.divergence.result
        severity = Severity.WARN if result.bad else Severity.INFO
        if result in _FAILED:
            severity = Severity.ERROR
        trace = told.record.pair.copy.request.trace
        self._log.emit(names.COMPARISON_EVENT, severity, qualified(comparison_fields(told)), trace)

    def summarised(self, report: ShadowReport) -> None:
        self._log.emit(names.SUMMARY_EVENT, Severity.INFO, qualified(summary_fields(report)))


class ShadowReadings:
    """A source of readings."""

    def __init__(self, shadows: Shadows) -> None:
        self._shadows = shadows

    def __call__(self) -> Iterator[Reading]:
        account = self._shadows.account
        counts = [
            Value((model, live, shadow, kind.value, result.value), count)
            for (model, live, shadow, kind, result), count in account.comparisons.items()
        ]
        yield Reading(i.SHADOW_COMPARISONS, tuple(counts))
        drops = [Value((model, shadow, why.value), count) for (model, shadow, why), count in account.dropped.items()]
        yield Reading(i.SHADOW_DROPPED, tuple(drops))
        yield Reading(i.SHADOW_DISTANCE, _distributions(account.distances, account.distance_sums, NANO))
        yield Reading(i.SHADOW_DURATION, _distributions(account.durations, account.duration_sums_ns, NANO))
        yield Reading(i.SHADOW_RATIO, _distributions(account.ratios, account.ratio_sums, MILLI))
        # Two slots may hold the same revision: what has the same attributes is one value.
        queued: Counter[tuple[str, str]] = Counter()
        limits: Counter[tuple[str, str]] = Counter()
        for shadowing in self._shadows:
            queued[shadowing.key] += shadowing.queued
            limits[shadowing.key] += shadowing.rule.queue_max
        yield Reading(i.SHADOW_QUEUE_USAGE, tuple(Value(key, count) for key, count in queued.items()))
        yield Reading(i.SHADOW_QUEUE_LIMIT, tuple(Value(key, count) for key, count in limits.items()))


def _distributions(sketches: Mapping[Key, Sketch], sums: Mapping[Key, int], parts: int) -> tuple[Distribution, ...]:
    """Of sketches of one part in `parts`. Copies, because they are read on other threads."""
    return tuple(
        Distribution(key, Sketch(sketch.bins), sums[key] / parts, part=1 / parts) for key, sketch in sketches.items()
    )
