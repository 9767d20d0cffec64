"""The comparison of one pair of answers: what its outputs, compared one by one in `core/outputs`, say together.

The nouns are in `core/comparators` and `core/pairs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from turnout.core.classes import Found, Rows
from turnout.core.comparators import Comparator, Method, Precision
from turnout.core.outputs import compare_output
from turnout.core.pairs import OutputDivergence, PairDivergence, Result
from turnout.core.tensors import Tensors
from turnout_wire.tensors import Array


def compare(
    live: Tensors | None,
    shadow: Tensors | None,
    comparators: Mapping[str, Sequence[Comparator]] | None = None,
    *,
    precision: Precision = Precision.SINGLE,
    batched: bool = True,
) -> PairDivergence:
    """Compare a pair of answers, output by output of the live one; what only the shadow has is nobody's yet.

    Shapes and datatypes must be equal, except that floats of different width are compared, by the tolerance of the
    coarser. A NaN on one side is a mismatch, whatever the method; in the same place on both it is equal.

    Args:
        live, shadow: outputs by name, [rows, ...]; None: that side failed.
        comparators: as `comparators.by_output` groups them. Of several of one output the worst decides. One that cannot
            be used (a number's method on BYTES, a row's on a single column) gives way to what is usual.
        precision: at least how coarse both are, whatever their datatypes: of the coarser one, if it is a variant.
        batched: the first dimension is rows; else a tensor of one dimension is one row.
    """
    if live is None or shadow is None:
        failed = Result.BOTH_ERROR if live is shadow else Result.LIVE_ERROR if live is None else Result.SHADOW_ERROR
        return PairDivergence(failed)
    asked = comparators or {}
    with np.errstate(all="ignore"):
        found = [
            compare_output(name, array, shadow.get(name), asked.get(name, ()), precision, batched)
            for name, array in live.items()
        ]
        if any(each.rows is not None and each.rows.near.size for each in found):
            found = [_excused(each, found) for each in found]
        outputs = [each.told() for each in found]
    decider = max(outputs, key=_weight, default=None)
    return PairDivergence(decider.result if decider else Result.MATCH, tuple(outputs), decider)


def _weight(output: OutputDivergence) -> tuple[int, float, bool]:
    """Of equals, the one that is not EXACT says more."""
    exact = output.comparator is not None and output.comparator.method is Method.EXACT
    return (output.result.severity, 0.0 if exact else output.distance, not exact)


def _excused(label: Found, others: Iterable[Found]) -> Found:
    """A label that differs only where the scores it comes from nearly tie is a near tie itself."""
    output, rows = label
    exact = output.comparator is not None and output.comparator.method is Method.EXACT
    if output.result is not Result.MISMATCH or not exact or rows is None:
        return label
    differing = rows.differing
    if any(each.rows is not None and _explains(each.rows, rows, differing) for each in others):
        return Found(output._replace(result=Result.NEAR_TIE, mismatch_count=0), replace(rows, near=differing))
    return label


def _explains(scores: Rows, labels: Rows, differing: Array) -> bool:
    """Whether labels differ where scores nearly tie, and are the place of the largest score, or that place's entry in
    an ascending list of classes."""
    if scores.live.size != labels.live.size or not np.isin(differing, scores.near, assume_unique=True).all():
        return False
    _, first, inverse = np.unique(np.concatenate((scores.live, scores.shadow)), return_index=True, return_inverse=True)
    names = np.concatenate((labels.live, labels.shadow))
    entries = names[first]
    return bool((names == entries[inverse]).all() and (entries[1:] > entries[:-1]).all())
