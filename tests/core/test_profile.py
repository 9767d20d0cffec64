"""The cost profile: what a run takes by its rows, and how it learns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.profile import CostProfile


@pytest.mark.parametrize(
    ("rows", "mean_ns"),
    [(0, 0), (1, 100), (2, 150), (3, 200), (8, 600), (5, 360), (16, 1200)],
)
def test_times_between_measured_sizes_are_interpolated(rows: int, mean_ns: float) -> None:
    profile = CostProfile({8: 600, 1: 100, 3: 200})
    assert profile.mean_ns(rows) == pytest.approx(mean_ns)
    assert profile.high_ns(rows) == pytest.approx(1.5 * mean_ns)


def test_without_a_measurement_nothing_is_known_and_nothing_learned() -> None:
    profile = CostProfile({})
    profile.observe(4, 100)
    assert not profile.known
    assert profile.mean_ns(4) == profile.high_ns(4) == 0


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 64), st.integers(1, 10**7), min_size=1),
    st.integers(1, 100),
    st.integers(1, 10**8),
)
def test_the_mean_comes_nearer_to_what_is_seen(seed_ns: dict[int, int], rows: int, run_ns: int) -> None:
    profile = CostProfile(seed_ns)
    off_ns = abs(profile.mean_ns(rows) - run_ns)
    for _ in range(600):
        profile.observe(rows, run_ns)
    assert profile.mean_ns(rows) == pytest.approx(run_ns, rel=0.05, abs=0.5 * off_ns)
    assert profile.mean_ns(rows) <= profile.high_ns(rows) <= 2 * profile.mean_ns(rows)


def test_the_high_estimate_comes_near_the_99th_percentile() -> None:
    profile = CostProfile({1: 100})
    highs = []
    for number in range(20_000):
        profile.observe(1, 180 if number % 50 == 0 else 100)
        highs.append(profile.high_ns(1))
    assert 150 < sum(highs[10_000:]) / 10_000 < 200, "2 % of the runs take 180"


def test_one_run_that_was_held_up_moves_little() -> None:
    profile = CostProfile({1: 100, 2: 120})
    profile.observe(1, 10**12)
    assert profile.mean_ns(1) == pytest.approx(110)
    assert profile.mean_ns(2) == 120


def test_a_stall_is_soon_forgotten() -> None:
    profile = CostProfile({1: 100, 8: 200})
    for _ in range(10):
        profile.observe(1, 10_000)
    assert profile.high_ns(1) < 700
    for _ in range(30):
        profile.observe(1, 100)
    assert profile.high_ns(1) < 220


def test_a_size_that_runs_no_more_forgets_a_stall_too() -> None:
    profile = CostProfile({1: 100, 2: 150, 8: 200})
    for _ in range(10):
        profile.observe(1, 10_000)
    for _ in range(2000):
        profile.observe(8, 200)
    assert profile.mean_ns(1) < 110


def test_a_time_of_zero_is_learned_too() -> None:
    profile = CostProfile({1: 0, 2: 0})
    profile.observe(1, 0)
    assert profile.mean_ns(1) == 0
