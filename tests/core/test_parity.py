"""Parity: what the comparison of a variant's outputs with its version's says."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.parity import Accuracy, Kind, OutputParity, accuracy, kind_of, parity
from turnout_wire.tensors import Array


def one(reference: Any, variant: Any, kind: Kind | None = None, dtype: str = "f4") -> OutputParity:
    arrays = [np.asarray(each, dtype) for each in (reference, variant)]
    (found,) = parity({"y": arrays[0]}, {"y": arrays[1], "more": arrays[1]}, {"y": kind} if kind else None)
    return found


def test_scores_agree_by_class() -> None:
    found = one([[0.1, 0.9, 0.0], [0.8, 0.1, 0.1]], [[0.2, 0.8, 0.0], [0.3, 0.6, 0.1]])
    assert (found.kind, found.rows, found.top1_agreement, found.topk) == (Kind.SCORES, 2, 0.5, 2)
    assert found.topk_agreement == 1.0
    assert found.error_max == pytest.approx(0.5)
    assert found.error_relative_max == pytest.approx(0.5 / 0.9)
    assert found.error_mean == pytest.approx(1.2 / 6)
    assert found.error_p50 == pytest.approx(0.1)
    assert found.agreement is None


def test_of_equal_scores_the_first_column_is_the_class() -> None:
    assert one([[1, 1, 0]], [[1, 0, 0]]).top1_agreement == 1
    assert one([[1, 1, 0]], [[0, 1, 0]]).top1_agreement == 0


def test_the_k_best_are_five_where_there_are_more() -> None:
    scores = np.arange(12.0)[None]
    other = scores.copy()
    other[0, 11] = -1
    found = one(scores, other)
    assert (found.topk, found.topk_agreement) == (5, 0.8)


@pytest.mark.parametrize(
    ("reference", "variant", "dtype", "agreement"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 5], "i8", 0.75),
        ([True, False], [True, True], "?", 0.5),
        (["a", "b"], ["a", "b"], "O", 1.0),
        ([], [], "i8", 1.0),
    ],
)
def test_labels_are_equal_or_not(reference: Any, variant: Any, dtype: str, agreement: float) -> None:
    found = one(reference, variant, dtype=dtype)
    assert (found.kind, found.agreement, found.error_max, found.rows) == (Kind.LABELS, agreement, None, len(reference))


def test_values_are_measured_by_the_largest_element() -> None:
    found = one([[[1.0, -4.0]]], [[[1.5, -4.0]]])
    assert (found.kind, found.error_max, found.error_relative_max, found.top1_agreement) == (
        Kind.VALUES,
        0.5,
        0.125,
        None,
    )


def test_values_that_are_all_zero_are_measured_absolutely() -> None:
    assert one([0.0, 0.0], [0.0, 0.25]).error_relative_max == 0.25


def test_what_looks_like_scores_may_be_said_to_be_values() -> None:
    found = one([[1.0, 2.0]], [[2.0, 1.0]], Kind.VALUES)
    assert (found.kind, found.top1_agreement, found.error_relative_max) == (Kind.VALUES, None, 0.5)


@pytest.mark.parametrize(
    ("reference", "variant", "count"),
    [
        ([1.0, 2.0], [np.nan, 2.0], 1),
        ([1.0, np.inf], [1.0, 2.0], 1),
        ([np.nan, -np.inf], [np.nan, -np.inf], 0),
        ([[1.0, 2.0]], [[np.nan, np.nan]], 2),
        ([np.inf, np.inf, np.nan], [-np.inf, np.nan, np.inf], 3),
    ],
)
def test_what_is_not_finite_and_not_the_same_is_counted(reference: Any, variant: Any, count: int) -> None:
    found = one(reference, variant)
    assert (found.nonfinite, found.error_max) == (count, 0.0)


def test_half_precision_compares_with_single() -> None:
    reference = np.asarray([1.0, 2.0], "f4")
    (found,) = parity({"y": reference}, {"y": reference.astype(ml_dtypes.bfloat16)})
    assert (found.kind, found.error_max) == (Kind.VALUES, 0.0)


def test_differences_of_the_largest_doubles_stay_numbers() -> None:
    found = one([1.7e308], [-1.7e308], dtype="f8")
    assert found.error_max is not None
    assert np.isfinite(found.error_max)
    tiny = one([5e-324], [1e308], dtype="f8")
    assert tiny.error_relative_max is not None
    assert np.isfinite(tiny.error_relative_max)


@pytest.mark.parametrize(
    ("reference", "variant", "kinds", "words"),
    [
        ({"y": np.zeros(2)}, {}, None, "the variant has no output 'y'"),
        ({"y": np.zeros(2)}, {"y": np.zeros(3)}, None, "output 'y' has shape [3], in the version [2]"),
        ({"y": np.zeros(2)}, {"y": np.zeros(2, "i8")}, None, "output 'y' is int64, in the version float64"),
        ({"y": np.zeros(2)}, {"y": np.zeros(2)}, {"z": Kind.VALUES}, "no output 'z', the outputs are 'y'"),
        ({"y": np.zeros(2)}, {"y": np.zeros(2)}, {"y": Kind.SCORES}, "shape [2] cannot be taken for scores"),
        ({"y": np.zeros((2, 2))}, {"y": np.zeros((2, 2))}, {"y": Kind.LABELS}, "cannot be taken for labels"),
        ({"y": np.zeros(2, "i8")}, {"y": np.zeros(2, "i8")}, {"y": Kind.VALUES}, "of int64 and shape [2] cannot"),
    ],
)
def test_what_does_not_compare_is_refused(
    reference: dict[str, Array], variant: dict[str, Array], kinds: dict[str, Kind] | None, words: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parity(reference, variant, kinds)
    assert words in str(caught.value)


def test_a_number_alone_is_one_row() -> None:
    assert kind_of(np.asarray(1.0)) is Kind.VALUES
    assert one(1.0, 1.0).rows == 1


def test_accuracy_takes_classes_and_labels() -> None:
    scores, other = np.asarray([[0.0, 1.0], [1.0, 0.0]]), np.asarray([[1.0, 0.0], [1.0, 0.0]])
    right = np.asarray([1, 0])
    assert accuracy("y", scores, other, right) == Accuracy("y", 2, 1.0, 0.5)
    assert accuracy("y", right, np.asarray([[0], [0]]), right) == Accuracy("y", 2, 1.0, 0.5)


@pytest.mark.parametrize(
    ("output", "labels", "words"),
    [
        (np.zeros((2, 3, 4)), [0, 1], "shape [2, 3, 4] has no class for each row"),
        (np.zeros((2, 3), "i8"), [0, 1], "has no class for each row"),
        (np.zeros((2, 3)), [0], "there are 1 labels for 2 rows of output 'y'"),
    ],
)
def test_accuracy_needs_a_class_for_each_row(output: Array, labels: list[int], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        accuracy("y", output, output, np.asarray(labels))
    assert words in str(caught.value)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=8))
def test_a_copy_agrees_entirely(rows: list[list[float]]) -> None:
    found = one(rows, rows)
    assert (found.error_max, found.nonfinite, found.top1_agreement, found.topk_agreement) == (0, 0, 1, 1)
