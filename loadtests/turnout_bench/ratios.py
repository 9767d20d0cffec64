"""From paired rounds to one figure: the median of the ratios, and how far chance may have moved it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, from this many rounds. One round has no interval: it is its own."""

    value: float
    low: float
    high: float
    rounds: int


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The ratio of each round: what changes from round to round on a noisy machine changes both sides alike."""
    return [over / under for over, under in zip(numerators, denominators, strict=True)]


def estimate(samples: Sequence[float], seed: int = 0) -> Estimate:
    """The median with its 95 % bootstrap interval (Efron 1979; percentile method)."""
    values = np.asarray(samples, np.float64)
    drawn = np.random.default_rng(seed).choice(values, (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Estimate(float(np.median(values)), float(low), float(high), len(values))
