"""Shadowing as events and as metrics: names, severities and traces; and one value for what has the same attributes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from support.admin import served
from support.documented import PAGE, undocumented
from support.shadows import compared, confused, report, scores, side, told
from turnout.core.copies import Drop
from turnout.core.errors import Reason
from turnout.core.records import Compared
from turnout.core.tracing import TraceContext
from turnout.runtime.ports import Severity
from turnout.runtime.shadow_account import ShadowAccount
from turnout.telemetry import instruments as i
from turnout.telemetry.exposition import Exposition
from turnout.telemetry.instruments import INSTRUMENTS
from turnout.telemetry.readings import Distribution, Value
from turnout.telemetry.shadow import ComparisonEvents, ShadowReadings
from turnout.telemetry.sources import Sources

KEY = ("m", "m/2")


@dataclass
class Log:
    """The EventLog port."""

    events: list[tuple[str, Severity, Mapping[str, Any], TraceContext | None]] = field(default_factory=list)

    def emit(
        self, name: str, severity: Severity, attributes: Mapping[str, Any], trace: TraceContext | None = None
    ) -> None:
        self.events.append((name, severity, attributes, trace))


def failed(live: bool, shadow: bool) -> Compared:
    answer = scores([0.75, 0.25])
    sides = [
        side(slot, version, None, reason=Reason.EXECUTION_FAILED) if bad else side(slot, version, answer)
        for slot, version, bad in (("blue", 1, live), ("green", 2, shadow))
    ]
    return compared(*sides)


@pytest.mark.parametrize(
    ("record", "severity"),
    [
        (compared(side("blue", 1, scores([0.75, 0.25])), side("green", 2, scores([0.75, 0.25]))), Severity.INFO),
        (confused(), Severity.WARN),
        (compared(side("blue", 1, scores([0.5])), side("green", 2, {"p": np.zeros((1, 2))})), Severity.WARN),
        (failed(live=False, shadow=True), Severity.ERROR),
        (failed(live=True, shadow=False), Severity.ERROR),
        (failed(live=True, shadow=True), Severity.ERROR),
    ],
    ids=["match", "mismatch", "shape", "shadow", "live", "both"],
)
def test_a_pair_is_an_event_in_the_trace_of_its_live_request(record: Compared, severity: Severity) -> None:
    log, trace = Log(), TraceContext(5, 7)
    copy = replace(record.pair.copy, request=replace(record.pair.copy.request, trace=trace))
    ComparisonEvents(log).compared(told(replace(record, pair=replace(record.pair, copy=copy))))
    ((name, how, fields, where),) = log.events
    assert (name, how, where) == ("turnout.shadow.comparison", severity, trace)
    assert not undocumented(name, fields)
    assert ("error.type" in fields) == (severity is Severity.ERROR)


def test_a_summary_is_an_event_of_no_trace() -> None:
    log = Log()
    ComparisonEvents(log).summarised(report())
    ((name, severity, fields, trace),) = log.events
    assert (name, severity, trace) == ("turnout.shadow.summary", Severity.INFO, None)
    assert not undocumented(name, fields)


def shadowing(queued: int, queue_max: int) -> Any:
    return SimpleNamespace(key=KEY, queued=queued, rule=SimpleNamespace(queue_max=queue_max))


class Shadowings(list[Any]):
    account = ShadowAccount()


def test_what_is_counted_as_metrics() -> None:
    shadows = Shadowings()
    record = confused()
    shadows.account.compared(record.pair, record.divergence)
    shadows.account.drop(*KEY, Drop.QUEUE_FULL, 3)
    readings = {reading.instrument: reading.points for reading in ShadowReadings(shadows)()}  # type: ignore[arg-type]
    assert readings[i.SHADOW_COMPARISONS] == (Value(("m", "m/1", "m/2", "shadow", "mismatch"), 1),)
    assert readings[i.SHADOW_DROPPED] == (Value((*KEY, "queue_full"), 3),)
    (duration,) = readings[i.SHADOW_DURATION]
    assert isinstance(duration, Distribution)
    assert (duration.attributes, duration.total) == (KEY, pytest.approx(0.004))
    distances = {point.attributes[3]: point for point in readings[i.SHADOW_DISTANCE]}
    assert distances["max_abs"].total == pytest.approx(0.625)  # type: ignore[union-attr]


def test_two_slots_with_one_revision_are_one_value_of_their_queues() -> None:
    shadows = Shadowings([shadowing(2, 10), shadowing(3, 10)])
    readings = {reading.instrument: reading.points for reading in ShadowReadings(shadows)()}  # type: ignore[arg-type]
    assert readings[i.SHADOW_QUEUE_USAGE] == (Value(KEY, 5),)
    assert readings[i.SHADOW_QUEUE_LIMIT] == (Value(KEY, 20),)


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=1.0.0", "text/plain"])
async def test_no_series_comes_twice_where_two_slots_hold_one_revision(accept: str) -> None:
    async with served() as one:
        await one.load("red", 2)
        for slot in ("green", "red"):
            await one.shadow(slot, queue_max=10, noise_bp=10_000)
        await one.answer(range(1, 6))
        sources = Sources(one.admin, one.opener, lambda: "")
        sources.readings.add(ShadowReadings(one.shadows))
        for readings in (sources.readings, sources.triton):
            page = Exposition(readings.take, lambda: 0, lambda then_ns: then_ns, {}).page(accept, "").body.decode()
            series = Counter(
                (sample.name, *sorted(sample.labels.items())) for family in parse(page) for sample in family.samples
            )
            assert len(series) > 10
            assert [each for each, count in series.items() if count > 1] == []
            told = re.findall(r"^turnout_shadow_queue_limit\{.*\} (\d+)", page, re.MULTILINE)
            assert told == (["20"] if readings is sources.readings else [])


def test_the_page_has_every_metric_of_shadows() -> None:
    section = PAGE.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(turnout\.[^`]+)` \|", section, re.MULTILINE)
    assert named == [one.name for one in INSTRUMENTS if one.name.startswith("turnout.shadow.")]
