"""The classes of an output's rows on both sides: counted in the comparing thread, so that nobody walks over rows on the
loop, and kept row by row only of outputs with few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from turnout.core.pairs import ClassRows, OutputDivergence, Result
from turnout_wire.tensors import Array

ROWS_MAX = 1024  # of an output, whose classes are kept row by row for labels to come
KINDS_MAX = 256  # of an output, the most frequent; of the rest only the results are counted
_RESULTS = (Result.MATCH, Result.MISMATCH, Result.NEAR_TIE)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Integers [rows] of each side; `near`: the indices, ascending, of rows that differ, but nearly tie."""

    live: Array
    shadow: Array
    near: Array

    @property
    def differing(self) -> Array:
        """Indices, ascending."""
        rows: Array = (self.live != self.shadow).nonzero()[0]
        return rows

    def counted(self) -> tuple[ClassRows, ...]:
        """The most frequent first."""
        return tuple(self._few() if self.live.size <= ROWS_MAX else self._many())

    def _few(self) -> Iterable[ClassRows]:
        """In Python: for a few rows numpy takes longer, and for one, what counts does."""
        if self.live.size == 1:
            live, shadow = self.live.item(0), self.shadow.item(0)
            result = Result.NEAR_TIE if self.near.size else Result.MATCH if live == shadow else Result.MISMATCH
            yield ClassRows(live, shadow, result, 1)
            return
        near = frozenset(self.near.tolist())
        pairs = enumerate(zip(self.live.tolist(), self.shadow.tolist(), strict=True))
        kinds = Counter(
            (live, shadow, Result.NEAR_TIE if row in near else Result.MATCH if live == shadow else Result.MISMATCH)
            for row, (live, shadow) in pairs
        ).most_common()
        rest: Counter[Result] = Counter()
        for (*_, result), count in kinds[KINDS_MAX:]:
            rest[result] += count
        yield from (ClassRows(*kind, count) for kind, count in kinds[:KINDS_MAX])
        yield from (ClassRows(None, None, result, count) for result, count in rest.items())

    def _many(self) -> Iterable[ClassRows]:
        """Each kind as one number, which numpy counts."""
        rows = self.live.size
        classes, places = np.unique(np.concatenate((self.live, self.shadow)), return_inverse=True)
        near = np.zeros(rows, np.int64)
        near[self.near] = 1
        kinds, counts = np.unique((places[:rows] * classes.size + places[rows:]) * 2 + near, return_counts=True)
        order = (-counts).argsort(kind="stable")
        kinds, counts = kinds[order], counts[order]
        live, shadow = np.divmod(kinds // 2, classes.size)
        results = (live != shadow) + kinds % 2
        most = slice(KINDS_MAX)
        sides = classes[live[most]].tolist(), classes[shadow[most]].tolist()
        for one, other, result, count in zip(*sides, results[most].tolist(), counts[most].tolist(), strict=True):
            yield ClassRows(one, other, _RESULTS[result], count)
        for result in range(len(_RESULTS)):
            if count := int(counts[KINDS_MAX:][results[KINDS_MAX:] == result].sum()):
                yield ClassRows(None, None, _RESULTS[result], count)


class Found(NamedTuple):
    """What comparing one output found; `rows` is None where its rows have no classes."""

    output: OutputDivergence
    rows: Rows | None = None

    def told(self) -> OutputDivergence:
        if self.rows is None:
            return self.output
        few = self.rows.live.size <= ROWS_MAX
        return self.output._replace(
            class_rows=self.rows.counted(),
            live_classes=tuple(self.rows.live.tolist()) if few else (),
            shadow_classes=tuple(self.rows.shadow.tolist()) if few else (),
        )
