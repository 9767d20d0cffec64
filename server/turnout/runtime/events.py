"""The last changes of all models, for those who watch: a ring with a bound, read by number, so that a watcher who was
away misses nothing as long as the ring remembers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from turnout.core.errors import ControlError, Refusal
from turnout.core.snapshot import Line
from turnout.runtime.views import Event, ModelView

EVENTS_MAX = 1024


class Events:
    """Used on the loop thread only.

    Args:
        run_id: tells this run of the server from others, whose numbers mean something else.
    """

    def __init__(self, run_id: str, events_max: int = EVENTS_MAX) -> None:
        self._run_id = run_id
        self._ring: deque[Event] = deque(maxlen=events_max)
        self._seq = 0
        self._changed = asyncio.Event()  # replaced at each event: whoever waits on the old one wakes
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each event; it must neither block nor raise."""
        self._listeners.append(listener)

    def publish(self, kind: str, view: ModelView, line: Line | None) -> None:
        self._seq += 1
        self._ring.append(Event(self._seq, kind, view, line))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in self._listeners:
            listener()

    @property
    def last(self) -> int:
        """The number of the newest event; 0: there was none."""
        return self._seq

    def token(self, seq: int) -> str:
        return f"{self._run_id}-{seq}"

    def seq_of(self, token: str) -> int:
        """Raises:
        ControlError: TOKEN_EXPIRED, it is of another run; INVALID_REQUEST, it is none.
        """
        run_id, _, number = token.rpartition("-")
        if not number.isdecimal() or not number.isascii() or len(number) > 18 or not run_id:
            raise ControlError(Refusal.INVALID_REQUEST, f"'{token[:64]}' is no resume token", "resume_token")
        if run_id != self._run_id or int(number) > self._seq:
            raise ControlError(
                Refusal.TOKEN_EXPIRED, "the resume token is of another run of the server: start with send_initial_state"
            )
        return int(number)

    def after(self, seq: int) -> list[Event]:
        """What came after event `seq`.

        Raises:
            ControlError: TOKEN_EXPIRED, the ring has forgotten some of it.
        """
        missing = self._seq - seq
        if missing > len(self._ring):
            raise ControlError(
                Refusal.TOKEN_EXPIRED,
                f"the last {len(self._ring)} events are kept, and {missing} have come since: start with "
                "send_initial_state",
            )
        return [event for event in self._ring if event.seq > seq]

    async def more(self, seq: int) -> None:
        """Returns when there is an event after `seq`."""
        while self._seq <= seq:
            await self._changed.wait()
