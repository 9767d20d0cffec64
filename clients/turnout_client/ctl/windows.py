"""What a client remembers of the summaries of one shadow slot: how far each class agreed in the last windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from turnout_wire.gen import slots_pb2 as pb

WINDOWS_KEPT = 20
_BLOCKS = "▁▂▃▄▅▆▇█"
_NO_PAIRS = "·"
_SPAN_MIN = 0.1  # of a sparkline: less would make a mountain of one pair

Rates = Sequence[float | None]  # None: a window without pairs


class Windows:
    """The last WINDOWS_KEPT windows. Begins anew when the server's counts do.

    Classes are told since the rule began: a window is the difference of two readings. Where a reading was missed, its
    rows are in the next.

    Attributes:
        last: the newest summary.
        rates: of the pairs of each window.
    """

    def __init__(self) -> None:
        self.last: pb.ShadowSummary | None = None
        self.rates: deque[float | None] = deque(maxlen=WINDOWS_KEPT)
        self._counted: pb.ShadowSummary | None = None
        self._by_class: dict[tuple[str, str], deque[float | None]] = {}

    def add(self, summary: pb.ShadowSummary) -> None:
        before, self.last = self._counted, summary
        if before is not None and before.start_time != summary.start_time:
            self.rates.clear()
            self._by_class.clear()
            before = None
        if before is not None and _overlap(before, summary):
            return
        if before is not None or _is_first(summary):
            self._add_classes(before or pb.ShadowSummary(), summary)
        self.rates.append(summary.window.rate if summary.window.pair_count else None)
        self._counted = summary

    def by_class(self, output: str, live_class: str) -> Rates:
        return self._by_class.get((output, live_class), ())

    def _add_classes(self, before: pb.ShadowSummary, now: pb.ShadowSummary) -> None:
        earlier = {(each.output, each.live_class): each for each in before.classes}
        for each in now.classes:
            was = earlier.get((each.output, each.live_class), pb.ClassAgreement())
            rows = each.row_count - was.row_count
            rate = (agreeing(each) - agreeing(was)) / rows if rows > 0 else None
            self._by_class.setdefault((each.output, each.live_class), deque(maxlen=WINDOWS_KEPT)).append(rate)


def agreeing(found: pb.ClassAgreement) -> int:
    """Rows that do not disagree: near ties are none of the shadow's doing."""
    return found.agreeing_count + found.near_tie_count


def _overlap(before: pb.ShadowSummary, now: pb.ShadowSummary) -> bool:
    """Whether they tell of the same time for the most part: a stream begins in the middle of a window."""
    end_ns = now.window_end_time.ToNanoseconds()
    return (end_ns - before.window_end_time.ToNanoseconds()) * 2 < end_ns - now.window_start_time.ToNanoseconds()


def _is_first(summary: pb.ShadowSummary) -> bool:
    return summary.window.pair_count == summary.total.pair_count


def scale(rates: Sequence[Rates]) -> float:
    """The lower end of sparklines that are looked at together: the lowest rate in tenths; their upper end is 1."""
    lowest = min((rate for each in rates for rate in each if rate is not None), default=1.0)
    return max(min(int(lowest * 10) / 10, 1 - _SPAN_MIN), 0.0)


def sparkline(rates: Rates, low: float, width: int) -> str:
    """The last `width` rates as blocks, from `low` to 1."""
    blocks = []
    for rate in list(rates)[-width:]:
        if rate is None:
            blocks.append(_NO_PAIRS)
        else:
            height = (min(max(rate, low), 1.0) - low) / (1 - low) * len(_BLOCKS)
            blocks.append(_BLOCKS[min(int(height), len(_BLOCKS) - 1)])
    return "".join(blocks)
