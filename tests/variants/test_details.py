"""What a verification tells beside parity: errors by size, agreement by class, the worst rows, cosines."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from turnout.core.parity import Kind, parity
from turnout.variants.details import OutputDetail, as_json, detail, distinct


def of(
    reference: list[Any] | np.ndarray, candidate: list[Any] | np.ndarray, labels: Any = None, kind: Kind | None = None
) -> OutputDetail:
    ours, theirs = np.asarray(reference), np.asarray(candidate)
    (compared,) = parity({"y": ours}, {"y": theirs}, {"y": kind} if kind else {})
    return detail(compared, ours, theirs, None if labels is None else np.asarray(labels))


def test_errors_are_counted_by_their_size() -> None:
    found = of([0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.003, 0.05, 0.07, 1.0]).histogram
    assert found is not None
    assert found.equal == 2 and sum(found.counts) == 3 and not found.cut
    assert found.edges[0] == pytest.approx(1e-3) and found.edges[-1] == pytest.approx(0.1)
    ratios = np.divide(found.edges[1:], found.edges[:-1])
    np.testing.assert_allclose(ratios, ratios[0])
    large = [count for edge, count in zip(found.edges, found.counts, strict=False) if edge >= 0.009]
    assert sum(large) == 2


def test_errors_far_below_the_largest_count_into_the_first_bar() -> None:
    found = of([0.0, 0.0], [1e-30, 1.0]).histogram
    assert found is not None and found.cut
    assert found.counts[0] == 1 and sum(found.counts) == 2


def test_equal_outputs_have_no_bars_and_no_worst_rows() -> None:
    found = of([[1.0, 2.0]], [[1.0, 2.0]])
    assert found.histogram is not None and found.histogram.counts == () and found.histogram.equal == 2
    assert found.worst == ()


@given(
    arrays.arrays("f4", st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(width=32)),
    st.integers(0, 2**32 - 1),
)
def test_every_element_is_counted_once_and_everything_is_json(reference: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        candidate = np.where(rng.random(reference.shape) < 0.5, reference, reference * 1.1 + 1).astype("f4")
    found = of(reference, candidate)
    finite = np.isfinite(reference) & np.isfinite(candidate)
    if found.histogram is not None:
        # Beside them, infinities that are the same on both sides, which do not differ.
        assert sum(found.histogram.counts) + found.histogram.equal >= finite.sum()
        assert sum(found.histogram.counts) == np.count_nonzero(reference[finite] != candidate[finite])
    json.dumps(as_json(found), allow_nan=False)


def test_classes_are_those_of_the_reference() -> None:
    reference = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]
    candidate = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]
    found = of(reference, candidate, labels=[0, 0, 1])
    assert [(each.name, each.rows, each.agree) for each in found.classes] == [("0", 2, 1), ("1", 1, 1)]
    (worst,) = found.worst
    assert (worst.row, worst.reference, worst.candidate, worst.label) == (1, "0", "1", "0")
    assert worst.error == pytest.approx(0.6)


def test_a_row_of_another_class_is_worse_than_one_of_a_larger_error() -> None:
    reference, candidate = [[0.51, 0.49], [9.0, 0.0]], [[0.49, 0.51], [5.0, 0.0]]
    assert [each.row for each in of(reference, candidate).worst] == [0, 1]


@pytest.mark.parametrize("other", [2.0, np.nan, -np.inf])
def test_what_is_not_finite_and_not_the_same_is_worst(other: float) -> None:
    found = of([1.0, np.inf, np.inf], [1.5, other, np.inf])
    assert [each.row for each in found.worst] == [1, 0]
    assert as_json(found)["worst"][0]["error"] is None  # type: ignore[index]


@pytest.mark.parametrize(
    ("ours", "theirs", "classes"),
    [
        (np.array([3, 4, 4]), np.array([3, 4, 5]), [("3", 1, 1), ("4", 2, 1)]),
        (np.array(["b", "a"], object), np.array(["b", "c"], object), [("a", 1, 0), ("b", 1, 1)]),
        (np.array([True, False]), np.array([True, True]), [("False", 1, 0), ("True", 1, 1)]),
        (np.array([[1, 2]]), np.array([[1, 3]]), []),
    ],
)
def test_labels(ours: np.ndarray, theirs: np.ndarray, classes: list[tuple[str, int, int]]) -> None:
    found = of(ours, theirs)
    assert [(each.name, each.rows, each.agree) for each in found.classes] == classes
    assert found.histogram is None


def test_numbers_of_something_are_no_classes() -> None:
    numbers = np.arange(2000)
    found = of(numbers, numbers + (numbers == 7))
    assert found.classes == () and [each.row for each in found.worst] == [7]


def test_cosines_are_of_values_with_columns() -> None:
    ours, theirs = [[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [2.0, 2.0]]
    assert of(ours, theirs, kind=Kind.VALUES).cosine_min == pytest.approx(np.sqrt(0.5))
    assert of(ours, theirs).cosine_min is None
    assert of([[0.0, 0.0]], [[1.0, 0.0]], kind=Kind.VALUES).cosine_min is None


def test_labels_beside_their_scores_are_told_once() -> None:
    scores = of([[0.9, 0.1], [0.3, 0.7]], [[0.1, 0.9], [0.3, 0.7]])
    labels = of(np.array([0, 1]), np.array([1, 1]))
    others = of(np.array([0, 1]), np.array([0, 0]))
    assert distinct([scores, labels]) == [scores]
    assert distinct([scores, others]) == [scores, others]
