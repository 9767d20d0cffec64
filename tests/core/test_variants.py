"""Variants: names, reports as JSON and back, what is over a budget, and what does not stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.parity import Accuracy, Kind, OutputParity
from turnout.core.variants import (
    Budget,
    Samples,
    VariantReport,
    failures,
    is_variant,
    report_file,
    stands,
    variant_file,
)

SCORES = OutputParity(
    "scores",
    Kind.SCORES,
    100,
    error_max=0.1,
    error_mean=0.01,
    error_p50=0.0,
    error_p90=0.02,
    error_p99=0.05,
    error_relative_max=0.1,
    top1_agreement=0.99,
    topk=5,
    topk_agreement=0.97,
)
LABELS = OutputParity("label", Kind.LABELS, 100, agreement=0.99)
VALUES = replace(SCORES, name="values", kind=Kind.VALUES, error_relative_max=0.05, top1_agreement=None, topk=None)

REPORT = VariantReport(
    model="digits",
    version=2,
    variant="int8",
    recipe={"method": "int8", "per_channel": True, "kept_fp32": ["a", "b"], "rows": 32, "exclude": []},
    source_digest="a" * 64,
    result_digest="b" * 64,
    source_bytes=4000,
    result_bytes=1000,
    libraries={"onnxruntime": "1.31.1"},
    machine={"cpu": "some", "flags": "avx2"},
    samples=Samples(100, "golden.npz"),
    budget=Budget(),
    outputs=(SCORES, LABELS, VALUES),
    accuracy=Accuracy("scores", 100, 0.97, 0.96),
    created_at="2026-01-01T00:00:00Z",
)


@pytest.mark.parametrize(("name", "may"), [("int8", True), ("int8-dynamic", True), ("x" * 32, True)])
def test_names_of_variants(name: str, may: bool) -> None:
    assert is_variant(name) is may


@pytest.mark.parametrize("name", ["", "x" * 33, "Int8", "int8.v2", "int8/x", "int_8", "int8\n", "ä"])
def test_what_names_no_variant(name: str) -> None:
    assert not is_variant(name)


def test_files_lie_beside_the_version_s_own() -> None:
    assert variant_file("model.onnx", "int8") == "model.int8.onnx"
    assert variant_file("net.v2.onnx", "fp16") == "net.v2.fp16.onnx"
    assert report_file("model.onnx", "int8") == "model.int8.json"
    assert variant_file("model.d/model", "int8") == "model.d/model.int8"
    assert report_file(".onnx", "int8") == ".onnx.int8.json"


@pytest.mark.parametrize("report", [REPORT, replace(REPORT, accuracy=None, outputs=())])
def test_a_report_survives_json(report: VariantReport) -> None:
    assert VariantReport.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False))) == report


@given(st.from_type(OutputParity), st.builds(Budget, st.floats(0, 1), st.floats(0, 1e9)))
def test_what_is_written_is_read_or_refused(output: OutputParity, budget: Budget) -> None:
    report = replace(REPORT, outputs=(output,), budget=budget)
    try:
        assert VariantReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    except ValueError as error:
        assert "field 'outputs[0]." in str(error)


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value under a path such as `outputs.0.name`; `...` takes it away."""

    def change(plain: dict[str, Any]) -> None:
        *above, last = path.split(".")
        place: Any = plain
        for step in above:
            place = place[int(step) if isinstance(place, list) else step]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("format", 2, "field 'format' is 2, this Turnout reads 1"),
        ("format", ..., "field 'format' is missing"),
        ("model", ..., "field 'model' is missing"),
        ("model", 3, "field 'model' is '3', it must be a text"),
        ("model", "\ud800", "field 'model' is '\\ud800', it must be a text"),
        ("created_at", "2" * 1025, "it must be a text of at most 1024 characters"),
        ("machine", {"cpu": "\udfff"}, "field 'machine'"),
        ("version", True, "field 'version' is 'True', it must be a whole number"),
        ("samples.rows", 2**63, "field 'samples.rows' is '9223372036854775808', it must be a whole number of"),
        ("result_bytes", 10**400, "field 'result_bytes'"),
        ("recipe.rows", 10**400, "field 'recipe.rows'"),
        ("budget.error_max", 10**400, "field 'budget.error_max'"),
        ("version", 1.5, "field 'version'"),
        ("source_bytes", -1, "field 'source_bytes'"),
        ("source_digest", "abc", "field 'source_digest' is 'abc', it must be 64 lower-case hexadecimal digits"),
        ("libraries", [], "field 'libraries' is '[]', it must be an object of texts"),
        ("libraries", {"x": 1}, "field 'libraries'"),
        ("recipe", [], "field 'recipe' is '[]', it must be an object"),
        ("recipe.rows", nan, "field 'recipe.rows' is 'nan', it must be a text, a finite number"),
        ("recipe.rows", {}, "field 'recipe.rows'"),
        ("recipe.rows", [[]], "field 'recipe.rows'"),
        ("samples.rows", "1", "field 'samples.rows'"),
        ("samples.more", 1, "field 'samples.more' is not known"),
        ("budget.agreement_min", 1.1, "field 'budget.agreement_min' is '1.1', it must be a finite number"),
        ("budget.error_max", inf, "field 'budget.error_max' is 'inf', it must be a finite number of at least 0"),
        ("budget.error_max", -1, "field 'budget.error_max'"),
        ("budget.latency_max", 1, "field 'budget.latency_max' is not known"),
        ("outputs", {}, "field 'outputs' is '{}', it must be a list of objects"),
        ("outputs", [1], "field 'outputs'"),
        ("outputs.0.kind", "other", "field 'outputs[0].kind' is 'other', it must be one of scores, labels, values"),
        ("outputs.0.kind", ..., "field 'outputs[0].kind' is missing"),
        ("outputs.0.top1_agreement", nan, "field 'outputs[0].top1_agreement'"),
        ("outputs.0.error_max", True, "field 'outputs[0].error_max'"),
        ("outputs.1.error_max", ..., "field 'outputs[1].error_max' is missing"),
        ("outputs.0.nonfinite", None, "field 'outputs[0].nonfinite'"),
        ("accuracy.variant", 2, "field 'accuracy.variant'"),
        ("accuracy", 1, "field 'accuracy' is '1', it must be an object"),
        ("passed", True, "field 'passed' is not known"),
    ],
)  # fmt: skip
def test_a_report_that_is_not_well_formed_is_refused_by_its_field(path: str, value: Any, words: str) -> None:
    plain = REPORT.to_json()
    at(path, value)(plain)
    with pytest.raises(ValueError) as caught:
        VariantReport.from_json(plain)
    assert words in str(caught.value)


