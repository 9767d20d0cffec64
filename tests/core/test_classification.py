"""Classification: the order, the text and the bounds, by table and against a plain reading of the rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.core.classification import classify
from turnout.core.errors import Reason, ServingError


@pytest.mark.parametrize(
    ("array", "classes", "batched", "expected"),
    [
        (np.float32([[0.1, 0.7, 0.2]]), 2, True, [["0.700000:1", "0.200000:2"]]),
        (np.float32([[0.1, 0.7], [3, -1]]), 9, True, [["0.700000:1", "0.100000:0"], ["3.000000:0", "-1.000000:1"]]),
        (np.int64([[5, -7, 5]]), 3, True, [["5:0", "5:2", "-7:1"]]),
        (np.uint8([[0, 255]]), 1, True, [["255:1"]]),
        (np.array([[False, True]]), 2, True, [["1:1", "0:0"]]),
        (np.float32([[np.nan, -np.inf, np.inf]]), 3, True, [["inf:2", "nan:0", "-inf:1"]]),
        (np.float32([[[1, 2], [4, 3]]]), 2, True, [["4.000000:2", "3.000000:3"]]),
        (np.float64([1, 3, 2]), 2, False, ["3.000000:1", "2.000000:2"]),
        (np.float32(7), 3, False, ["7.000000:0"]),
        (np.float16([[1.5]]), 1, True, [["1.500000:0"]]),
        (np.zeros((2, 0), np.float32), 3, True, [[], []]),
    ],
)
def test_largest_first_and_equal_ones_by_index(
    array: np.ndarray, classes: int, batched: bool, expected: list[object]
) -> None:
    assert classify(array, classes, (), batched, 100).tolist() == expected


def test_labels_follow_where_there_are_any() -> None:
    answer = classify(np.float32([[1, 2, 3]]), 3, ("cat", "dog"), True, 100)
    assert answer.tolist() == [["3.000000:2", "2.000000:1:dog", "1.000000:0:cat"]]
    assert answer.dtype == object


def test_too_many_elements_are_refused_before_they_are_written() -> None:
    with pytest.raises(ServingError, match="asks for 20 elements, the limit is 19") as refused:
        classify(np.zeros((2, 10), np.float32), 2**62, (), True, 19)
    assert refused.value.reason is Reason.INVALID_REQUEST


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)), st.integers(1, 8))
def test_any_values_in_descending_order_each_index_once(array: np.ndarray, classes: int) -> None:
    answer = classify(array, classes, (), True, 10_000)
    for row, values in zip(answer, array, strict=True):
        indices = [int(text.split(":")[1]) for text in row]
        assert len(indices) == len(set(indices)) == min(classes, len(values))
        ranked = sorted(
            range(len(values)), key=lambda i: -math.inf if math.isnan(values[i]) else values[i], reverse=True
        )
        assert sorted(indices, key=ranked.index) == indices or any(np.isnan(values))
        floor = min((values[i] for i in indices if not math.isnan(values[i])), default=-math.inf)
        left_out = [values[i] for i in range(len(values)) if i not in indices]
        assert all(math.isnan(value) or value <= floor for value in left_out)
