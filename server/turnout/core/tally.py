"""Counters over compared pairs: by result, by output and by class. Those by result add up, so that slices of time can
be merged; what is kept of single pairs is the few worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np

from turnout.core.pairs import ClassRows, OutputDivergence, PairDivergence, Result
from turnout.core.sketch import Sketch
from turnout_wire.tensors import Array

CLASSES_MAX = 64  # of an output, the first that are seen; the rest is OTHER
CONFUSIONS_MAX = 64  # that are told, of all outputs together
WORST_MAX = 5
OTHER = "_OTHER"
_RATIO = 1000  # ratios are kept in thousandths, because sketches hold integers
_MEASURES = ("distance", "max_abs", "max_rel", "cosine", "js", "top1", "topk", "rank")
_EQUAL = PairDivergence(Result.MATCH).severity


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """Rows whose live class this is; `rows - agreeing - near_ties` differ."""

    output: str
    live_class: str
    rows: int
    agreeing: int
    near_ties: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows where the classes differ, and do not nearly tie. Two classes that differ may both be OTHER."""

    output: str
    live_class: str
    shadow_class: str
    rows: int


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure over the pairs where it makes sense and is finite."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """One output of the pairs. `measures` are those of OutputDivergence, by name; `nonfinite`: pairs where either side
    has a NaN or an infinity in it."""

    output: str
    pairs: int
    bad: int
    nonfinite: int
    measures: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class WorstPair:
    inference_id: str
    pair: PairDivergence


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of some time. Those that agree are MATCH and NEAR_TIE; where the live answer failed there is no pair.

    Attributes:
        pair_count, rows: pairs, and rows of the outputs that are compared by class.
        rate: of agreeing pairs; None without any.
        noise_rate: of the live revision's disagreement with itself; None without any.
        worst: the worst first, WORST_MAX at most.
        latency_p50, latency_p99: the shadow's time over the live one's; None without any.
        low, high: the rate's interval, by the `distinct_count` pairs of different inputs. It holds at every moment of
            looking at all pairs since a beginning; of a slice of time nothing is claimed.
        outputs, by_class: of all that was counted; of a slice of time not told.
        confusions: as these; the CONFUSIONS_MAX most frequent, the most frequent first.
    """

    pair_count: int
    bad_count: int
    rate: float | None
    noise_pair_count: int
    noise_bad_count: int
    noise_rate: float | None
    results: Mapping[Result, int]
    worst: tuple[WorstPair, ...]
    latency_p50: float | None
    latency_p99: float | None
    distinct_count: int = 0
    low: float = 0.0
    high: float = 1.0
    outputs: tuple[OutputSummary, ...] = ()
    by_class: tuple[ClassAgreement, ...] = ()
    confusions: tuple[Confusion, ...] = ()


@dataclass(slots=True)
class _Sum:
    n: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, value: float) -> None:
        self.n += 1
        self.total += value
        self.low = min(self.low, value)
        self.high = max(self.high, value)


@dataclass(slots=True)
class _ClassTally:
    """Rows of one live class."""

    rows: int = 0
    agreeing: int = 0
    near_ties: int = 0


def _no_confusions() -> Array:
    return np.zeros((CLASSES_MAX + 1, CLASSES_MAX + 1), np.int64)


@dataclass(slots=True)
class _OutputTally:
    """`places`: of the classes that are told apart; OTHER has the last. `confusions`: rows, by the places of live and
    shadow class; a table, because it is searched in each summary."""

    pairs: int = 0
    bad: int = 0
    nonfinite: int = 0
    sums: dict[str, _Sum] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    classes: dict[int, _ClassTally] = field(default_factory=dict)
    confusions: Array = field(default_factory=_no_confusions)

    def add(self, output: OutputDivergence) -> None:
        self.pairs += 1
        self.bad += output.result.bad
        self.nonfinite += output.live_nonfinite > 0 or output.shadow_nonfinite > 0
        if output.comparator is None:  # another shape: nothing was measured
            return
        sums = self.sums
        for name in _MEASURES:
            value = getattr(output, name)
            if value is not None and isfinite(value):
                if name not in sums:
                    sums[name] = _Sum()
                sums[name].add(value)
        for each in output.class_rows:
            self._add_rows(each)

    def _add_rows(self, each: ClassRows) -> None:
        live, shadow = self._place(each.live), self._place(each.shadow)
        if live not in self.classes:
            self.classes[live] = _ClassTally()
        found = self.classes[live]
        found.rows += each.rows
        if each.result is Result.MATCH:
            found.agreeing += each.rows
        elif each.result is Result.NEAR_TIE:
            found.near_ties += each.rows
        else:
            self.confusions[live, shadow] += each.rows

    def _place(self, number: int | None) -> int:
        """Of the first CLASSES_MAX one for each, else that of OTHER."""
        if number is None:
            return CLASSES_MAX
        if number not in self.places:
            if len(self.places) >= CLASSES_MAX:
                return CLASSES_MAX
            self.places[number] = len(self.places)
        return self.places[number]

    @property
    def class_names(self) -> dict[int, str]:
        """By place."""
        return {CLASSES_MAX: OTHER} | {place: str(number) for number, place in self.places.items()}

    def told(self, name: str) -> OutputSummary:
        measures = {measure: Spread(each.total / each.n, each.low, each.high) for measure, each in self.sums.items()}
        return OutputSummary(name, self.pairs, self.bad, self.nonfinite, measures)

    def by_class(self, name: str) -> list[ClassAgreement]:
        """By number, OTHER last."""
        found = [
            (number, self.classes[place]) for number, place in sorted(self.places.items()) if place in self.classes
        ]
        told = [ClassAgreement(name, str(number), each.rows, each.agreeing, each.near_ties) for number, each in found]
        if (each := self.classes.get(CLASSES_MAX)) is not None:
            told.append(ClassAgreement(name, OTHER, each.rows, each.agreeing, each.near_ties))
        return told