def test_a_report_is_an_object() -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        VariantReport.from_json([])


@pytest.mark.parametrize(
    ("agreement_min", "error_max", "words"),
    [
        (1.5, 0.1, "agreement_min is 1.5, it must be from 0 to 1"),
        (nan, 0.1, "agreement_min is nan"),
        (0.9, -1, "error_max is -1, it must be finite"),
        (0.9, inf, "error_max is inf"),
        (0.9, nan, "error_max is nan"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(agreement_min: float, error_max: float, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Budget(agreement_min, error_max)
    assert words in str(caught.value)


def test_what_just_keeps_its_budget_stands() -> None:
    assert failures(REPORT) == ()
    assert stands(REPORT, "a" * 64, "b" * 64) == ()


@pytest.mark.parametrize(
    ("output", "failure"),
    [
        (replace(SCORES, top1_agreement=0.98996), "output 'scores': top-1 agreement is 0.98996, the limit is 0.99"),
        (replace(SCORES, top1_agreement=None), "output 'scores': its top-1 agreement was not measured"),
        (
            replace(SCORES, nonfinite=2),
            "output 'scores': 2 elements are not finite and not the same, the limit is 0",
        ),
        (replace(SCORES, rows=0), "output 'scores': no row was compared"),
        (replace(LABELS, agreement=0.5), "output 'label': agreement is 0.5, the limit is 0.99"),
        (replace(LABELS, agreement=None), "output 'label': its agreement was not measured"),
        (
            replace(VALUES, error_relative_max=0.0501),
            "output 'values': the largest error is 0.0501 of the largest element, the limit is 0.05",
        ),
        (replace(VALUES, error_relative_max=None), "output 'values': its error was not measured"),
    ],
)
def test_what_is_over_the_budget_is_said(output: OutputParity, failure: str) -> None:
    others = tuple(each for each in REPORT.outputs if each.name != output.name)
    assert failures(replace(REPORT, outputs=(*others, output))) == (failure,)


def test_nothing_compared_is_no_success() -> None:
    assert failures(replace(REPORT, outputs=())) == ("no output was compared",)


def test_other_files_do_not_stand() -> None:
    source, result = stands(REPORT, "c" * 64, "d" * 64)
    assert source == (
        "it was made from another version's files (digest aaaaaaaaaaaa, now cccccccccccc): quantize again"
    )
    assert result == "its report is of other files (digest bbbbbbbbbbbb, now dddddddddddd): quantize again"
    report = replace(REPORT, outputs=())
    assert stands(report, "a" * 64, "b" * 64) == ("no output was compared",)


def test_what_is_told_of_a_report_is_bounded_and_printable() -> None:
    outputs = tuple(replace(LABELS, name=f"{number}\n" + "n" * 1000, agreement=0.0) for number in range(2000))
    *told, more = stands(replace(REPORT, outputs=outputs), "a" * 64, "b" * 64)
    assert len(told) == 8 and more == "1992 reasons more"
    assert all(reason.isprintable() and len(reason) < 250 for reason in told)
