"""Comparators: what is refused, with which words, and what fills in what is left open."""

from __future__ import annotations

from typing import Any

import pytest

from turnout.core.comparators import (
    Comparator,
    ComparatorError,
    Method,
    Precision,
    by_output,
    check_comparator,
    completed,
    usual,
)
from turnout.core.tensors import TensorSpec
from turnout_wire.tensors import DataType

OUTPUTS = {
    "scores": TensorSpec("scores", DataType.FP32, (-1, 10)),
    "open": TensorSpec("open", DataType.FP32, (-1, -1)),
    "one": TensorSpec("one", DataType.FP32, (-1, 1)),
    "label": TensorSpec("label", DataType.INT64, (-1,)),
    "text": TensorSpec("text", DataType.BYTES, (-1, 3)),
}


@pytest.mark.parametrize(
    ("method", "parameters", "field", "words"),
    [
        (Method.ALLCLOSE, {"atol": -1.0}, "atol", "atol of ALLCLOSE is -1, it must be finite and at least 0"),
        (Method.ALLCLOSE, {"rtol": float("nan")}, "rtol", "rtol of ALLCLOSE is nan"),
        (Method.ALLCLOSE, {"rtol": float("inf")}, "rtol", "rtol of ALLCLOSE is inf"),
        (Method.ALLCLOSE, {"threshold": 0.1}, "threshold", "ALLCLOSE takes atol and rtol: leave threshold out"),
        (Method.EXACT, {"atol": 0.1}, "atol", "atol is 0.1, but EXACT takes nothing"),
        (Method.ARGMAX, {"k": 3}, "k", "k is 3, but ARGMAX takes near_tie"),
        (Method.ARGMAX, {"near_tie": -0.1}, "near_tie", "at least 0"),
        (Method.TOPK, {"k": 0}, "k", "k of TOPK is 0, it must be from 1 to 1000"),
        (Method.TOPK, {"k": 1001}, "k", "from 1 to 1000"),
        (Method.TOPK, {"threshold": 1.5}, "threshold", "threshold of TOPK is 1.5, it must be from 0 to 1"),
        (Method.COSINE, {"threshold": 2.1}, "threshold", "from 0 to 2"),
        (Method.JS, {"threshold": -0.1}, "threshold", "from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(method: Method, parameters: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ComparatorError) as caught:
        check_comparator(Comparator("scores", method, **parameters))
    assert words in str(caught.value)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("output", "method", "field", "words"),
    [
        (
            "other",
            Method.EXACT,
            "output",
            "no output 'other', the outputs are 'scores', 'open', 'one', 'label', 'text'",
        ),
        ("text", Method.COSINE, "method", "output 'text' is BYTES, COSINE is for numbers: use EXACT"),
        ("one", Method.ARGMAX, "method", "output 'one' has shape [-1, 1], ARGMAX takes at least 2 columns"),
        ("label", Method.JS, "method", "output 'label' has shape [-1], JS takes at least 2 columns"),
    ],
)
def test_what_does_not_fit_the_output_is_refused(output: str, method: Method, field: str, words: str) -> None:
    comparator = Comparator(output, method)
    check_comparator(comparator)
    with pytest.raises(ComparatorError) as caught:
        check_comparator(comparator, OUTPUTS)
    assert words in str(caught.value)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "comparator",
    [
        Comparator("scores", Method.ALLCLOSE, atol=0, rtol=0),
        Comparator("label", Method.ALLCLOSE, atol=2),
        Comparator("scores", Method.ARGMAX, near_tie=0),
        Comparator("open", Method.TOPK, k=1000, threshold=1),
        Comparator("scores", Method.COSINE, threshold=2),
        Comparator("scores", Method.JS, threshold=0),
        Comparator("text", Method.EXACT),
    ],
)
def test_the_limits_themselves_are_allowed(comparator: Comparator) -> None:
    check_comparator(comparator, OUTPUTS)


def test_what_is_left_open_depends_on_the_precision() -> None:
    assert completed(Comparator("y", Method.ALLCLOSE, rtol=0), Precision.SINGLE, False).rtol == 0
    assert completed(Comparator("y", Method.ALLCLOSE, rtol=0), Precision.SINGLE, False).atol == 1e-5
    assert completed(Comparator("y", Method.ALLCLOSE), Precision.HALF, False).rtol == 1e-2
    assert completed(Comparator("y", Method.ARGMAX), Precision.SINGLE, False).near_tie == 0
    assert completed(Comparator("y", Method.ARGMAX), Precision.SINGLE, True).near_tie == 1e-3
    assert completed(Comparator("y", Method.ARGMAX, near_tie=0), Precision.SINGLE, True).near_tie == 0
    assert completed(Comparator("y", Method.TOPK, k=3), Precision.SINGLE, True).k == 3
    assert completed(Comparator("y", Method.TOPK), Precision.SINGLE, True) == Comparator(
        "y", Method.TOPK, k=5, threshold=1
    )
    assert completed(Comparator("y", Method.JS), Precision.SINGLE, True).threshold == 0.05
    assert completed(Comparator("y", Method.EXACT), Precision.HALF, True) == Comparator("y", Method.EXACT)


@pytest.mark.parametrize(
    ("precision", "columns", "probabilities", "method"),
    [
        (Precision.SINGLE, 10, True, Method.ARGMAX),
        (Precision.SINGLE, 10, False, Method.ALLCLOSE),
        (Precision.QUANTIZED, 10, False, Method.ARGMAX),
        (Precision.QUANTIZED, 1, False, Method.ALLCLOSE),
    ],
)
def test_the_usual_one(precision: Precision, columns: int, probabilities: bool, method: Method) -> None:
    assert usual("y", precision, columns, probabilities).method is method


def test_comparators_are_grouped_by_output() -> None:
    a, b, c = Comparator("x", Method.EXACT), Comparator("y", Method.EXACT), Comparator("x", Method.JS)
    assert by_output([a, b, c]) == {"x": (a, c), "y": (b,)}
