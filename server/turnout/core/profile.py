"""How long a model's runs take, by their rows: measured in warm-up, kept up to date by every run. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

_ALPHA = 0.1  # of the moving averages
_RATIO_MAX = 2.0  # a run that was held up by something else counts for no more: a stall must not look like the model
_FORGET = 0.002  # by which each run draws the sizes that it says nothing about back to what warm-up measured
_HIGH_STEP = 0.2
_HIGH_FIRST = 1.5
_HIGH_MAX = 2.0  # estimates above that refuse those who could be served


class CostProfile:
    """A table over the warmed batch sizes; between two of them the time is interpolated, because s(b) is no straight
    line (one row may take a quarter of what eight take).

    Args:
        seed_ns: run times in nanoseconds by rows. Without any (a model that could not be warmed) nothing is known:
            every estimate is 0, and stays so.
    """

    def __init__(self, seed_ns: Mapping[int, int]) -> None:
        self._rows = sorted(seed_ns)
        self._seed_ns = [float(seed_ns[rows]) for rows in self._rows]
        self._mean_ns = list(self._seed_ns)
        self._high = _HIGH_FIRST  # the 99th percentile over the mean, of all sizes

    @property
    def known(self) -> bool:
        return bool(self._rows)

    def mean_ns(self, rows: int) -> float:
        return self._at(self._mean_ns, rows)

    def high_ns(self, rows: int) -> float:
        """An estimate of the 99th percentile, bounded: a deadline is refused by it."""
        return self._high * self.mean_ns(rows)

    def observe(self, rows: int, run_ns: int) -> None:
        """Count one run: the sizes around `rows` move by what the estimate was off, each by its part of it."""
        if not self._rows:
            return
        right = min(bisect_left(self._rows, rows), len(self._rows) - 1)
        left = right - 1 if right and rows < self._rows[right] else right
        span = self._rows[right] - self._rows[left]
        weight = (rows - self._rows[left]) / span if span else 1.0
        ratio = run_ns / max(self.mean_ns(rows), 1.0)
        # A step of stochastic approximation towards the 0.99 quantile (Robbins and Monro).
        self._high += _HIGH_STEP * (0.99 if ratio > self._high else -0.01)
        self._high = min(max(self._high, 1.0), _HIGH_MAX)
        for at in range(len(self._rows)):
            if at not in (left, right):
                self._mean_ns[at] += _FORGET * (self._seed_ns[at] - self._mean_ns[at])
        for at, part in ((left, 1 - weight), (right, weight)):
            self._mean_ns[at] *= 1 + _ALPHA * part * (min(ratio, _RATIO_MAX) - 1)

    def _at(self, table: list[float], rows: int) -> float:
        if not table or rows <= 0:
            return 0.0
        right = bisect_left(self._rows, rows)
        if right == 0:
            return table[0]
        if right == len(table):
            return table[-1] * rows / self._rows[-1]
        share = (rows - self._rows[right - 1]) / (self._rows[right] - self._rows[right - 1])
        return table[right - 1] + share * (table[right] - table[right - 1])
