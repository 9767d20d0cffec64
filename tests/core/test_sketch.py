"""The sketch: quantiles within its error, merging, bounds."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.sketch import Sketch

NUMBERS = st.lists(st.integers(1, 10**12), min_size=1, max_size=200)


def of(values: list[int]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.observe(value)
    return sketch


@given(NUMBERS, st.floats(0.01, 1))
def test_a_quantile_is_within_two_percent_of_the_exact_one(values: list[int], share: float) -> None:
    exact = sorted(values)[max(ceil(share * len(values)), 1) - 1]
    assert of(values).quantile(share) == pytest.approx(exact, rel=0.02)


@given(NUMBERS, NUMBERS)
def test_two_add_up(left: list[int], right: list[int]) -> None:
    both = of(left).merged(of(right))
    assert both.bins == of(left + right).bins
    assert both.count == len(left) + len(right)


def test_without_any_there_is_no_quantile() -> None:
    assert Sketch().quantile(0.5) is None


def test_whatever_is_observed_the_bins_are_bounded() -> None:
    sketch = of([-5, 0, 1, 2**62, 2**500])
    assert sketch.count == 5
    assert sketch.bins[0] == 3
    assert max(sketch.bins) < 2200
