"""Arrival schedules: when each request of a run is due, fixed before the run begins. Pure and seeded.

A schedule is an int64 array of nanoseconds since the start of the run, in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Schedule = NDArray[np.int64]

BURSTY_CV = 3.0  # of the gaps; a Poisson process has 1
REQUESTS_MAX = 10_000_000  # a schedule is in memory before the run


class ScheduleError(ValueError):
    """An arrival process that cannot be scheduled; the message names what and why."""


def poisson(rate: float, seconds: float, seed: int) -> Schedule:
    """Arrivals with exponential gaps of mean 1 / rate."""
    rng = np.random.default_rng(seed)
    return _cumulated(rate, seconds, lambda count: rng.exponential(1 / rate, count))


def bursty(rate: float, seconds: float, seed: int, cv: float = BURSTY_CV) -> Schedule:
    """Arrivals with Gamma gaps of mean 1 / rate and standard deviation cv / rate: above cv 1, bursts and pauses."""
    rng = np.random.default_rng(seed)
    shape = 1 / cv**2
    return _cumulated(rate, seconds, lambda count: rng.gamma(shape, 1 / (rate * shape), count))


def trace(path: Path, rate: float | None = None, seconds: float | None = None) -> Schedule:
    """Recorded arrivals: one offset in seconds per line, ascending. Blank lines and lines with # are skipped.

    Args:
        rate: stretch or compress the whole trace to this mean rate; None: as recorded.
        seconds: cut off what is due later; None: all of it.

    Raises:
        ScheduleError: a line that is no number, is negative, or comes before the one above it; nothing to send.
    """
    offsets: list[float] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            offset = float(text)
        except ValueError:
            raise ScheduleError(f"{path}, line {number}: '{text[:40]}' is no number of seconds") from None
        if not (offsets[-1] if offsets else 0.0) <= offset < 1e9:
            raise ScheduleError(f"{path}, line {number}: {text[:40]} is not at or after the offset above it")
        offsets.append(offset)
    if not offsets:
        raise ScheduleError(f"{path} holds no arrivals")
    schedule = np.asarray(offsets)
    if rate is not None:
        if schedule[-1] <= 0:
            raise ScheduleError(f"{path} takes no time, so it has no rate to change")
        schedule *= len(schedule) / schedule[-1] / rate
    if seconds is not None:
        schedule = schedule[schedule < seconds]
    if not len(schedule):
        raise ScheduleError(f"{path} holds no arrivals in the first {seconds:g} s")
    return np.round(schedule * 1e9).astype(np.int64)


def arrivals(kind: str, rate: float | None, seconds: float, seed: int) -> Schedule:
    """The schedule that a command line names: poisson, bursty, or trace=FILE.

    Raises:
        ScheduleError: an unknown kind, a rate that is missing or not positive, or a trace that cannot be read.
    """
    if rate is not None and not rate > 0:
        raise ScheduleError(f"the rate must be above 0, it is {rate:g}")
    if kind.startswith("trace="):
        try:
            return trace(Path(kind.removeprefix("trace=")), rate, seconds)
        except OSError as error:
            raise ScheduleError(f"{kind.removeprefix('trace=')} cannot be read: {error.strerror}") from None
    if kind not in ("poisson", "bursty"):
        raise ScheduleError(f"unknown arrivals '{kind}': poisson, bursty, or trace=FILE")
    if rate is None:
        raise ScheduleError(f"{kind} arrivals need a rate")
    return poisson(rate, seconds, seed) if kind == "poisson" else bursty(rate, seconds, seed)


def _cumulated(rate: float, seconds: float, draw: Callable[[int], NDArray[np.float64]]) -> Schedule:
    if rate * seconds > REQUESTS_MAX:
        raise ScheduleError(f"{rate:g}/s for {seconds:g} s are more than {REQUESTS_MAX} requests")
    chunk = int(rate * seconds) + 64
    gaps = draw(chunk)
    while (total := float(gaps.sum())) <= seconds:
        gaps = np.concatenate((gaps, draw(int((seconds - total) * rate) + 64)))
    offsets = np.cumsum(gaps)
    return np.round(offsets[offsets < seconds] * 1e9).astype(np.int64)
