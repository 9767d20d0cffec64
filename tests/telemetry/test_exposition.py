"""Pages for Prometheus, as its own client library parses them."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from turnout.core.sketch import Sketch
from turnout.core.tracing import TraceContext
from turnout.runtime.account import Exemplar
from turnout.telemetry import instruments as i
from turnout.telemetry.exposition import Exposition
from turnout.telemetry.instruments import INSTRUMENTS, Kind
from turnout.telemetry.readings import Distribution, Reading, Value, sketched
from turnout.telemetry.triton import SUCCESS, TRITON_INSTRUMENTS

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
LABELS = ("m", "blue", "m/1", "success", True)
S = 10**9


class Source:
    """Readings that a test chooses, and a clock."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings)
        self.asked = 0
        self.now_ns = 100 * S
        about = {"service_name": "turnout", "service_version": "1"}
        self.reading_ns = 0
        self.making_ns = 0  # for each exemplar
        self.exposition = Exposition(self.collect, lambda: self.now_ns, self.wall_ns, about)

    def wall_ns(self, then_ns: int) -> int:
        self.now_ns += self.making_ns
        return 1000 * S + then_ns

    def collect(self) -> list[Reading]:
        self.asked += 1
        self.now_ns += self.reading_ns
        return self.readings

    def families(self, accept: str = OPENMETRICS) -> dict[str, Any]:
        page = self.exposition.page(accept, "")
        parse = parse_openmetrics if "openmetrics" in page.content_type else parse_text
        return {family.name: family for family in parse(page.body.decode())}


def sample(family: Any, suffix: str, **labels: str) -> Any:
    (found,) = [s for s in family.samples if s.name == family.name + suffix and labels.items() <= s.labels.items()]
    return found


def everything() -> Source:
    readings = []
    for instrument in (*INSTRUMENTS, *TRITON_INSTRUMENTS):
        attributes = tuple(f"a{n}" for n in range(len(instrument.attributes)))
        if instrument.kind is Kind.HISTOGRAM:
            point: Any = Distribution(attributes, ((instrument.bounds[0], 2), (1e9, 1)), 1e9)
        else:
            point = Value(attributes, 5)
        readings.append(Reading(instrument, (point,)))
    return Source(*readings)


@pytest.mark.parametrize("accept", [OPENMETRICS, "text/plain", ""])
def test_every_instrument_has_its_documented_name_unit_and_labels(accept: str) -> None:
    families = everything().families(accept)
    assert "target" in families or "target_info" in families
    for instrument in (*INSTRUMENTS, *TRITON_INSTRUMENTS):
        name = instrument.prometheus
        family = families[name.removesuffix("_total")] if instrument.kind is Kind.COUNTER else families[name]
        assert family.documentation == instrument.meaning
        if accept == OPENMETRICS and not instrument.foreign:
            assert family.unit == {"s": "seconds", "By": "bytes"}.get(instrument.unit, "")
        labels = {attribute.replace(".", "_") for attribute in instrument.attributes}
        for each in family.samples:
            assert set(each.labels) - {"le"} == labels
        if instrument.kind is Kind.HISTOGRAM:
            buckets = [(s.labels["le"], s.value) for s in family.samples if s.name == name + "_bucket"]
            assert [float(bound) for bound, _ in buckets] == [*instrument.bounds, float("inf")]
            assert [count for _, count in buckets] == [2] * len(instrument.bounds) + [3]
            assert sample(family, "_sum").value == 1e9
        else:
            assert [(each.name, each.value) for each in family.samples] == [(name, 5)]
    assert len(families) == len(INSTRUMENTS) + len(TRITON_INSTRUMENTS) + 1


def test_text_of_clients_cannot_break_a_line() -> None:
    hostile = 'm"\n# EOF\\'
    families = Source(Reading(SUCCESS, (Value((hostile, "1"), 1),))).families()
    assert families[SUCCESS.name].samples[0].labels == {"model": hostile, "version": "1"}


