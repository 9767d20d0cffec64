"""Counters over compared pairs: by result, by output and by class. They add up, so slices of time and replicas can be
merged; what is kept of single pairs is the few worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from turnout.core.evidence import agreement_interval
from turnout.core.pairs import OutputDivergence, PairDivergence, Result
from turnout.core.sketch import Sketch

CLASSES_MAX = 64  # of an output, the first that are seen; the rest is OTHER
WORST_MAX = 5
OTHER = "_OTHER"
_RATIO = 1000  # ratios are kept in thousandths, because sketches hold integers
_MEASURES = ("distance", "max_abs", "max_rel", "cosine", "js", "top1", "topk", "rank")
_EQUAL = PairDivergence(Result.MATCH).severity

ClassNames = dict[str, dict[int, str]]  # of each output, the classes that are told apart


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
    """Rows where the classes differ, and do not nearly tie. Two classes that are both OTHER may differ, too."""

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
        rate: of agreeing pairs; None without any. `low` and `high` hold at any moment.
        noise_rate: of the live revision's disagreement with itself; None without any.
        latency_p50, latency_p99: the shadow's time over the live one's; None without any.
    """

    pair_count: int
    bad_count: int
    rate: float | None
    low: float
    high: float
    noise_pair_count: int
    noise_bad_count: int
    noise_rate: float | None
    results: Mapping[Result, int]
    outputs: tuple[OutputSummary, ...]
    by_class: tuple[ClassAgreement, ...]
    confusions: tuple[Confusion, ...]
    worst: tuple[WorstPair, ...]
    latency_p50: float | None
    latency_p99: float | None


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

    def merge(self, other: _Sum) -> None:
        self.n += other.n
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)


@dataclass(slots=True)
class _OutputTally:
    """`classes`: rows by live class, shadow class and whether they nearly tie."""

    pairs: int = 0
    bad: int = 0
    nonfinite: int = 0
    sums: dict[str, _Sum] = field(default_factory=dict)
    classes: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    def add(self, output: OutputDivergence, names: dict[int, str]) -> None:
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
        ties = frozenset(output.near_ties)
        for row, (live, shadow) in enumerate(zip(output.live_classes, output.shadow_classes, strict=True)):
            self.classes[_named(names, live), _named(names, shadow), row in ties] += 1

    def merge(self, other: _OutputTally) -> None:
        self.pairs += other.pairs
        self.bad += other.bad
        self.nonfinite += other.nonfinite
        for name, sum_ in other.sums.items():
            self.sums.setdefault(name, _Sum()).merge(sum_)
        self.classes.update(other.classes)

    def told(self, name: str) -> OutputSummary:
        measures = {measure: Spread(each.total / each.n, each.low, each.high) for measure, each in self.sums.items()}
        return OutputSummary(name, self.pairs, self.bad, self.nonfinite, measures)

    def by_class(self, name: str) -> list[ClassAgreement]:
        rows: Counter[str] = Counter()
        agreeing: Counter[str] = Counter()
        near: Counter[str] = Counter()
        for (live, shadow, tie), count in self.classes.items():
            rows[live] += count
            near[live] += count if tie else 0
            agreeing[live] += count if live == shadow and not tie else 0
        return [ClassAgreement(name, each, rows[each], agreeing[each], near[each]) for each in sorted(rows, key=_order)]

    def confusions(self, name: str) -> list[Confusion]:
        """The most frequent first."""
        return [
            Confusion(name, live, shadow, count)
            for (live, shadow, tie), count in self.classes.most_common()
            if live != shadow and not tie
        ]


class Tally:
    """Counters of one shadow over some time."""

    __slots__ = ("noise", "noise_bad", "outputs", "ratios", "results", "worst")

    def __init__(self) -> None:
        self.results: Counter[Result] = Counter()
        self.noise = 0
        self.noise_bad = 0
        self.outputs: dict[str, _OutputTally] = {}
        self.worst: list[WorstPair] = []
        self.ratios = Sketch()

    def add(self, inference_id: str, pair: PairDivergence, names: ClassNames) -> None:
        """Count a pair of two revisions."""
        self.results[pair.result] += 1
        for output in pair.outputs:
            tally = self.outputs.setdefault(output.name, _OutputTally())
            tally.add(output, names.setdefault(output.name, {}))
        if pair.result.comparable and pair.severity > _EQUAL:
            self._keep_worst([WorstPair(inference_id, pair)])

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
        for name, tally in other.outputs.items():
            self.outputs.setdefault(name, _OutputTally()).merge(tally)
        self._keep_worst(other.worst)
        self.ratios = self.ratios.merged(other.ratios)

    def _keep_worst(self, more: list[WorstPair]) -> None:
        if more and (len(self.worst) < WORST_MAX or more[0].pair.severity > self.worst[-1].pair.severity):
            self.worst = sorted(self.worst + more, key=lambda each: each.pair.severity, reverse=True)[:WORST_MAX]

    @property
    def pairs(self) -> int:
        return sum(count for result, count in self.results.items() if result.comparable)

    @property
    def bad(self) -> int:
        return sum(count for result, count in self.results.items() if result.bad)

    def told(self, alpha: float) -> Agreement:
        pairs, bad = self.pairs, self.bad
        low, high = agreement_interval(bad, pairs, alpha)
        return Agreement(
            pair_count=pairs,
            bad_count=bad,
            rate=1 - bad / pairs if pairs else None,
            low=low,
            high=high,
            noise_pair_count=self.noise,
            noise_bad_count=self.noise_bad,
            noise_rate=self.noise_bad / self.noise if self.noise else None,
            results=dict(self.results),
            outputs=tuple(tally.told(name) for name, tally in self.outputs.items()),
            by_class=tuple(each for name, tally in self.outputs.items() for each in tally.by_class(name)),
            confusions=tuple(each for name, tally in self.outputs.items() for each in tally.confusions(name)),
            worst=tuple(self.worst),
            latency_p50=self._ratio(0.5),
            latency_p99=self._ratio(0.99),
        )

    def _ratio(self, share: float) -> float | None:
        value = self.ratios.quantile(share)
        return None if value is None else value / _RATIO


def _named(names: dict[int, str], number: int) -> str:
    """A class as it is told: of the first CLASSES_MAX its number, else OTHER."""
    if number not in names:
        if len(names) >= CLASSES_MAX:
            return OTHER
        names[number] = str(number)
    return names[number]


def _order(name: str) -> tuple[bool, int]:
    """By number, OTHER last."""
    return (True, 0) if name == OTHER else (False, int(name))
