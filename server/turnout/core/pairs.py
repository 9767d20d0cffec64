"""What the comparison of a pair of answers comes to: results, and the measures behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from turnout.core.comparators import Comparator


class Result(Enum):
    """What a comparison came to. The values are `turnout.comparison.result`."""

    MATCH = "match"
    NEAR_TIE = "near_tie"  # a class that the live answer nearly had itself: no regression
    MISMATCH = "mismatch"
    SHAPE = "shape"  # another shape or datatype, or the output is missing
    LIVE_ERROR = "live_error"
    SHADOW_ERROR = "shadow_error"
    BOTH_ERROR = "both_error"

    @property
    def bad(self) -> bool:
        """Whether it speaks against the shadow."""
        return self in _BAD

    @property
    def severity(self) -> int:
        """Its place from the best to the worst."""
        return _SEVERITY[self]

    @property
    def comparable(self) -> bool:
        """Whether there was a live answer to be compared with."""
        return self is not Result.LIVE_ERROR and self is not Result.BOTH_ERROR


_BAD = frozenset({Result.MISMATCH, Result.SHAPE, Result.SHADOW_ERROR})
_SEVERITY = {result: place for place, result in enumerate(Result)}


class ClassRows(NamedTuple):
    """Rows whose class is this on each side; None: of classes beyond those that are told apart. `result`: MATCH,
    NEAR_TIE or MISMATCH."""

    live: int | None
    shadow: int | None
    result: Result
    rows: int


class OutputDivergence(NamedTuple):
    """One output of a pair; a tuple, which costs a fifth to make. Measures are None where they make no sense; of rows,
    the worst row's is told.

    Attributes:
        comparator: the one that decided, with the tolerances that were used; None: of result SHAPE.
        distance: by the method: the largest absolute difference (EXACT, ALLCLOSE; of BYTES 0 or 1), 0 or 1 (ARGMAX),
            1 - overlap (TOPK), 1 - cosine, or the Jensen-Shannon distance.
        max_rel: of the elements whose live value is not 0.
        top1: share of rows with the same class.
        topk: the smallest overlap of a row's k first.
        rank: Spearman's correlation, the lowest of a row that is not constant.
        mismatch_count, element_count: rows where the method judges rows, else elements.
        worst_index: flat index of the element that differs most, in the row that does.
        live_argmax, shadow_argmax, live_margin: of that row.
        class_rows: rows by class, where the output is compared by class or is one integer a row.
        live_classes, shadow_classes: of each row, where class_rows are told and rows are few.
        message: what is wrong with shape, datatype or presence.
    """

    name: str
    result: Result
    comparator: Comparator | None = None
    distance: float = 0.0
    max_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    js: float | None = None
    top1: float | None = None
    topk: float | None = None
    rank: float | None = None
    live_nonfinite: int = 0
    shadow_nonfinite: int = 0
    mismatch_count: int = 0
    element_count: int = 0
    worst_index: int | None = None
    live_argmax: int | None = None
    shadow_argmax: int | None = None
    live_margin: float | None = None
    class_rows: tuple[ClassRows, ...] = ()
    live_classes: tuple[int, ...] = ()
    shadow_classes: tuple[int, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class PairDivergence:
    """Two answers to one request. `decider` is the worst output, which decides the result; None without outputs."""

    result: Result
    outputs: tuple[OutputDivergence, ...] = ()
    decider: OutputDivergence | None = None

    @property
    def severity(self) -> tuple[int, float, float]:
        """Orders pairs from the best to the worst: by result, then distance, then the largest difference."""
        distance, max_abs = (self.decider.distance, self.decider.max_abs or 0.0) if self.decider else (0.0, 0.0)
        return (self.result.severity, distance, max_abs)

    def without_rows(self) -> PairDivergence:
        """For whoever keeps it for a while: nothing that grows with the rows of an answer."""
        if not any(output.class_rows for output in self.outputs):
            return self
        outputs = [each._replace(class_rows=(), live_classes=(), shadow_classes=()) for each in self.outputs]
        decider = next((bare for bare, each in zip(outputs, self.outputs, strict=True) if each is self.decider), None)
        return PairDivergence(self.result, tuple(outputs), decider)
