"""Which variant a server takes by itself, what a report says in short, and how far golden samples may be missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.artefacts import synthetic_artefact
from support.reports import report
from turnout.core.comparators import Precision
from turnout.core.gates import Verdict, golden_difference
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Device
from turnout.core.offers import Hardware, agreement, choose, coarser, precision_of, size_ratio, summary
from turnout.core.parity import Kind, OutputParity
from turnout.core.variant_gates import golden_within_budget
from turnout.core.variants import Budget

PLAIN, VNNI, GPU = Hardware(False, False), Hardware(False, True), Hardware(True, True)
BASE = synthetic_artefact("m")


def variant(name: str, *doubts: str, problem: str = "") -> Artefact:
    return Artefact(Revision("m", 1, name, name), BASE.open, problem, report=report(), doubts=doubts)


INT8, FP16 = variant("int8"), variant("fp16")
BAD, BROKEN = variant("int8", "it is bad"), variant("int8-b", problem="it is broken")


@pytest.mark.parametrize(
    ("wanted", "hardware", "device", "variants", "taken", "words"),
    [
        ("none", GPU, Device.AUTO, [INT8, FP16], "", ""),
        ("auto", GPU, Device.AUTO, [INT8, FP16], "fp16", "m/1@fp16 (agreement 0.995, 3.75 times smaller)"),
        ("auto", VNNI, Device.AUTO, [INT8, FP16], "int8", "m/1@int8"),
        ("auto", GPU, Device.CPU, [INT8, FP16], "int8", "m/1@int8"),
        ("auto", VNNI, Device.GPU, [INT8, FP16], "fp16", "m/1@fp16"),
        ("auto", PLAIN, Device.AUTO, [INT8, FP16], "", "int8 on a processor with VNNI, which this is not"),
        ("auto", GPU, Device.AUTO, [INT8], "", "would take fp16 on a GPU"),
        ("auto", VNNI, Device.AUTO, [FP16], "", "would take int8 on this processor"),
        ("auto", VNNI, Device.AUTO, [], "", ""),
        ("auto", VNNI, Device.AUTO, [variant("int8-dynamic"), INT8], "int8", "m/1@int8 "),
        ("auto", VNNI, Device.AUTO, [BAD, variant("int8-dynamic")], "int8-dynamic", ""),
        ("auto", VNNI, Device.AUTO, [BAD, BROKEN], "", "its own file is used, int8: it is bad; int8-b: it is broken"),
        ("int8", PLAIN, Device.AUTO, [INT8, FP16], "int8", "--variant int8: m/1@int8"),
        ("int8", PLAIN, Device.AUTO, [BAD], "", "--variant int8: its own file is used, int8: it is bad"),
        ("int4", PLAIN, Device.AUTO, [INT8], "", "--variant int4: m/1 has no such variant"),
    ],
)  # fmt: skip
def test_what_is_taken_and_why(
    wanted: str, hardware: Hardware, device: Device, variants: list[Artefact], taken: str, words: str
) -> None:
    found, note = choose(wanted, hardware, device, BASE, variants)
    assert found.revision.variant == taken
    assert (words in note) if words else (note == "" or taken)


def test_a_report_in_short() -> None:
    scores = OutputParity("p", Kind.SCORES, 9, top1_agreement=0.9)
    labels = OutputParity("l", Kind.LABELS, 9, agreement=0.8)
    assert agreement(report(scores, labels)) == 0.8
    assert agreement(report(OutputParity("v", Kind.VALUES, 9))) is None
    assert size_ratio(report(result_bytes=0)) is None
    assert summary(variant("x")) == "agreement 0.995, 3.75 times smaller"
    assert summary(BASE) == "no report"
    nothing = report(OutputParity("v", Kind.VALUES, 9), result_bytes=0)
    assert summary(Artefact(Revision("m", 1, "x", "x"), BASE.open, report=nothing)) == "a report without figures"


@pytest.mark.parametrize(
    ("name", "method", "precision"),
    [
        ("", None, Precision.SINGLE),
        ("fp16", None, Precision.HALF),
        ("bf16-mixed", None, Precision.HALF),
        ("fast", "float16", Precision.HALF),
        ("fast", "dynamic", Precision.QUANTIZED),
        ("int8", None, Precision.QUANTIZED),
        ("int4-weights", None, Precision.QUANTIZED),
        ("small", None, Precision.QUANTIZED),
    ],
)
def test_how_coarse_a_revision_is(name: str, method: str | None, precision: Precision) -> None:
    assert precision_of(name, report(recipe={"method": method}) if method else None) is precision


def test_of_two_the_coarser_counts() -> None:
    assert coarser(Precision.SINGLE, Precision.QUANTIZED) is Precision.QUANTIZED
    assert coarser(Precision.HALF, Precision.SINGLE) is Precision.HALF


def scores(rows: int, wrong: int) -> dict[str, Any]:
    array = np.tile(np.array([[1.0, 0.0]], "f4"), (rows, 1))
    array[:wrong] = [0.0, 1.0]
    return {"y": array}


@pytest.mark.parametrize(
    ("rows", "wrong", "least", "verdict"),
    [
        (8, 1, 0.99, Verdict.PASS),  # of so few no share can be told
        (8, 2, 0.99, Verdict.FAIL),
        (200, 2, 0.99, Verdict.PASS),
        (200, 3, 0.99, Verdict.FAIL),
        (8, 1, 1.0, Verdict.FAIL),
    ],
)
def test_golden_classes_may_be_missed_by_the_budget(rows: int, wrong: int, least: float, verdict: Verdict) -> None:
    found = golden_within_budget(scores(rows, 0), scores(rows, wrong), report(budget=Budget(least, 0.1)))
    assert found.verdict is verdict
    assert (f"another class in {wrong} of {rows} rows" in found.message) == (verdict is Verdict.FAIL)


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        ([1.0, 2.0], [1.0, 2.05], ""),
        ([1.0, 2.0], [1.0, 2.5], "differs by 0.25 of its largest element"),
        ([1.0, 2.0], [1.0, np.nan], "1 elements are not finite and not the same"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "has shape"),
        ([1, 2], [1, 2], ""),
        ([1, 2, 3, 4], [1, 5, 6, 4], "differs in 2 of 4 elements"),
    ],
)
def test_other_golden_outputs(expected: list[Any], actual: list[Any], words: str) -> None:
    sides = [{"y": np.array(side, "f4" if isinstance(side[0], float) else "i8")} for side in (expected, actual)]
    found = golden_within_budget(*sides, None)
    assert (found.verdict is Verdict.PASS) == (not words) and words in found.message


def test_golden_outputs_of_another_shape_are_as_good_as_for_the_version() -> None:
    golden, given = {"y": np.array([1.0, 2.0], "f4")}, {"y": np.array([[1.0], [2.0]], "f4")}
    assert golden_difference(golden, given, None).verdict is Verdict.PASS
    assert golden_within_budget(golden, given, None).verdict is Verdict.PASS
    found = golden_within_budget(golden, {}, None)
    assert (found.verdict, found.message) == (Verdict.FAIL, "the variant has no output 'y'")


def test_the_report_says_what_an_output_is_taken_for_and_the_worst_is_told() -> None:
    embedding = OutputParity("e", Kind.VALUES, 1, error_relative_max=0.0)
    near = {"e": np.array([[1.0, 0.99]], "f4"), "l": np.array([1], "i8")}
    there = {"e": np.array([[0.99, 1.0]], "f4"), "l": np.array([1], "i8")}
    found = golden_within_budget(near, there, report(embedding))
    assert found.verdict is Verdict.PASS and found.observed == pytest.approx(0.01)
    unmeasured = golden_within_budget({"y": np.zeros((0, 2), "f4")}, {"y": np.zeros((0, 2), "f4")}, None)
    assert unmeasured.verdict is Verdict.PASS
