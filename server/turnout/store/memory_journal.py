"""The journal of a server without a state directory: it keeps the same promises, until the process ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from turnout.core.snapshot import Line, Remembered
from turnout.core.traffic import Traffic
from turnout.runtime.ports import JournalConflict

LINES_MAX = 100_000
REQUESTS_MAX = 100_000
REMEMBER_NS = 24 * 3600 * 10**9


class MemoryJournal:
    """The runtime's Journal in this process's memory. The methods may be called on any thread."""

    def __init__(self) -> None:
        self._states: dict[str, Traffic] = {}
        self._lines: list[Line] = []
        self._requests: dict[str, Remembered] = {}
        self._seq = 0
        self._turn = Lock()

    def states(self) -> dict[str, Traffic]:
        with self._turn:
            return dict(self._states)

    def version(self, model: str) -> int:
        with self._turn:
            return self._version(model)

    def commit(
        self,
        expected: int,
        state: Traffic,
        lines: Sequence[Line],
        request: Remembered | None = None,
        forget: Sequence[str] = (),
    ) -> list[Line]:
        with self._turn:
            if (found := self._version(state.model)) != expected:
                raise JournalConflict(f"model '{state.model}' is at version {found}, not {expected}")
            self._states[state.model] = state
            numbered = [replace(line, seq=self._seq + number) for number, line in enumerate(lines, 1)]
            self._seq += len(numbered)
            self._lines = (self._lines + numbered)[-LINES_MAX:]
            for request_id in forget:
                self._requests.pop(request_id, None)
            if request is not None:
                self._forget(request.time_ns)
                self._requests[request.request_id] = request
        return numbered

    def remembered(self, request_id: str, now_ns: int) -> Remembered | None:
        with self._turn:
            found = self._requests.get(request_id)
        return found if found is not None and now_ns - found.time_ns < REMEMBER_NS else None

    def remember_answer(self, request_id: str, answer: bytes) -> None:
        with self._turn:
            if (found := self._requests.get(request_id)) is not None:
                self._requests[request_id] = replace(found, answer=answer)

    def lines(self, model: str | None, limit: int, before_seq: int | None = None, since_seq: int = 0) -> list[Line]:
        with self._turn:
            lines = self._lines  # replaced by each commit, never changed
        chosen = (
            line
            for line in reversed(lines)
            if model in (None, line.model) and line.seq > since_seq and (before_seq is None or line.seq < before_seq)
        )
        return [line for line, _ in zip(chosen, range(limit), strict=False)]

    def close(self) -> None:
        pass

    def _version(self, model: str) -> int:
        return self._states[model].version if model in self._states else 0

    def _forget(self, now_ns: int) -> None:
        """Requests are in the order in which they came."""
        while self._requests:
            oldest = next(iter(self._requests.values()))
            if now_ns - oldest.time_ns < REMEMBER_NS and len(self._requests) < REQUESTS_MAX:
                return
            del self._requests[oldest.request_id]
