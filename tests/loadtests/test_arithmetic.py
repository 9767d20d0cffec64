"""Histograms, Lindley's recursion, ratios and intervals: the arithmetic that figures rest on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout_bench.hdr import HIGHEST_US, Histogram
from turnout_bench.lindley import waits_ns
from turnout_bench.ratios import estimate, paired
from turnout_bench.schedules import poisson

# 1, 1000 and 2,000,000 us, written by the Python library hdrhistogram 0.10.8: HdrHistogram(1, 3600000000, 3).
LIBRARY_TEXT = "HISTFAAAACh4nJNpmSzMwMDAyQABzFCaEURcm7yEwf4DVIDpND/T+3WMTACG5wcP"
LIBRARY_PERCENTILES_US = {1: 1, 50: 1000, 100: 2_000_895}

values_us = st.lists(st.integers(0, HIGHEST_US), max_size=200)


@given(values_us)
def test_a_histogram_survives_its_encoding(values: list[int]) -> None:
    histogram = Histogram.of_ns(np.asarray(values, np.float64) * 1000)
    assert Histogram.decode(histogram.encode()) == histogram
    assert histogram.total == len(values)


@given(st.lists(st.integers(0, HIGHEST_US), min_size=1, max_size=200), st.floats(0, 100))
def test_percentiles_are_right_to_three_digits(values: list[int], percent: float) -> None:
    histogram = Histogram.of_ns(np.asarray(values, np.float64) * 1000)
    exact = sorted(values)[max(1, int(percent / 100 * len(values) + 0.5)) - 1]
    assert exact <= histogram.percentile_us(percent) <= exact * 1.001 + 1


def test_counts_within_an_objective() -> None:
    histogram = Histogram.of_ns([1e6, 49.9e6, 50e6, 50.5e6, 9e12])
    assert histogram.count_within(50_000) == 3
    assert histogram.count_within(HIGHEST_US * 2) == 5
    assert (histogram + histogram).total == 10


def test_an_empty_histogram_has_no_figures() -> None:
    empty = Histogram.of_ns([])
    assert np.isnan(empty.percentile_us(99)) and np.isnan(empty.mean_us())


def test_the_form_is_the_librarys() -> None:
    histogram = Histogram.of_ns([1e3, 1e6, 2e9])
    assert Histogram.decode(LIBRARY_TEXT) == histogram
    assert {percent: histogram.percentile_us(percent) for percent in LIBRARY_PERCENTILES_US} == LIBRARY_PERCENTILES_US


@pytest.mark.parametrize("text", ["", "HISTFAAA", "bm8gaGlzdG9ncmFt", "€"])
def test_other_texts_are_no_histogram(text: str) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        Histogram.decode(text)


def test_lindley_by_hand() -> None:
    # Service 10: the second comes 4 after the first and waits 6, the third another 4 later and waits 12, the fourth
    # long after.
    assert waits_ns(np.asarray([0, 4, 8, 100]), 10).tolist() == [0, 6, 12, 0]
    assert waits_ns(np.asarray([5]), 10).tolist() == [0]
    assert waits_ns(np.asarray([0, 4, 8, 100]), 10, 3).tolist() == [3, 9, 15, 3], "an idle server takes 3 to begin"
    own = np.asarray([20, 1, 10, 10])  # one service time for each request
    assert waits_ns(np.asarray([0, 4, 8, 30]), own, 3).tolist() == [3, 19, 16, 4]


def test_lindley_agrees_with_the_mean_wait_of_a_queue_with_fixed_service() -> None:
    """Pollaczek and Khinchine: rho s / (2 (1 - rho))."""
    waits = waits_ns(poisson(50, 20_000, 1), 10_000_000)
    assert waits.mean() / 1e6 == pytest.approx(0.5 * 10 / (2 * 0.5), rel=0.02)


def test_an_interval_holds_its_median_and_narrows_with_rounds() -> None:
    rng = np.random.default_rng(2)
    few, many = (estimate(rng.normal(1.5, 0.1, count).tolist()) for count in (5, 200))
    for one in (few, many):
        assert one.low <= one.value <= one.high
    assert many.high - many.low < few.high - few.low
    assert estimate([1.2]).low == estimate([1.2]).high == 1.2


def test_the_interval_is_the_same_for_the_same_rounds() -> None:
    assert estimate([1.0, 2.0, 4.0]) == estimate([1.0, 2.0, 4.0])


def test_pairing_cancels_what_both_sides_share() -> None:
    drift = [1.0, 2.0, 10.0]
    assert paired([3 * each for each in drift], [2 * each for each in drift]) == [1.5, 1.5, 1.5]
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [1.0, 2.0])
