"""A source of readings that may hang, and does not hold up who reads the others."""

from __future__ import annotations

import concurrent.futures
import threading

from turnout.runtime.ports import ClockNs
from turnout.telemetry.readings import Reading, Source

_WAIT_S_MAX = 1.0
_REUSED_NS_MAX = 60_000_000_000  # what is older would pass for how things are


class LateReadings:
    """Asks on a thread of its own. Who reads it waits for a second at most, and not at all for an answer that was not
    there in time before; then it is given the last answer, or nothing after a minute. Any thread may call it."""

    def __init__(self, source: Source, clock_ns: ClockNs) -> None:
        self._source = source
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._asked: concurrent.futures.Future[list[Reading]] | None = None
        self._last: tuple[int, list[Reading]] = (0, [])

    def __call__(self) -> list[Reading]:
        """Raises what the source raises."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = self._ask()
                wait_s = _WAIT_S_MAX
            else:
                wait_s = 0.0
            asked = self._asked
        concurrent.futures.wait((asked,), wait_s)
        if asked.done():
            asked.result()
        told_ns, readings = self._last
        return readings if self._clock_ns() - told_ns < _REUSED_NS_MAX else []

    def _ask(self) -> concurrent.futures.Future[list[Reading]]:
        answer: concurrent.futures.Future[list[Reading]] = concurrent.futures.Future()

        def run() -> None:
            try:
                readings = list(self._source())
                self._last = (self._clock_ns(), readings)  # also where nobody waits any more
                answer.set_result(readings)
            except Exception as error:  # noqa: BLE001 - it is raised again for who reads
                answer.set_exception(error)

        threading.Thread(target=run, name="readings", daemon=True).start()
        return answer
