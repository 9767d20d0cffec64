"""How far two tensors of numbers are apart, by every measure that makes sense for them; vectorised, in doubles.

A row is a vector along the last dimension. NaN equals NaN, an infinity equals itself; any other pair that is not
finite is infinitely far apart. Small arrays are what comes most, so calls of numpy are what is saved here."""

from __future__ import annotations

from functools import lru_cache
from math import inf, isfinite, isnan, nan, sqrt

import numpy as np

from turnout_wire.tensors import Array

COLUMNS_MAX = 4096  # wider rows are ranked only where a method asks for it: sorting is the dearest step
ELEMENTS_MAX = 1_000_000  # larger outputs get only the measures that are cheap, and those that a method asks for
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
        tops: the class of each row, or None: not asked for.
        ranking: the order of each row's elements, or None: not asked for.
        probable: whether all rows of each side look like probabilities: 2 to 4096 columns, finite, not negative,
            each row adds up to 1.
    """

    __slots__ = (
        "_lowest", "_products", "_stack", "_wide", "both", "diff", "max_abs", "nan_rows", "nonfinite", "probable",
        "ranking", "tops", "worst",
    )  # fmt: skip

    def __init__(self, live: Array, shadow: Array, columns: int, classed: bool, ranked: bool) -> None:
        rows = live.size // columns
        self._stack = stack = np.empty((rows, 5 if ranked else 3, columns))
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
        self.tops: Tops | None = None
        self.ranking: Ranking | None = None
        self.probable = (False, False)
        self._products: Array | None = None
        self._wide = live.dtype.itemsize > 4 or shadow.dtype.itemsize > 4
        if columns == 1:
            return
        if classed:
            self.tops = Tops(both, self.nonfinite != (0, 0))
        if self.tops is not None and ranked:
            self.ranking = Ranking(self.tops.scores)
            stack[:, _RANKS:] = self.ranking.ranks
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
        # Products cost several times as much as sums, and of a large output nobody may ask for them.
        sums = self._gram[:, :2, _ONES] if self.both.size <= 2 * ELEMENTS_MAX else np.add.reduce(self.both, -1)
        off = np.abs(sums - 1)
        # A sum that is near 1 has finite terms.
        if off.item(off.argmax()) <= _SUM_TOLERANCE and self._lowest >= 0:
            return True, True
        near = off.max(0) <= np.where(half, _SUM_TOLERANCE_HALF, _SUM_TOLERANCE)
        live, shadow = (near & (self.both.min((0, 2)) >= 0)).tolist()
        return live, shadow

    @property
    def _gram(self) -> Array:
        if self._products is None:
            self._products = _products(self._stack, self._wide)
        return self._products

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


class Tops:
    """The class of each row: the place of its largest element, of equal ones the first; NaN counts as minus infinity.

    Attributes:
        scores: the elements [rows, 2, columns].
        live, shadow: places [rows].
    """

    __slots__ = ("live", "scores", "shadow")

    def __init__(self, both: Array, nonfinite: bool) -> None:
        self.scores: Array = np.where(np.isnan(both), -inf, both) if nonfinite else both
        places = self.scores.argmax(-1)
        self.live, self.shadow = places[:, 0], places[:, 1]

    def margin(self, row: int) -> float:
        """The live row's largest element minus its second; 0 where both are the same infinity."""
        others = self.scores[row, 0].copy()
        place = self.live.item(row)
        first: float = others.item(place)
        others[place] = -inf
        second: float = others.item(others.argmax())
        return 0.0 if first == second else first - second

    def gaps(self, rows: Array) -> Array:
        """How much lower the live side scores the shadow's class than its own, in each of these rows."""
        first, other = self.scores[rows, 0, self.live[rows]], self.scores[rows, 0, self.shadow[rows]]
        gaps: Array = np.where(first == other, 0, first - other)
        return gaps


class Ranking:
    """The elements of each row in descending order, of equal ones the first.

    Attributes:
        ranks: from the mean rank, ties with the mean of theirs [rows, 2, columns].
    """

    __slots__ = ("_places", "ranks")

    def __init__(self, scores: Array) -> None:
        ascending = -scores
        rows, _, columns = scores.shape
        order = ascending.argsort(-1, kind="stable")
        # Indices into the flattened array: taking along an axis costs ten times as much for a small one.
        starts, index = _starts(rows, columns)
        flat = order + starts
        ascending = ascending.take(flat)
        self._places: Array = np.empty(scores.shape)
        self._places.reshape(-1)[flat] = index
        places, step = self._places, ascending[..., 1:] != ascending[..., :-1]
        if not step.item(step.argmin()):
            places = np.empty(scores.shape)
            places.reshape(-1)[flat] = _mean_places(step)
        self.ranks: Array = places - (columns - 1) / 2

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
