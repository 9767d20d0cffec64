"""The comparison of one output of a pair: which comparators apply to it, what each says of the measures, and what the
worst of them says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from turnout.core.classes import Found, Rows
from turnout.core.comparators import CLASS_METHODS, ROW_METHODS, Comparator, K, Method, Precision, completed, usual
from turnout.core.measures import COLUMNS_MAX, ELEMENTS_MAX, Apart, Ranking, Tops
from turnout.core.pairs import OutputDivergence, Result
from turnout_wire.tensors import Array


def compare_output(
    name: str, live: Array, shadow: Array | None, asked: Sequence[Comparator], least: Precision, batched: bool
) -> Found:
    """One output, as `divergence.compare` says it. To be called within `np.errstate(all="ignore")`."""
    if (message := _unlike(live, shadow)) or shadow is None:
        return Found(OutputDivergence(name, Result.SHAPE, message=message))
    kind = live.dtype.kind
    if kind == "O":
        return Found(_texts(name, live, shadow))
    columns = live.shape[-1] if live.ndim > 1 or (live.ndim and not batched) else 1
    if kind in "fV":
        return _numbers(name, live, shadow, asked, columns, least)
    others = [each for each in asked if each.method is not Method.EXACT and _fits(each, columns)]
    if not others:
        return _integers(name, live, shadow, columns)
    found = _numbers(name, live, shadow, others, columns, least)
    if len(others) < len(asked) and any(each.method is Method.EXACT for each in asked):
        # Apart from the others, because doubles do not tell all integers apart.
        exact = _integers(name, live, shadow, columns)
        return max(found, exact, key=lambda each: each.output.result.severity)
    return found


def _unlike(live: Array, shadow: Array | None) -> str:
    """Why both cannot be compared; "": they can."""
    if shadow is None:
        return "the shadow has no such output"
    if live.shape != shadow.shape:
        return f"shape {list(shadow.shape)}, that of the live answer {list(live.shape)}"
    if live.dtype != shadow.dtype and not (live.dtype.kind in "fV" and shadow.dtype.kind in "fV"):  # V: bfloat16
        return f"datatype {shadow.dtype}, that of the live answer {live.dtype}"
    return ""


def _fits(comparator: Comparator, columns: int) -> bool:
    return columns > 1 or comparator.method not in ROW_METHODS


@lru_cache(maxsize=1024)
def _exact(name: str) -> Comparator:
    return Comparator(name, Method.EXACT)


def _texts(name: str, live: Array, shadow: Array) -> OutputDivergence:
    differs = np.asarray(live != shadow, "?")
    count = int(np.count_nonzero(differs))
    return OutputDivergence(
        name,
        Result.MISMATCH if count else Result.MATCH,
        _exact(name),
        distance=float(count > 0),
        mismatch_count=count,
        element_count=live.size,
        worst_index=int(differs.argmax()) if count else None,
    )


def _integers(name: str, live: Array, shadow: Array, columns: int) -> Found:
    differs = live != shadow
    count = int(np.count_nonzero(differs))
    max_abs, max_rel, worst = 0.0, 0.0, None
    if count:
        # Modulo 2^64 the larger minus the smaller is right for all integers, and as doubles they would collide.
        wide = "i8" if live.dtype.kind == "i" else "u8"
        ours, theirs = live.astype(wide).ravel(), shadow.astype(wide).ravel()
        diff = np.where(theirs > ours, theirs.view("u8") - ours.view("u8"), ours.view("u8") - theirs.view("u8"))
        worst = int(diff.argmax())
        scale = np.abs(ours.astype("f8"))
        max_abs = float(diff[worst])
        max_rel = float(np.divide(diff, scale, out=np.zeros(scale.shape), where=scale > 0).max())
    output = OutputDivergence(
        name,
        Result.MISMATCH if count else Result.MATCH,
        _exact(name),
        distance=max_abs,
        max_abs=max_abs,
        max_rel=max_rel,
        mismatch_count=count,
        element_count=live.size,
        worst_index=worst,
    )
    if columns > 1:
        return Found(output)
    if live.dtype.kind == "b":
        live, shadow = live.astype("u1"), shadow.astype("u1")
    return Found(output, Rows(live.ravel(), shadow.ravel(), _NO_ROWS))


_NO_ROWS: Array = np.empty(0, np.intp)


class _Judgement(NamedTuple):
    """What one comparator says: how many `of` how many rows or elements are bad, and which element (flat) is the
    worst; the indices of rows that nearly tie."""

    comparator: Comparator
    result: Result
    distance: float
    bad: int
    of: int
    worst: int
    near: Array = _NO_ROWS


def _numbers(
    name: str, live: Array, shadow: Array, asked: Sequence[Comparator], columns: int, least: Precision
) -> Found:
    precision, quantized = least, least is Precision.QUANTIZED
    if least is Precision.SINGLE and live.dtype.kind in "fV" and min(live.dtype.itemsize, shadow.dtype.itemsize) < 4:
        precision = Precision.HALF
    if not live.size:
        return Found(OutputDivergence(name, Result.MATCH, usual(name, precision, columns, False)))
    by_class = columns > 1 and (quantized or any(each.method in CLASS_METHODS for each in asked))
    classed = by_class or 2 <= columns <= COLUMNS_MAX
    ranked = classed and (live.size <= ELEMENTS_MAX or any(each.method is Method.TOPK for each in asked))
    apart = Apart(live, shadow, columns, classed, ranked)
    # Where a shadow's rows are no longer probabilities, the values are compared: that itself is a difference. Those of
    # a quantized variant need not add up.
    probable = apart.probable[0] and (apart.probable[1] or quantized)
    comparators = [completed(each, precision, probable) for each in asked if _fits(each, columns)]
    if not comparators:
        comparators = [usual(name, precision, columns, probable)]
    judged = [_judged(apart, comparator) for comparator in comparators]
    worst = max(judged, key=lambda judgement: judgement.result.severity) if len(judged) > 1 else judged[0]
    return _told(name, apart, worst, any(each.method in CLASS_METHODS for each in comparators))


def _told(name: str, apart: Apart, worst: _Judgement, by_class: bool) -> Found:
    rows, columns = apart.diff.shape
    large = apart.diff.size > ELEMENTS_MAX
    top1 = topk = rank = margin = live_class = shadow_class = None
    if (tops := apart.tops) is not None:
        row = worst.worst // columns
        live_class, shadow_class, margin = tops.live.item(row), tops.shadow.item(row), tops.margin(row)
        top1 = int(np.count_nonzero(tops.live == tops.shadow)) / rows
    if (ranking := apart.ranking) is not None and not large:
        topk = ranking.overlap(worst.comparator.k or K)
        rank = apart.correlation()
    output = OutputDivergence(
        name,
        worst.result,
        worst.comparator,
        worst.distance,
        apart.max_abs,
        apart.max_rel(),
        apart.cosine() if columns > 1 and not large else None,
        apart.js() if not large else None,
        top1,
        topk,
        rank,
        *apart.nonfinite,
        mismatch_count=worst.bad,
        element_count=worst.of,
        worst_index=worst.worst if apart.max_abs else None,
        live_argmax=live_class,
        shadow_argmax=shadow_class,
        live_margin=margin,
    )
    return Found(output, Rows(tops.live, tops.shadow, worst.near) if by_class and tops is not None else None)


def _judged(apart: Apart, comparator: Comparator) -> _Judgement:
    match comparator.method:
        case Method.EXACT:
            return _by_element(apart, comparator, apart.diff > 0)
        case Method.ALLCLOSE:
            bad = apart.diff > (comparator.atol or 0) + (comparator.rtol or 0) * np.abs(apart.both[:, 0])
            # Beside an infinity every tolerance is infinite, and beside a NaN none is one.
            return _by_element(apart, comparator, bad | np.isinf(apart.diff))
        case Method.ARGMAX:
            return _by_class(apart, comparator)
        case Method.TOPK:
            overlaps = _ranking(apart).overlaps(comparator.k or K)
            return _by_row(apart, comparator, 1 - overlaps, overlaps < (comparator.threshold or 0), 1.0)
        case Method.COSINE:
            return _by_distance(apart, comparator, apart.cosines(), 2.0)
        case _:
            return _by_distance(apart, comparator, apart.js_distances(), 1.0)


def _by_element(apart: Apart, comparator: Comparator, bad: Array) -> _Judgement:
    if not (count := int(np.count_nonzero(bad))):
        return _Judgement(comparator, Result.MATCH, apart.max_abs, 0, bad.size, apart.worst)
    worst = int(np.where(bad, apart.diff, -1).argmax())
    return _Judgement(comparator, Result.MISMATCH, apart.max_abs, count, bad.size, worst)


def _by_class(apart: Apart, comparator: Comparator) -> _Judgement:
    tops, columns = _tops(apart), apart.diff.shape[-1]
    differs = tops.live != tops.shadow
    if apart.nan_rows is not None:
        differs |= apart.nan_rows
    rows = differs.nonzero()[0]
    if not rows.size:
        return _Judgement(comparator, Result.MATCH, 0.0, 0, differs.size, apart.worst)
    # What the live answer held for nearly as likely is what the shadow must have said: a third class is no tie.
    gaps = tops.gaps(rows)
    if apart.nan_rows is not None:
        gaps[apart.nan_rows[rows]] = np.inf
    near = gaps < (comparator.near_tie or 0)
    bad = rows.size - int(np.count_nonzero(near))
    # The worst is the one whose class the live side held for least likely.
    row = int(rows[gaps.argmax()])
    result = Result.MISMATCH if bad else Result.NEAR_TIE
    worst = row * columns + int(apart.diff[row].argmax())
    return _Judgement(comparator, result, 1.0, bad, differs.size, worst, rows[near])


def _by_distance(apart: Apart, comparator: Comparator, distances: Array, highest: float) -> _Judgement:
    """What is unknown is as far apart as can be."""
    distances = np.where(np.isnan(distances), highest, distances)
    return _by_row(apart, comparator, distances, distances > (comparator.threshold or 0), highest)


def _by_row(apart: Apart, comparator: Comparator, score: Array, bad: Array, highest: float) -> _Judgement:
    """`score` says which row is the worst. With NaN on one side only a row is bad, and nothing is worse."""
    if apart.nan_rows is not None:
        bad = bad | apart.nan_rows
        score = np.where(apart.nan_rows, highest, score)
    count = int(np.count_nonzero(bad))
    row = int((np.where(bad, score, -1) if count else score).argmax())
    worst = apart.worst
    if count or score[row] > 0:  # else no row is worse than another by this method
        worst = row * apart.diff.shape[-1] + int(apart.diff[row].argmax())
    result = Result.MISMATCH if count else Result.MATCH
    return _Judgement(comparator, result, float(score.max()), count, bad.size, worst)


def _tops(apart: Apart) -> Tops:
    """`_numbers` asks for them wherever a comparator takes them."""
    assert apart.tops is not None
    return apart.tops


def _ranking(apart: Apart) -> Ranking:
    """As `_tops`."""
    assert apart.ranking is not None
    return apart.ranking