class OutputTallies:
    """Counters of one shadow, by output."""

    __slots__ = ("_outputs",)

    def __init__(self) -> None:
        self._outputs: dict[str, _OutputTally] = {}

    def add(self, pair: PairDivergence) -> None:
        for output in pair.outputs:
            self._outputs.setdefault(output.name, _OutputTally()).add(output)

    def told(self, agreement: Agreement) -> Agreement:
        """With what is counted by output."""
        outputs = self._outputs.items()
        return replace(
            agreement,
            outputs=tuple(tally.told(name) for name, tally in outputs),
            by_class=tuple(each for name, tally in outputs for each in tally.by_class(name)),
            confusions=tuple(self._confusions()),
        )

    def _confusions(self) -> Iterator[Confusion]:
        if not self._outputs:
            return
        rows = np.stack([tally.confusions for tally in self._outputs.values()])
        most = rows.argpartition(-CONFUSIONS_MAX, None)[-CONFUSIONS_MAX:]
        most = most[(-rows.ravel()[most]).argsort(kind="stable")]
        names = [(name, tally.class_names) for name, tally in self._outputs.items()]
        for output, live, shadow in zip(*np.unravel_index(most, rows.shape), strict=True):
            if count := rows.item(output, live, shadow):
                name, classes = names[output]
                yield Confusion(name, classes[live], classes[shadow], count)


class Tally:
    """Counters of one shadow over some time, by result."""

    __slots__ = ("noise", "noise_bad", "ratios", "results", "worst")

    def __init__(self) -> None:
        self.results: Counter[Result] = Counter()
        self.noise = 0
        self.noise_bad = 0
        self.worst: list[WorstPair] = []
        self.ratios = Sketch()

    def add(self, inference_id: str, pair: PairDivergence) -> None:
        """Count a pair of two revisions."""
        self.results[pair.result] += 1
        if pair.result.comparable and (severity := pair.severity) > _EQUAL and self._is_worse(severity):
            self._keep_worst([WorstPair(inference_id, pair.without_rows())])

    def add_noise(self, pair: PairDivergence) -> None:
        """Count a pair of the live revision with itself."""
        self.noise += pair.result.comparable
        self.noise_bad += pair.result.bad

    def add_latency(self, live_ns: int, shadow_ns: int) -> None:
        self.ratios.observe(shadow_ns * _RATIO // max(live_ns, 1))

    def merge(self, other: Tally) -> None:
        self.results.update(other.results)
        self.noise += other.noise
        self.noise_bad += other.noise_bad
        self._keep_worst(other.worst)
        self.ratios = self.ratios.merged(other.ratios)

    def _keep_worst(self, more: list[WorstPair]) -> None:
        if more and self._is_worse(more[0].pair.severity):
            self.worst = sorted(self.worst + more, key=lambda each: each.pair.severity, reverse=True)[:WORST_MAX]

    def _is_worse(self, severity: tuple[int, float, float]) -> bool:
        """Than the best of the worst, or there is room for another."""
        return len(self.worst) < WORST_MAX or severity > self.worst[-1].pair.severity

    @property
    def pairs(self) -> int:
        return sum(count for result, count in self.results.items() if result.comparable)

    @property
    def bad(self) -> int:
        return sum(count for result, count in self.results.items() if result.bad)

    def told(self) -> Agreement:
        pairs, bad = self.pairs, self.bad
        return Agreement(
            pair_count=pairs,
            bad_count=bad,
            rate=1 - bad / pairs if pairs else None,
            noise_pair_count=self.noise,
            noise_bad_count=self.noise_bad,
            noise_rate=self.noise_bad / self.noise if self.noise else None,
            results=dict(self.results),
            worst=tuple(self.worst),
            latency_p50=self._ratio(0.5),
            latency_p99=self._ratio(0.99),
        )

    def _ratio(self, share: float) -> float | None:
        value = self.ratios.quantile(share)
        return None if value is None else value / _RATIO
