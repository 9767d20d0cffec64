"""Arrival schedules: right in the mean and in the spread, the same for the same seed; traces as recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout_bench.schedules import Schedule, ScheduleError, arrivals, bursty, poisson, trace


def cv(schedule: Schedule) -> float:
    gaps = np.diff(schedule)
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize(("draw", "spread"), [(poisson, 1.0), (bursty, 3.0)])
def test_rate_and_spread(draw, spread) -> None:
    schedule = draw(1000, 100, seed=1)
    assert len(schedule) == pytest.approx(100_000, rel=0.03)
    assert cv(schedule) == pytest.approx(spread, rel=0.05)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["poisson", "bursty"]), st.floats(0.1, 2000), st.floats(0.01, 5), st.integers(0, 2**32))
def test_a_schedule_is_ascending_within_its_time_and_seeded(kind: str, rate: float, seconds: float, seed: int) -> None:
    schedule = arrivals(kind, rate, seconds, seed)
    assert schedule.dtype == np.int64
    assert (np.diff(schedule) >= 0).all()
    assert not len(schedule) or 0 <= schedule[0] <= schedule[-1] <= seconds * 1e9
    assert np.array_equal(schedule, arrivals(kind, rate, seconds, seed))


def test_another_seed_gives_other_arrivals() -> None:
    assert not np.array_equal(poisson(100, 1, 1)[:10], poisson(100, 1, 2)[:10])


def test_a_trace_is_replayed_as_recorded_or_at_a_rate(tmp_path: Path) -> None:
    file = tmp_path / "trace.txt"
    file.write_text("# seconds\n0.5\n\n1.0\n2.0\n4.0\n")
    assert trace(file).tolist() == [500_000_000, 10**9, 2 * 10**9, 4 * 10**9]
    assert trace(file, rate=2.0).tolist() == [250_000_000, 500_000_000, 10**9, 2 * 10**9]
    assert arrivals(f"trace={file}", 2.0, 0.6, 0).tolist() == [250_000_000, 500_000_000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no arrivals"),
        ("x\n", "line 1: 'x' is no number"),
        ("1\n0.5\n", "line 2: 0.5"),
        ("-1\n", "line 1: -1"),
        ("nan\n", "line 1: nan"),
        ("5\n", "no arrivals in the first 1 s"),
    ],
)
def test_a_trace_that_cannot_be_sent_says_why(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.txt"
    file.write_text(text)
    with pytest.raises(ScheduleError, match=message):
        arrivals(f"trace={file}", None, 1.0, 0)


@pytest.mark.parametrize(
    ("kind", "rate", "message"),
    [
        ("poisson", None, "need a rate"),
        ("poisson", 0.0, "above 0"),
        ("bursty", float("nan"), "above 0"),
        ("uniform", 1.0, "unknown arrivals 'uniform'"),
        ("trace=/does/not/exist", None, "cannot be read"),
        ("poisson", 1e9, "more than 10000000 requests"),
    ],
)
def test_arrivals_that_cannot_be_scheduled_say_why(kind: str, rate: float | None, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        arrivals(kind, rate, 10.0, 0)
