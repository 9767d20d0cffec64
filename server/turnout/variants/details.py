"""What a verification shows beside `core/parity`: how errors are spread, which classes lose, which rows are worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.parity import Kind, OutputParity
from turnout_wire.tensors import Array

_BINS_PER_DECADE = 4
# What is smaller than these counts into the first bin: decades below the largest error, and the share of all errors
# that are next to nothing and would stretch the axis.
_DECADES_MAX = 8
_FEW = 0.01
WORST_ROWS = 10
CLASSES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Histogram:
    """Absolute errors of elements that are finite in both: `counts[i]` lie from `edges[i]` to `edges[i + 1]`, which
    grow by equal factors; `equal` have none. `cut`: there are smaller ones, which the first count has too."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    equal: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """Rows that the reference gives this class, and how many of them the candidate does."""

    name: str
    rows: int
    agree: int


@dataclass(frozen=True, slots=True)
class WorstRow:
    """A row that differs most: first those of another class, then by their largest error. `label`: the right answer."""

    row: int
    error: float | None
    reference: str | None
    candidate: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class OutputDetail:
    """Of one output; empty where it does not apply. `classes` in their own order.

    Attributes:
        cosine_min: of rows of values with two columns or more, such as embeddings: the lowest cosine of both sides.
    """

    name: str
    histogram: Histogram | None
    classes: tuple[ClassAgreement, ...]
    worst: tuple[WorstRow, ...]
    cosine_min: float | None = None


def detail(parity: OutputParity, reference: Array, candidate: Array, labels: Array | None) -> OutputDetail:
    """The details of an output that was compared: the same arrays, rows in the first dimension, and right answers."""
    reference, candidate = np.atleast_1d(reference), np.atleast_1d(candidate)
    errors = histogram = ours = theirs = None
    if parity.kind is not Kind.LABELS:
        found = _errors(reference, candidate)
        histogram = _histogram(found)
        errors = np.nan_to_num(found.reshape(len(found), -1), nan=np.inf, posinf=np.inf).max(axis=1, initial=0.0)
    if parity.kind is Kind.SCORES:
        ours, theirs = _classes(reference), _classes(candidate)
    elif parity.kind is Kind.LABELS and reference.size == len(reference):
        ours, theirs = reference.ravel(), candidate.ravel()
    worst = _worst(errors, ours, theirs, labels)
    vectors = parity.kind is Kind.VALUES and reference.ndim > 1 and reference.shape[-1] > 1
    cosine = _cosine_min(reference, candidate) if vectors else None
    return OutputDetail(parity.name, histogram, _by_class(ours, theirs), worst, cosine)


def distinct(details: Sequence[OutputDetail]) -> list[OutputDetail]:
    """Without those that tell nothing, or what one before them told: labels beside their scores."""
    kept: list[OutputDetail] = []
    for each in details:
        known = each.histogram is None and any(each.classes == other.classes for other in kept)
        if not known and (each.histogram or each.classes or each.worst):
            kept.append(each)
    return kept


def as_json(each: OutputDetail) -> Mapping[str, object]:
    """Infinite errors, where one side is not finite, are null: JSON has no infinity."""
    histogram = each.histogram
    return {
        "cosine_min": each.cosine_min,
        "histogram": histogram
        and {"edges": histogram.edges, "counts": histogram.counts, "equal": histogram.equal, "cut": histogram.cut},
        "classes": [{"class": c.name, "rows": c.rows, "agree": c.agree} for c in each.classes],
        "worst": [
            {
                "row": row.row,
                "error": row.error if row.error is not None and np.isfinite(row.error) else None,
                "reference": row.reference,
                "candidate": row.candidate,
                "label": row.label,
            }
            for row in each.worst
        ],
    }


def _cosine_min(reference: Array, candidate: Array) -> float | None:
    """Over the last dimension; None where a row of either has no length, or is not finite."""
    ours, theirs = (np.asarray(each, "f8").reshape(-1, each.shape[-1]) for each in (reference, candidate))
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines = (ours * theirs).sum(axis=1) / lengths
    return float(np.clip(cosines.min(), -1, 1)) if cosines.size and np.isfinite(cosines).all() else None


def _errors(reference: Array, candidate: Array) -> Array:
    """Absolute; 0 where both are alike, else infinite where one is not finite."""
    ours, theirs = np.asarray(reference, "f8"), np.asarray(candidate, "f8")
    with np.errstate(invalid="ignore", over="ignore"):
        errors: Array = np.abs(ours - theirs)
    errors[~np.isfinite(errors)] = np.inf
    errors[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0
    return errors


def _histogram(errors: Array) -> Histogram | None:
    finite = errors[np.isfinite(errors)]
    some = finite[finite > 0]
    if not some.size:
        return Histogram((), (), int(finite.size)) if finite.size else None
    high = int(np.ceil(np.log10(some.max())))
    low = max(int(np.floor(np.log10(np.quantile(some, _FEW)))), high - _DECADES_MAX)
    high += high == low  # an error of exactly a power of ten alone
    edges = np.logspace(low, high, (high - low) * _BINS_PER_DECADE + 1)
    counts, _ = np.histogram(np.clip(some, edges[0], edges[-1]), edges)
    return Histogram(
        tuple(edges.tolist()), tuple(counts.tolist()), int(finite.size - some.size), bool(some.min() < edges[0])
    )


def _classes(scores: Array) -> Array:
    numbers = np.asarray(scores, "f8")
    classes: Array = np.where(np.isnan(numbers), -np.inf, numbers).argmax(axis=1)
    return classes


def _by_class(ours: Array | None, theirs: Array | None) -> tuple[ClassAgreement, ...]:
    if ours is None or theirs is None:
        return ()
    names, index = np.unique(ours.astype(str) if ours.dtype.kind == "O" else ours, return_inverse=True)
    if len(names) > CLASSES_MAX:  # they are no classes: numbers of something
        return ()
    rows = np.bincount(index, minlength=len(names))
    agree = np.bincount(index[np.asarray(ours == theirs, "?")], minlength=len(names))
    return tuple(
        ClassAgreement(str(name), int(count), int(equal)) for name, count, equal in zip(names, rows, agree, strict=True)
    )


def _worst(
    errors: Array | None, ours: Array | None, theirs: Array | None, labels: Array | None
) -> tuple[WorstRow, ...]:
    known = ours if errors is None else errors
    if known is None:
        return ()
    count = len(known)
    turned = np.zeros(count, "?") if ours is None else np.asarray(ours != theirs, "?")
    size = np.zeros(count) if errors is None else errors
    order = np.lexsort((np.arange(count), -size, ~turned))
    chosen = [row for row in order[:WORST_ROWS].tolist() if turned[row] or size[row] > 0]
    return tuple(
        WorstRow(
            row,
            None if errors is None else float(errors[row]),
            None if ours is None else str(ours[row]),
            None if theirs is None else str(theirs[row]),
            None if labels is None else str(labels[row]),
        )
        for row in chosen
    )
