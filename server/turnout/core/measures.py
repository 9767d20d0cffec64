"""How far two tensors of numbers are apart, by every measure that makes sense for them; vectorised, in doubles.

A row is a vector along the last dimension. NaN equals NaN, an infinity equals itself; any other pair that is not
finite is infinitely far apart. Small arrays are what comes most, so calls of numpy are what is saved here."""

from __future__ import annotations

from functools import lru_cache
from math import inf, isfinite, isnan, nan, sqrt

import numpy as np

from turnout_wire.tensors import Array

COLUMNS_MAX = 4096  # wider rows are ranked only where a method asks for it: sorting is the dearest step
_TINY = 1e-300  # keeps 0 * log2(0 / m) at 0 without a mask, and changes no other term
_SUM_TOLERANCE, _SUM_TOLERANCE_HALF = 1e-3, 1e-2  # of probabilities: FP16 and BF16 round each of them
_ONES, _RANKS = 2, 3  # rows of the product below


class Apart:
    """Two tensors of one shape, not empty, as rows. To be used within `np.errstate(all="ignore")`.

    Attributes:
        both: doubles [rows, 2, columns], live first.
        diff: |shadow - live| [rows, columns], 0 where both are NaN, infinite where only one side is finite.
        worst: flat index of the first largest of these, `max_abs`.
        nan_rows: rows where NaN stands on one side only [rows], or None: nowhere.
        nonfinite: how many elements of each side are not finite.
        ranking: the order of each row's elements, or None: not asked for.
        probable: whether all rows of each side look like probabilities: 2 to 4096 columns, finite, not negative,
            each row adds up to 1.
    """

    __slots__ = (
        "_gram", "_lowest", "both", "diff", "max_abs", "nan_rows", "nonfinite", "probable", "ranking", "worst",
    )  # fmt: skip

    def __init__(self, live: Array, shadow: Array, columns: int, ranked: bool) -> None:
        rows = live.size // columns
        stack = np.empty((rows, 5 if ranked else 3, columns))
        stack[:, 0] = live.reshape(rows, columns)
        stack[:, 1] = shadow.reshape(rows, columns)
        self.both = both = stack[:, :2]
        self.diff = diff = np.abs(both[:, 1] - both[:, 0])
        self.nan_rows: Array | None = None
        self.nonfinite = (0, 0)
        self.worst = int(diff.argmax())
        # NaN counts as the largest, and no difference is finite where a side is not.
        if not isfinite(diff.item(self.worst)):
            self._admit_nonfinite()
        self.max_abs: float = diff.item(self.worst)
        self._lowest: float = both.item(both.argmin())
        self.ranking = None
        self.probable = (False, False)
        if columns == 1:
            return
        if ranked:
            self.ranking = Ranking(both, self.nonfinite != (0, 0))
            stack[:, _RANKS:] = self.ranking.ranks
        self._gram = _products(stack, live.dtype.itemsize > 4 or shadow.dtype.itemsize > 4)
        if columns <= COLUMNS_MAX:
            half = live.dtype.itemsize < 4, shadow.dtype.itemsize < 4
            self.probable = self._looks_probable(half)

    def _admit_nonfinite(self) -> None:
        both, diff = self.both, self.diff
        nan, finite = np.isnan(both), np.isfinite(both)
        live, shadow = (~finite).sum((0, 2)).tolist()
        self.nonfinite = (live, shadow)
        diff[~np.isfinite(diff)] = np.inf
        diff[(both[:, 0] == both[:, 1]) | nan.all(1)] = 0
        one_sided = (nan[:, 0] != nan[:, 1]).any(-1)
        self.nan_rows = one_sided if one_sided.any() else None
        self.worst = int(diff.argmax())

    def _looks_probable(self, half: tuple[bool, bool]) -> tuple[bool, bool]:
        off = np.abs(self._gram[:, :2, _ONES] - 1)
        # A sum that is near 1 has finite terms.
        if off.item(off.argmax()) <= _SUM_TOLERANCE and self._lowest >= 0:
            return True, True
        near = off.max(0) <= np.where(half, _SUM_TOLERANCE_HALF, _SUM_TOLERANCE)
        live, shadow = (near & (self.both.min((0, 2)) >= 0)).tolist()
        return live, shadow

    def max_rel(self) -> float | None:
        """The largest |shadow - live| / |live|, of the elements where the live one is not 0; None: there is none."""
        scale = np.abs(self.both[:, 0])
        if self._lowest > 0:
            relative = self.diff / scale
        else:
            usable = scale > 0  # NaN is not
            if not usable.any():
                return None
            # What is equal is 0 apart, also where it is infinite.
            relative = np.divide(self.diff, scale, out=np.zeros(scale.shape), where=usable & (self.diff > 0))
        highest: float = relative.item(relative.argmax())
        return inf if isnan(highest) else highest

    def cosines(self) -> Array:
        """1 - cosine of each row, from 0 to 2. Of two zero vectors 0, of one 1; NaN where rows are not finite, unless
        they are equal."""
        gram = self._gram
        distances = np.minimum(np.maximum(self._angles(0), 0), 2)
        distances[gram[:, 0, 0] * gram[:, 1, 1] == 0] = 1
        return self._settled(distances)

    def cosine(self) -> float | None:
        """The largest of `cosines`; None where one is not known."""
        if self.max_abs == 0:
            return 0.0
        value = _largest(self._angles(0))
        if isnan(value):
            value = _largest(self.cosines())
        return None if isnan(value) else min(max(value, 0.0), 2.0)

    def correlation(self) -> float | None:
        """Spearman's rank correlation, ties with their mean rank: the lowest of a row; None: all rows are constant."""
        angles = self._angles(_RANKS)
        value = _largest(angles)
        if isnan(value):  # a constant row has none
            value = float(np.fmax.reduce(angles))
        return None if isnan(value) else max(1 - value, -1.0)

    def _angles(self, first: int) -> Array:
        """1 - cosine of each row of the product's vectors `first` and the next; NaN without a length."""
        gram, second = self._gram, first + 1
        lengths = np.sqrt(gram[:, first, first] * gram[:, second, second])
        angles: Array = 1 - gram[:, first, second] / lengths
        return angles

    def js_distances(self) -> Array:
        """The Jensen-Shannon distance of each row, to base 2, from 0 to 1: the square root of the mean divergence from
        the middle. Rows are scaled to add up to 1; NaN where one is no distribution, unless they are equal."""
        distances = np.sqrt(np.minimum(np.maximum(self._divergences(), 0), 1))
        if self.probable != (True, True):
            both, sums = self.both, self._gram[:, :2, _ONES]
            distances[((both < 0) | ~np.isfinite(both)).any((1, 2)) | ~(sums > 0).all(1)] = nan
        return self._settled(distances)

    def js(self) -> float | None:
        """The largest of `js_distances`; None where not all rows look like probabilities."""
        if self.probable != (True, True):
            return None
        return 0.0 if self.max_abs == 0 else sqrt(min(max(_largest(self._divergences()), 0.0), 1.0))

    def _divergences(self) -> Array:
        shares = self.both / self._gram[:, :2, _ONES, None]
        middle = shares[:, :1] + shares[:, 1:]
        middle *= 0.5
        middle += _TINY
        terms = np.log2((shares + _TINY) / middle)
        terms *= shares
        divergences: Array = np.add.reduce(terms, (1, 2))
        divergences *= 0.5
        return divergences

    def _settled(self, distances: Array) -> Array:
        """Rows that are equal are so exactly, whatever was rounded, and also where they are not finite."""
        distances[~self.diff.any(-1)] = 0
        return distances


