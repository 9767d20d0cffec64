"""Triton's classification extension: an output as its k largest elements, written `value:index[:label]`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnout.core.errors import Reason, ServingError
from turnout_wire.tensors import Array


def classify(array: Array, classes: int, labels: Sequence[str], batched: bool, elements_max: int) -> Array:
    """The largest elements of each row (of the whole tensor where it is not batched), in descending order; of equal
    ones the first. NaN counts as minus infinity.

    Returns:
        An object array of `str`, [rows, k] or [k], with k the smaller of `classes` and the elements of a row. Floats
        have six decimals. An index without a label has none.

    Raises:
        ServingError: INVALID_REQUEST when that is more than `elements_max` elements.
    """
    rows = len(array) if batched else 1
    width = array.size // max(rows, 1)
    values = array.reshape(rows, width)
    k = min(classes, width)
    if rows * k > elements_max:
        raise ServingError(
            Reason.INVALID_REQUEST,
            f"parameter 'classification' asks for {rows * k} elements, the limit is {elements_max}: ask for fewer",
        )
    kind = array.dtype.kind
    sortable = values
    if kind not in "biu":
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            floats = values.astype("f8")
        sortable = np.where(np.isnan(floats), -np.inf, floats)
    answer = np.empty((rows, k), dtype=object)
    for row in range(rows):
        top = _largest(sortable[row], k)
        for place, (index, value) in enumerate(zip(top.tolist(), values[row, top].tolist(), strict=True)):
            text = str(int(value)) if kind in "biu" else f"{float(value):.6f}"
            label = f":{labels[index]}" if index < len(labels) else ""
            answer[row, place] = f"{text}:{index}{label}"
    return answer if batched else answer.reshape(-1)


def _largest(row: Array, k: int) -> Array:
    """The indices of the k largest elements in descending order, of equal ones the first."""
    candidates = np.arange(len(row))
    if 0 < k < len(row):
        candidates = np.flatnonzero(row >= np.partition(row, len(row) - k)[len(row) - k])
    # Ascending and stable over the mirrored row is descending with the first of equals first.
    order = np.argsort(row[candidates[::-1]], kind="stable")[::-1]
    return candidates[::-1][order][:k]
