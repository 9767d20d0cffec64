"""What the server as a whole shows: calls, refused requests, changes, the health of models, the delay of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from turnout.core.sketch import Sketch
from turnout.runtime.counts import Counts
from turnout.runtime.views import Health
from turnout.telemetry import instruments as i
from turnout.telemetry.readings import Reading, Value, sketched

_TICK_S = 0.1
_WINDOW_TICKS = 300  # half a minute


class ServerReadings:
    """A source of readings.

    Args:
        health: of every model.
        ready: whether the server is.
    """

    def __init__(
        self,
        counts: Counts,
        health: Callable[[], Sequence[tuple[str, Health]]],
        ready: Callable[[], bool],
    ) -> None:
        self._counts = counts
        self._health = health
        self._ready = ready

    def __call__(self) -> Iterator[Reading]:
        counts = self._counts
        yield Reading(
            i.RPC_DURATION,
            tuple(
                sketched(("grpc", method, status, "" if status == "OK" else status), each.sketch, each.total_ns)
                for (method, status), each in counts.calls.items()
            ),
        )
        yield Reading(i.REQUEST_REJECTED, tuple(Value(key, count) for key, count in counts.refused.items()))
        transitions = [Value((*place, state.value), count) for (*place, state), count in counts.transitions.items()]
        yield Reading(i.SLOT_TRANSITIONS, tuple(transitions))
        moves = [sketched(key, each.sketch, each.total_ns) for key, each in counts.moves.items()]
        yield Reading(i.SWAP_DURATION, tuple(moves))
        yield Reading(i.JOURNAL_FAILURES, (Value((), counts.journal_failures),))
        known = [Value((model, each.value), float(each is its)) for model, its in self._health() for each in Health]
        yield Reading(i.MODEL_HEALTH, tuple(known))
        yield Reading(i.SERVER_READY, (Value((), float(self._ready())),))


class CallReadings:
    """A source of readings, once calls are served.

    Args:
        under_way: inference calls, and the bytes of their answers.
    """

    def __init__(self, under_way: Callable[[], tuple[int, int]]) -> None:
        self._under_way = under_way

    def __call__(self) -> Iterator[Reading]:
        calls, answer_bytes = self._under_way()
        yield Reading(i.CALL_ACTIVE, (Value((), calls),))
        yield Reading(i.ANSWER_UNREAD, (Value((), answer_bytes),))


class LoopLag:
    """Asks the loop to be woken ten times a second, and keeps how late that was. A source of readings."""

    def __init__(self) -> None:
        self._sketch = Sketch()
        self._total_ns = 0
        self._ticks = 0
        self._max_ns = 0  # of the present window
        self._max_before_ns = 0  # of the one before
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _TICK_S
        self._timer = loop.call_at(due_s, self._tick, due_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def __call__(self) -> Iterator[Reading]:
        yield Reading(i.LOOP_LAG, (sketched((), self._sketch, self._total_ns),))
        yield Reading(i.LOOP_LAG_MAX, (Value((), max(self._max_ns, self._max_before_ns) * 1e-9),))

    def _tick(self, due_s: float) -> None:
        late_ns = max(int((asyncio.get_running_loop().time() - due_s) * 1e9), 0)
        self._sketch.observe(late_ns)
        self._total_ns += late_ns
        self._max_ns = max(self._max_ns, late_ns)
        self._ticks += 1
        if self._ticks % _WINDOW_TICKS == 0:
            self._max_ns, self._max_before_ns = 0, self._max_ns
        self.start()