class Ranking:
    """The elements of each row in descending order, of equal ones the first; NaN counts as minus infinity.

    Attributes:
        live, shadow: the place of the largest element [rows].
        ranks: from the mean rank, ties with the mean of theirs [rows, 2, columns].
    """

    __slots__ = ("_descending", "_places", "live", "ranks", "shadow")

    def __init__(self, both: Array, nonfinite: bool) -> None:
        ascending = -both
        if nonfinite:
            ascending[np.isnan(ascending)] = np.inf
        rows, _, columns = both.shape
        order = ascending.argsort(-1, kind="stable")
        self.live, self.shadow = order[:, 0, 0], order[:, 1, 0]
        # Indices into the flattened array: taking along an axis costs ten times as much for a small one.
        starts, index = _starts(rows, columns)
        flat = order + starts
        self._descending = ascending.take(flat)
        self._places: Array = np.empty(both.shape)
        self._places.reshape(-1)[flat] = index
        places, step = self._places, self._descending[..., 1:] != self._descending[..., :-1]
        if not step.item(step.argmin()):
            places = np.empty(both.shape)
            places.reshape(-1)[flat] = _mean_places(step)
        self.ranks: Array = places - (columns - 1) / 2

    def margin(self, row: int) -> float:
        """The live row's largest element minus its second; 0 where both are the same infinity."""
        first: float = self._descending.item(row, 0, 0)
        second: float = self._descending.item(row, 0, 1)
        return 0.0 if first == second else second - first

    def gaps(self, rows: Array) -> Array:
        """How much lower the live side scores the shadow's class than its own, in each of these rows."""
        places = self._places[rows, 0, self.shadow[rows]].astype(np.intp)
        first, other = self._descending[rows, 0, 0], self._descending[rows, 0, places]
        gaps: Array = np.where(first == other, 0, other - first)
        return gaps

    def overlaps(self, k: int) -> Array:
        """The share of the k first that both sides have, in any order, of each row."""
        k = min(k, self._places.shape[-1])
        top: Array = self._places < k
        shares: Array = np.add.reduce(top[:, 0] & top[:, 1], -1) / k
        return shares

    def overlap(self, k: int) -> float:
        """The smallest of `overlaps`."""
        shares = self.overlaps(k)
        share: float = shares.item(shares.argmin())
        return share


