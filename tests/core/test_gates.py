"""Gates that are decided from data: what of a signature may change, and how far outputs may be from golden ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from turnout.core.gates import Verdict, golden_difference, nonfinite, signature_difference
from turnout.core.tensors import Signature, TensorSpec
from turnout_wire.tensors import DataType

X = TensorSpec("x", DataType.FP32, (-1, 4))
MORE = TensorSpec("more", DataType.FP32, (-1, 4), optional=True)
Y = TensorSpec("y", DataType.FP32, (-1, 4))
STABLE = Signature((X, MORE), (Y,), 8)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (STABLE, ""),
        (replace(STABLE, rows_max=16), ""),
        (replace(STABLE, outputs=(Y, replace(Y, name="z"))), ""),
        (replace(STABLE, inputs=(X, MORE, replace(MORE, name="new"))), ""),
        (replace(STABLE, inputs=(MORE, X)), ""),
        (replace(STABLE, inputs=(X, MORE, replace(X, name="new"))), "it needs an input 'new'"),
        (replace(STABLE, inputs=(X,)), "it has no input 'more'"),
        (replace(STABLE, outputs=()), "it has no output 'y'"),
        (replace(STABLE, outputs=(replace(Y, datatype=DataType.FP16),)), "output 'y' is FP16, that of the stable"),
        (replace(STABLE, inputs=(replace(X, shape=(-1, 5)), MORE)), "input 'x' has shape [-1, 5]"),
        (replace(STABLE, inputs=(X, replace(MORE, optional=False))), "input 'more' is not optional"),
        (replace(STABLE, rows_max=4), "its largest batch is 4, that of the stable one 8"),
    ],
)  # fmt: skip
def test_what_clients_would_trip_over_is_named(other: Signature, words: str) -> None:
    difference = signature_difference(STABLE, other)
    assert (words in difference) if words else difference == ""


def test_a_model_that_begins_to_batch_differs() -> None:
    assert "it batches" in signature_difference(replace(STABLE, rows_max=0), STABLE)


def one(array: Any) -> dict[str, Any]:
    return {"y": array}


F4 = np.array([[1.0, 100.0]], "f4")


@pytest.mark.parametrize(
    ("want", "have", "rtol", "verdict"),
    [
        (F4, F4, None, Verdict.PASS),
        (F4, F4 + 0.05, None, Verdict.PASS),  # 5e-4 of the largest element
        (F4, F4 + 0.2, None, Verdict.FAIL),
        (F4, F4 + 0.2, 0.01, Verdict.PASS),
        (F4, F4 + 0.2, 0.0, Verdict.FAIL),
        (F4.astype("f2"), F4.astype("f2") + np.float16(0.5), None, Verdict.PASS),
        (F4, np.array([[1, np.nan]], "f4"), None, Verdict.FAIL),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), None, Verdict.PASS),
        (np.array([np.inf]), np.array([-np.inf]), None, Verdict.FAIL),
        (np.zeros(3, "f4"), np.zeros(3, "f4"), None, Verdict.PASS),
        (np.array([1, 2, 3]), np.array([1, 2, 3]), None, Verdict.PASS),
        (np.array([1, 2, 3]), np.array([1, 2, 4]), 0.9, Verdict.FAIL),  # labels are equal or not
        (np.array(["a", "b"], object), np.array(["a", "b"], object), None, Verdict.PASS),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), None, Verdict.FAIL),
        (np.array([1.0]), np.array([1.0, 2.0]), None, Verdict.FAIL),
        (np.array([1, 2]), np.array([[1], [2]]), None, Verdict.PASS),  # as clients see it
        (np.zeros((0, 2)), np.zeros((0, 2)), None, Verdict.PASS),
    ],
)
def test_golden_outputs(want: Any, have: Any, rtol: float | None, verdict: Verdict) -> None:
    result = golden_difference(one(want), one(have), rtol)
    assert result.verdict is verdict
    assert bool(result.message) == (verdict is Verdict.FAIL)


def test_the_worst_of_several_outputs_is_told() -> None:
    want = {"a": F4, "b": F4, "c": F4}
    have = {"a": F4, "b": F4 + 0.05, "c": F4 + 0.01}
    assert golden_difference(want, have, None).observed == pytest.approx(5e-4, rel=0.01)


def test_what_is_not_finite_is_named() -> None:
    assert nonfinite({"a": np.array([1, 2]), "b": np.array([1.0, np.inf])}) == "b"
    assert nonfinite({"a": np.array([1.0]), "s": np.array(["nan"], object)}) == ""
