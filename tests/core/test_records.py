"""What is told of pairs and windows: the fields, against the page that documents them, and their values."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.documented import PAGE, documented, undocumented
from support.shadows import ARGMAX, compared, confused, report, scores, side, told
from turnout.core.comparators import Comparator, Method
from turnout.core.copies import Drop, PairKind
from turnout.core.errors import Reason
from turnout.core.pairs import Result
from turnout.core.records import Compared, comparison_fields, qualified, summary_fields
from turnout.core.references import Score
from turnout.core.sampling import Rule
from turnout.core.tensors import Tensors
from turnout.core.tracing import TraceContext

COMPARISON, SUMMARY = "turnout.shadow.comparison", "turnout.shadow.summary"
TYPES = {"string": str, "int": int, "double": float}
LIVE, SHADOW = scores([0.75, 0.25]), scores([0.125, 0.875])


def pair(shadow: Tensors | None = SHADOW, *asked: Comparator, live: Tensors | None = LIVE, **more: Any) -> Compared:
    sides = [
        side(slot, version, outputs, reason=None if outputs is not None else Reason.EXECUTION_FAILED)
        for slot, version, outputs in (("blue", 1, live), ("green", 2, shadow))
    ]
    return compared(*sides, *asked, **more)


PAIRS = {
    "argmax": pair(SHADOW, ARGMAX),
    "allclose": pair(SHADOW, Comparator("p", Method.ALLCLOSE)),
    "topk": pair(SHADOW, Comparator("p", Method.TOPK, k=1)),
    "cosine": pair(SHADOW, Comparator("p", Method.COSINE)),
    "js": pair(SHADOW, Comparator("p", Method.JS)),
    "exact": pair({"q": np.array([[2]])}, live={"q": np.array([[1]])}),
    "texts": pair({"q": np.array([[b"a"]], object)}, live={"q": np.array([[b"b"]], object)}),
    "same": pair(LIVE),
    "nan": pair(scores([float("nan"), 0.5])),
    "shape": pair(scores([0.5, 0.25, 0.25])),
    "missing": pair({}),
    "failed": pair(None),
    "live failed": pair(LIVE, live=None),
    "both failed": pair(None, live=None),
    "kept": replace(confused(), payload_ref="m-green-1"),
    "traced": replace(confused(), pair=replace(confused().pair, trace=TraceContext(5, 7))),
    "noise": pair(SHADOW, kind=PairKind.NOISE),
}


def types_of(event: str) -> dict[str, type]:
    rows = re.findall(r"^\| `([^`]+)` \| (string|int|double) \|", PAGE.read_text(), re.MULTILINE)
    known = {name: TYPES[kind] for name, kind in rows}
    return {name: known[name] for name in documented(event)}


@pytest.mark.parametrize("name", PAIRS)
def test_the_fields_of_a_pair_are_documented_in_their_order_and_with_their_types(name: str) -> None:
    fields = qualified(comparison_fields(told(PAIRS[name])))
    table = types_of(COMPARISON)
    assert not undocumented(COMPARISON, fields)
    assert list(fields) == [each for each in table if each in fields]
    assert {each for each, value in fields.items() if type(value) is not table[each]} == set()
    assert "" not in fields.values()


def test_there_is_no_documented_field_that_never_comes() -> None:
    come = {name for each in PAIRS.values() for name in qualified(comparison_fields(told(each)))}
    assert come == set(documented(COMPARISON))
    drops = dict.fromkeys(Drop, 1)
    come = set(qualified(summary_fields(report(dropped=drops))))
    assert {re.sub(r"\.dropped\..*", ".dropped.REASON", name).replace(".p.", ".OUTPUT.") for name in come} == set(
        documented(SUMMARY)
    )


def test_the_fields_of_a_summary_are_documented_with_their_types() -> None:
    fields = qualified(summary_fields(report(dropped=dict.fromkeys(Drop, 1))))
    assert not undocumented(SUMMARY, fields)
    table = types_of(SUMMARY)
    for name, value in fields.items():
        assert type(value) is table.get(name, float if name.endswith("log10_evidence") else int), name
    assert not undocumented(SUMMARY, qualified(summary_fields(report(pairs=0, scores=(), dropped={}))))


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("turnout.comparison.kind", PairKind),
        ("turnout.comparison.result", Result),
        ("turnout.comparison.method", Method),
        ("turnout.sampling.rule", Rule),
    ],
)
def test_every_value_of_a_field_is_documented(heading: str, values: Any) -> None:
    (row,) = re.findall(rf"^\| `{heading}` \|.*$", PAGE.read_text(), re.MULTILINE)
    assert {each.value for each in values} <= set(re.findall(r"`(\w+)`", row))


def test_every_reason_of_a_drop_is_documented() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE) == [reason.value for reason in Drop]


def test_a_pair_as_fields() -> None:
    assert comparison_fields(told(PAIRS["kept"], Rule.TOP_DISTANCE, 1.0)) == {
        "model.name": "m",
        "live.revision": "m/1",
        "shadow.revision": "m/2",
        "live.slot": "blue",
        "shadow.slot": "green",
        "route.generation": 7,
        "inference.id": "id",
        "comparison.kind": "shadow",
        "comparison.result": "mismatch",
        "comparison.method": "ARGMAX",
        "comparison.distance": 1.0,
        "output.name": "p",
        "output.index": 0,
        "mismatch.count": 1,
        "element.count": 1,
        "live.argmax": 0,
        "shadow.argmax": 1,
        "live.margin": 0.5,
        "live.batch.size": 8,
        "live.duration": 0.004,
        "live.queue.duration": 0.001,
        "shadow.batch.size": 8,
        "shadow.duration": 0.004,
        "shadow.queue.duration": 0.001,
        "request.digest": "0f" * 8,
        "payload.ref": "m-green-1",
        "sampling.probability": 1.0,
        "sampling.rule": "top_distance",
    }


@pytest.mark.parametrize(
    ("name", "result", "missing"),
    [("failed", "shadow_error", "shadow"), ("live failed", "live_error", "live"), ("both failed", "both_error", "")],
)
def test_a_side_that_failed_says_why_and_took_no_time(name: str, result: str, missing: str) -> None:
    fields = comparison_fields(told(PAIRS[name]))
    assert (fields["comparison.result"], fields["error.type"]) == (result, "execution_failed")
    assert not any(field.startswith((f"{missing}.batch", f"{missing}.duration")) for field in fields)
    assert not any(field.startswith(("output.", "comparison.distance")) for field in fields)


def test_a_wrong_shape_says_what_is_wrong_and_measures_nothing() -> None:
    fields = comparison_fields(told(PAIRS["shape"]))
    assert fields["comparison.message"] == "shape [1, 3], that of the live answer [1, 2]"
    assert not {"comparison.method", "comparison.distance", "live.argmax"} & set(fields)


def test_a_summary_as_fields() -> None:
    fields = summary_fields(report(pairs=2))
    assert (fields["pair.count"], fields["total.pair.count"], fields["noise.count"]) == (2, 2, 2)
    assert (fields["agreement.rate"], fields["noise.rate"], fields["verdict"]) == (0.0, 0.0, "INCONCLUSIVE")
    assert fields["total.distinct.count"] == 2
    assert fields["total.agreement.low"] == 0 < float(fields["total.agreement.high"]) < 1
    assert "agreement.low" not in fields, "of a window, nothing that holds at every moment is known"
    assert fields["duration.ratio.p50"] == pytest.approx(1.5, rel=0.05)
    assert (fields["queue.usage"], fields["dropped.deadline"]) == (5, 3)
    assert [fields[f"reference.p.{name}"] for name in ("both_right", "only_live", "only_shadow", "both_wrong")] == [
        4, 1, 2, 1,
    ]  # fmt: skip
    assert fields["reference.p.log10_evidence"] == Score(4, 1, 2, 1).log10_evidence


def test_a_summary_without_pairs_has_bounds_and_no_rate() -> None:
    fields = summary_fields(report(pairs=0, scores=(), dropped={}))
    assert (fields["total.agreement.low"], fields["total.agreement.high"]) == (0, 1)
    assert not {"agreement.rate", "noise.rate", "duration.ratio.p50"} & set(fields)
    assert not any(name.startswith(("dropped.", "reference.")) for name in fields)


def test_a_copy_that_is_traced_is_found_by_its_ids() -> None:
    fields = comparison_fields(told(PAIRS["traced"]))
    assert (fields["shadow.trace_id"], fields["shadow.span_id"]) == (f"{5:032x}", f"{7:016x}")


def test_without_rows_the_fields_are_the_same() -> None:
    record = confused()
    bare = record.without_rows()
    assert record.divergence.outputs[0].class_rows
    assert not bare.divergence.outputs[0].class_rows
    assert comparison_fields(told(bare)) == comparison_fields(told(record))


def test_without_tensors_the_fields_are_the_same() -> None:
    record = confused()
    bare = record.without_tensors()
    assert (bare.pair.copy.request.inputs, bare.pair.copy.live.outputs, bare.pair.shadow.outputs) == ({}, None, None)
    assert bare.pair.copy.bytes == 0
    assert comparison_fields(told(bare)) == comparison_fields(told(record))