def _largest(values: Array) -> float:
    """NaN where there is one."""
    value: float = values.item(values.argmax())
    return value


@lru_cache(maxsize=64)
def _starts(rows: int, columns: int) -> tuple[Array, Array]:
    """Where each row begins in a flattened [rows, 2, columns], and the places in a row."""
    return np.arange(0, rows * 2 * columns, columns).reshape(rows, 2, 1), np.arange(columns)


def _products(stack: Array, wide: bool) -> Array:
    """The products of each row's vectors with each other; the third becomes ones, so that sums are among them."""
    stack[:, _ONES] = 1
    if not wide:
        gram: Array = stack @ stack.transpose(0, 2, 1)
        return gram
    # Squares of doubles may leave their range: angles are those of scaled vectors.
    scaled = stack.copy()
    peak = np.abs(stack[:, :2]).max(-1, keepdims=True)
    scaled[:, :2] /= np.where(peak > 0, peak, 1)
    gram = scaled @ scaled.transpose(0, 2, 1)
    gram[:, :2, _ONES] = np.add.reduce(stack[:, :2], -1)
    return gram


def _mean_places(step: Array) -> Array:
    """The mean place of each group of equal elements, in sorted order; `step`: the next one differs."""
    edge = np.ones((*step.shape[:-1], 1), "?")
    columns = step.shape[-1] + 1
    index = np.arange(columns)
    starts = np.maximum.accumulate(np.where(np.concatenate((edge, step), -1), index, 0), -1)
    ends = np.where(np.concatenate((step, edge), -1), index, columns)
    ends = np.minimum.accumulate(ends[..., ::-1], -1)[..., ::-1]
    places: Array = (starts + ends) / 2
    return places
