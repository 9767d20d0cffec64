"""The learned hold: whether a free executor waits a moment for the clients that it has just answered. Pure.

Clients in a closed loop come back after each batch. Taking the first of them at once splits them into two groups that
alternate, at up to half the throughput. So: hold where clients return, where one joint run saves more than the waiting
costs, for a bounded part of a run's time, and only as long as it pays, which is measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from turnout.core.profile import CostProfile

KAPPAS = (0.0, 0.25, 1.0)  # the longest hold, as a share of the run that is held back; 0: eager

_ALPHA = 0.1  # of the averages over batches
_RUNS_MAX = 96  # the last ones: what is said of them is soon said of another load
_RUNS_MIN = 20  # before anything is said about them
_RUNS_NEW = 8  # the latest: where their mean is so many times that of the others, or a part of it, the load is another
_SHIFT = 2
_RETURN_MIN = 0.5  # share of a batch's rows that must come back within the time of a run
# Rows in the server when a run ends, variance over mean: closed loops keep it near 0, as everybody is always there;
# independent arrivals have 0.5 and more, where so many come that `_RETURN_MIN` is met. A machine that stands still for
# a moment keeps requests from coming in: runs with less than a quarter of the usual rows are left out, if they are few.
_SPREAD_MAX = 0.4
_FEW = 0.2
_QUIET_LULLS = 3  # the usual longest gap between returning rows: requests come in bunches
_QUIET_NS_MIN = 50_000  # timed waits of a thread are not finer
_GUARD_NS = 500_000  # between the end of a hold and the earliest deadline, beside the run itself


@dataclass(slots=True)
class _Run:
    """A run under way."""

    rows: int
    run_rows: int  # with those that pad it
    started_ns: int
    waited_ns: int  # by its requests until it started, summed over rows


class Gather:
    """What one queue has learned of its runs and of its clients. Keeps the cost profile up to date on the way.

    The executors of a slot share it: a hold is every idle executor's, so that it does not matter which one wakes up.

    Args:
        rows_max: rows of the largest batch.
        kappas: the holds to choose from; (0.0,): never hold.
    """

    def __init__(
        self, profile: CostProfile, rows_max: int, executors: int = 1, kappas: Sequence[float] = (0.0,)
    ) -> None:
        self.profile = profile
        self._rows_max = rows_max
        self._learns = profile.known and rows_max > 1 and len(kappas) > 1
        self._runs: list[_Run | None] = [None] * executors
        self._trials = Trials(kappas)
        # The run that ended last, and who has come since.
        self._rows = 0
        self._ended_ns = 0
        self._back = 0
        self._window_ns = 0  # until here, those that come are taken for clients that it has answered
        self._counted = 0  # rows that came within the window
        self._last_ns = 0  # the latest of them
        self._arrived_ns = 0  # the latest of all
        self._returning = 0.0
        self._gap_ns = 0.0  # between rows within the window
        self._longest_ns = 0  # of these gaps, since the run that ended last
        self._lull_ns = 0.0  # the mean of those
        self._present: deque[int] = deque(maxlen=_RUNS_MAX)  # rows in the server when a run ends
        self._regular = False  # they are nearly always the same

    @property
    def kappa(self) -> float:
        """The present hold."""
        return self._trials.kappa

    def arrived(self, rows: int, now_ns: int) -> None:
        """A request has been queued."""
        if not self._learns:
            return
        self._arrived_ns = now_ns
        self._back += rows
        if now_ns <= self._window_ns:
            gap_ns = now_ns - max(self._last_ns, self._ended_ns)
            self._gap_ns += _ALPHA * (gap_ns / rows - self._gap_ns)
            if self._counted:  # the first one's is the time that clients and front end take
                self._longest_ns = max(self._longest_ns, gap_ns)
            self._counted += rows
            self._last_ns = now_ns

    def started(self, executor: int, rows: int, waited_ns: int, now_ns: int, run_rows: int = 0) -> None:
        """The executor has taken a batch whose requests have waited for `waited_ns`, summed over rows; `run_rows` with
        those that pad it."""
        self._runs[executor] = _Run(rows, run_rows or rows, now_ns, waited_ns)

    def free(self, executor: int, queued_rows: int, now_ns: int) -> None:
        """The executor asks for work: its run, if there was one, has ended."""
        run = self._runs[executor]
        if run is None:
            return
        present = queued_rows + sum(one.rows for one in self._runs if one is not None)
        self._runs[executor] = None
        run_ns = now_ns - run.started_ns
        self.profile.observe(run.run_rows, run_ns)
        if not self._learns:
            return
        if self._rows:
            self._returning += _ALPHA * (min(self._counted / self._rows, 1.0) - self._returning)
            self._lull_ns += _ALPHA * (self._longest_ns - self._lull_ns)
        self._see(present)
        self._trials.count(run.rows, run.waited_ns + run.rows * run_ns, now_ns, self._is_closed())
        self._rows, self._ended_ns = run.rows, now_ns
        self._back = self._counted = self._longest_ns = 0
        self._window_ns = now_ns + int(self.profile.mean_ns(run.run_rows))

    def missing(self, rows: int) -> int:
        """How many more rows are worth waiting for, beside `rows` that could run now; 0: none."""
        if not self._trials.kappa or not self._is_closed():
            return 0
        missing = min(self._rows - self._back, self._rows_max - rows)
        if missing <= 0:
            return 0
        mean_ns = self.profile.mean_ns
        saving_ns = mean_ns(rows) + mean_ns(missing) - mean_ns(rows + missing)
        # What the wait costs where the executor has a core of its own. Where it shares one with the front end it costs
        # nothing, as that is what the core does meanwhile: the longer hold asks for any saving at all.
        cost_ns = missing * self._gap_ns if self._trials.kappa < 1 else 0.0
        return missing if saving_ns > cost_ns else 0

    def release_ns(self, rows: int, oldest_ns: int, deadline_ns: int | None) -> int:
        """Until when to wait for `missing` rows.

        Args:
            oldest_ns: when the oldest of the requests at hand came.
            deadline_ns: the earliest deadline among them.
        """
        # Measured from the last arrival alone, the hold would already be over when a run ends.
        quiet_ns = max(self._ended_ns, self._arrived_ns) + max(int(_QUIET_LULLS * self._lull_ns), _QUIET_NS_MIN)
        patience_ns = max(oldest_ns, self._ended_ns) + int(self._trials.kappa * self.profile.mean_ns(rows))
        release_ns = min(quiet_ns, patience_ns)
        return release_ns if deadline_ns is None else min(release_ns, deadline_ns - self.notice_ns(rows))

    def notice_ns(self, rows: int) -> int:
        """How long before its deadline a batch must start."""
        return int(self.profile.high_ns(rows)) + _GUARD_NS

    def wait_ns(self, queued_rows: int, now_ns: int) -> int:
        """An estimate of how long a request that comes now waits for an executor, behind `queued_rows`; 0 when one is
        free, so that a profile that has become wrong is always measured again."""
        ends_ns = []
        for run in self._runs:
            if run is None:
                return 0
            ends_ns.append(max(run.started_ns + self.profile.mean_ns(run.run_rows) - now_ns, 0.0))
        batches_before = queued_rows // self._rows_max
        return int(min(ends_ns) + batches_before * self.profile.mean_ns(self._rows_max) / len(ends_ns))

    def _see(self, present: int) -> None:
        seen = self._present
        seen.append(present)
        latest, others = _mean(islice(reversed(seen), _RUNS_NEW)), _mean(islice(seen, max(len(seen) - _RUNS_NEW, 0)))
        if latest > _SHIFT * others or others > _SHIFT * latest:
            while len(seen) > _RUNS_NEW:
                seen.popleft()
        median = sorted(seen)[len(seen) // 2]
        usual = [one for one in seen if 4 * one >= median]
        mean = _mean(usual)
        variance = _mean((one - mean) ** 2 for one in usual)
        few = len(seen) - len(usual) <= _FEW * len(seen)
        self._regular = few and len(seen) >= _RUNS_MIN and variance <= _SPREAD_MAX * mean

    def _is_closed(self) -> bool:
        """Whether those who send now are those who were answered just before."""
        return self._regular and self._returning >= _RETURN_MIN


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


# A trial: rounds of a block for each hold, each of so many batches, the first of which belong to the block before.
_ROUNDS = 3
_HOPELESS = 0.6  # of the best: not tried in the further rounds. A pause of the machine costs less than that
_BLOCK = 10
_SKIPPED = 2
_FIRST_TRIAL = 16  # batches before it
_SETTLED_MIN = 128  # batches between two trials, four times as many each time that one changes nothing
_SETTLED_MAX = 8192
_MARGIN = 1.03  # by which another hold must beat the present one, and any hold none
_CHANGED = 1.5  # rows per batch, up or down: another load, to which the last trial says nothing


@dataclass(slots=True)
class _Score:
    """What was measured with one hold."""

    rows: int = 0
    wall_ns: int = 0
    sojourn_ns: int = 0  # waiting and running, summed over rows

    @property
    def power(self) -> float:
        """Throughput over mean sojourn time (Kleinrock's power). Open loops have the same throughput with every hold,
        so the time decides; in closed loops both say the same."""
        return self.rows * self.rows / max(self.wall_ns * self.sojourn_ns, 1)


class Trials:
    """Which hold pays, by trying each, side by side, now and then. Where front-end work overlaps with runs, or clients
    think for a while, holding can lose."""

    def __init__(self, kappas: Sequence[float]) -> None:
        self._kappas = kappas
        self._best = 0
        self._now = 0  # the hold of the block under way, or the best
        self._settled = _SETTLED_MIN
        self._left = _FIRST_TRIAL  # batches until the next trial, or of the block under way
        self._blocks: list[int] = []  # the holds that are left to try in this round
        self._rounds = 0  # that are left of the trial, with this one; 0: there is none
        self._scores: list[_Score] = []
        self._start_ns = 0  # of what is measured in this block
        self._mean_rows = 0.0
        self._trial_rows = 0.0  # the mean at the last trial

    @property
    def kappa(self) -> float:
        return self._kappas[self._now]

    def count(self, rows: int, sojourn_ns: int, now_ns: int, closed: bool) -> None:
        """A batch has ended. Only where clients return is there anything to try."""
        self._mean_rows += 0.05 * (rows - self._mean_rows)
        if self._rounds:
            self._measure(rows, sojourn_ns, now_ns)
            return
        if not closed:
            return
        self._left -= 1
        if self._left > _FIRST_TRIAL and self._has_changed():
            self._left, self._settled = _FIRST_TRIAL, _SETTLED_MIN
        if self._left <= 0:
            self._scores = [_Score() for _ in self._kappas]
            self._rounds = _ROUNDS
            self._blocks = list(range(len(self._kappas)))
            self._begin_block()

    def _has_changed(self) -> bool:
        return not self._trial_rows / _CHANGED <= self._mean_rows <= self._trial_rows * _CHANGED

    def _begin_block(self) -> None:
        self._now = self._blocks.pop()
        self._left = _BLOCK

    def _measure(self, rows: int, sojourn_ns: int, now_ns: int) -> None:
        self._left -= 1
        if self._left >= _BLOCK - _SKIPPED:
            self._start_ns = now_ns
            return
        score = self._scores[self._now]
        score.rows += rows
        score.sojourn_ns += sojourn_ns
        if self._left:
            return
        score.wall_ns += now_ns - self._start_ns
        if self._blocks:
            self._begin_block()
            return
        self._rounds -= 1
        powers = [score.power for score in self._scores]
        if self._rounds:
            self._blocks = [at for at, power in enumerate(powers) if power >= _HOPELESS * max(powers)]
            self._begin_block()
        else:
            self._settle(powers)

    def _settle(self, powers: Sequence[float]) -> None:
        best = max(range(len(powers)), key=powers.__getitem__)
        if powers[best] < _MARGIN * powers[self._best]:
            best = self._best
        if powers[best] < _MARGIN * powers[0]:
            best = 0
        # Whether to hold is the question; which hold is better is often a matter of chance.
        confirmed = bool(self._kappas[best]) == bool(self._kappas[self._best])
        self._settled = min(4 * self._settled, _SETTLED_MAX) if confirmed else _SETTLED_MIN
        self._best = self._now = best
        self._left = self._settled
        self._trial_rows = self._mean_rows