def exemplars(*each: tuple[int, int, int]) -> tuple[Exemplar, ...]:
    return tuple(Exemplar(ns, TraceContext(trace, 7), at) for ns, trace, at in each)


def test_exemplars_stand_at_the_bucket_of_their_value() -> None:
    sketch = Sketch()
    for ns in (2 * S, 300_000, 400_000):
        sketch.observe(ns)
    kept = exemplars((2 * S, 1, 3 * S), (400_000, 2, 5 * S), (300_000, 3, 4 * S))
    source = Source(Reading(i.REQUEST_DURATION, (sketched(LABELS, sketch, 2 * S + 700_000, kept),)))
    family = source.families()["turnout_request_duration_seconds"]
    slow, quick = sample(family, "_bucket", le="2.5"), sample(family, "_bucket", le="0.0005")
    assert slow.exemplar.labels == {"trace_id": f"{1:032x}", "span_id": f"{7:016x}"}
    assert (slow.exemplar.value, float(slow.exemplar.timestamp)) == (2.0, 1003.0)
    assert quick.exemplar.labels["trace_id"] == f"{2:032x}", "the later of two in one bucket"
    assert [s.exemplar for s in family.samples if s.exemplar is not None] == [quick.exemplar, slow.exemplar]
    assert sample(family, "_bucket", le="+Inf").labels["turnout_pinned"] == "true"
    text = source.families("text/plain")["turnout_request_duration_seconds"]
    assert all(each.exemplar is None for each in text.samples)


def test_whoever_asks_often_gets_the_same_page_for_a_second() -> None:
    source = Source(Reading(i.SERVER_READY, (Value((), 1),)))
    first = source.exposition.page(OPENMETRICS, "")
    source.readings = [Reading(i.SERVER_READY, (Value((), 0),))]
    assert source.exposition.page(OPENMETRICS, "identity") is first
    assert source.asked == 1
    for accept, encoding in ((OPENMETRICS, "gzip"), ("text/plain", ""), ("text/plain", "gzip")):
        page = source.exposition.page(accept, encoding)
        body = gzip.decompress(page.body) if page.compressed else page.body
        assert b"turnout_server_ready 1.0" in body, "another format is another page of the same readings"
    assert source.asked == 1
    source.now_ns += S
    assert b"turnout_server_ready 0.0" in source.exposition.page(OPENMETRICS, "").body


def test_a_page_that_took_long_is_kept_longer() -> None:
    sketch = Sketch()
    sketch.observe(300_000)
    source = Source(Reading(i.REQUEST_DURATION, (sketched(LABELS, sketch, 300_000, exemplars((300_000, 1, 0))),)))
    source.making_ns = S // 5
    assert source.families()
    source.making_ns = 0
    source.now_ns += 3 * S
    assert source.families()
    assert source.families("text/plain")
    assert source.asked == 1
    source.now_ns += S
    assert source.families("text/plain")
    assert source.asked == 2


def test_what_takes_long_to_read_is_kept_no_longer() -> None:
    source = Source(Reading(i.SERVER_READY, (Value((), 1),)))
    source.reading_ns = 5 * S
    assert source.families()
    source.now_ns += S
    assert source.families()
    assert source.asked == 2


def test_pages_are_compressed_for_who_says_so() -> None:
    source = everything()
    plain, packed = (source.exposition.page(OPENMETRICS, accept) for accept in ("", "gzip, deflate"))
    assert (plain.compressed, packed.compressed) == (False, True)
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 4


def test_a_reading_of_the_wrong_kind_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match=r"turnout\.loop\.lag"):
        Source(Reading(i.LOOP_LAG, (Value((), 1),))).exposition.page("", "")


def test_what_cannot_be_read_is_no_page_and_is_tried_again() -> None:
    source = Source()
    source.readings = None  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(TypeError):
            source.exposition.page("", "")
    assert source.asked == 2
