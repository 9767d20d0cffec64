"""What both sides of recent pairs answered, so that a right answer that arrives later says which of them was right:
whether a shadow's disagreement is an improvement."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from turnout.core.evidence import better, log10_better
from turnout.core.gates import Verdict
from turnout.core.pairs import PairDivergence
from turnout.core.tally import CLASSES_MAX, OTHER


class Learned(Enum):
    """What became of a label."""

    SCORED = "scored"
    UNKNOWN = "unknown"  # no such inference id any more, or its answer has no classes in this output
    DUPLICATE = "duplicate"  # this output of it has a label already, which stays


@dataclass(frozen=True, slots=True)
class Score:
    """Rows of which the right class is known. `log10_evidence`: that the shadow is right more often, as
    `evidence.log10_better` of the rows where only one side is."""

    both_right: int = 0
    only_live: int = 0
    only_shadow: int = 0
    both_wrong: int = 0

    @property
    def rows(self) -> int:
        return self.both_right + self.only_live + self.only_shadow + self.both_wrong

    @property
    def log10_evidence(self) -> float:
        return log10_better(self.only_shadow, self.only_live)

    def verdict(self, alpha: float) -> Verdict:
        """PASS: the shadow is right more often. FAIL: the live revision is."""
        return better(self.only_shadow, self.only_live, alpha)


@dataclass(slots=True)
class _Entry:
    """Classes by output: those of the live rows and those of the shadow's; None once they are scored."""

    classes: dict[str, tuple[tuple[int, ...], tuple[int, ...]] | None]


@dataclass(slots=True)
class _Scores:
    """Counts by right class; each a list in the order of Score's fields."""

    by_class: dict[str, list[int]] = field(default_factory=dict)

    def count(self, label: int, live: int, shadow: int) -> None:
        name = str(label)
        if name not in self.by_class and len(self.by_class) >= CLASSES_MAX:
            name = OTHER
        place = (live != label) * 2 + (shadow != label)  # both right, only live, only shadow, both wrong
        self.by_class.setdefault(name, [0, 0, 0, 0])[place] += 1


class References:
    """The answers of the last `entries_max` pairs of one shadow, and how they fared where labels came."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._scores: dict[str, _Scores] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def remember(self, inference_id: str, pair: PairDivergence) -> None:
        """Keep the classes of a pair; the oldest makes room. An id that comes again is another request from now on."""
        classes = {each.name: (each.live_classes, each.shadow_classes) for each in pair.outputs if each.live_classes}
        if not classes:
            return
        self._entries.pop(inference_id, None)
        self._entries[inference_id] = _Entry(dict(classes))
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def learn(self, inference_id: str, output: str, label: int | Sequence[int]) -> Learned:
        """Score both answers by the right class: the value of a label output, the place of the largest score of others.

        Args:
            label: of the request's only row, or one for each row.

        Raises:
            ValueError: another number of labels than rows; nothing is scored.
        """
        entry = self._entries.get(inference_id)
        if entry is None or output not in entry.classes:
            return Learned.UNKNOWN
        if (classes := entry.classes[output]) is None:
            return Learned.DUPLICATE
        labels = (label,) if isinstance(label, int) else tuple(label)
        if len(labels) != len(classes[0]):
            raise ValueError(
                f"there are {len(labels)} label(s) for output '{output}' of '{inference_id}', which has "
                f"{len(classes[0])} row(s): send one for each row"
            )
        entry.classes[output] = None
        scores = self._scores.setdefault(output, _Scores())
        for right, live, shadow in zip(labels, *classes, strict=True):
            scores.count(right, live, shadow)
        return Learned.SCORED

    def outputs_of(self, inference_id: str) -> tuple[str, ...]:
        """The outputs of a request that a label can be of."""
        entry = self._entries.get(inference_id)
        return tuple(entry.classes) if entry is not None else ()

    def rows_of(self, inference_id: str, output: str) -> int:
        """How many rows wait for a label; 0 where none is waited for."""
        entry = self._entries.get(inference_id)
        classes = entry.classes.get(output) if entry is not None else None
        return len(classes[0]) if classes is not None else 0

    def scores(self, output: str) -> dict[str, Score]:
        """By right class, of which there are 64 at most, the rest together; the classes in the order they came in."""
        scores = self._scores.get(output, _Scores())
        return {name: Score(*counts) for name, counts in scores.by_class.items()}

    def score(self, output: str) -> Score:
        """Of all classes together."""
        scores = self._scores.get(output, _Scores())
        return Score(*map(sum, zip(*scores.by_class.values(), strict=True)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those that labels came for."""
        return tuple(self._scores)
