"""Requests by their ids: one that comes again is not carried out again, and gets the first answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from turnout.core.commands import Change
from turnout.core.errors import ControlError, Refusal
from turnout.core.snapshot import Line, Remembered
from turnout.runtime.ledger import Ledger
from turnout.runtime.ports import ClockNs, JournalError

_RECENT_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Ask:
    """Who asks for a change, and how. `fingerprint` tells requests with the same id apart. `on_behalf`: what the server
    does in the course of a request that had its say about the etag, or has no way to give one."""

    actor: str
    reason: str = ""
    etag: str = ""
    request_id: str = ""
    fingerprint: str = ""
    validate_only: bool = False
    on_behalf: bool = False

    def remembered(self, now_ns: int) -> Remembered | None:
        return Remembered(self.request_id, self.fingerprint, now_ns) if self.request_id else None


SERVER = Ask("server")  # what it does by itself


def lines_of(model: str, changes: Sequence[Change], ask: Ask, now_ns: int) -> list[Line]:
    """What the journal says of changes that were asked for."""
    return [
        Line(
            0,
            now_ns,
            model,
            change.object,
            change.from_state,
            change.to_state,
            ask.actor,
            ask.reason,
            change.cause,
            ask.request_id,
            change.generation,
        )
        for change in changes
    ]


def undone(changes: Sequence[Change]) -> list[Change]:
    """What takes back others."""
    return [replace(c, from_state=c.to_state, to_state=c.from_state, cause="cancelled") for c in changes]


class Requests:
    """Used on the loop thread only."""

    def __init__(self, ledger: Ledger, now_ns: ClockNs) -> None:
        self._ledger = ledger
        self._now_ns = now_ns
        self._running: dict[str, tuple[str, asyncio.Task[bytes]]] = {}
        self._recent: dict[str, tuple[str, bytes]] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()

    async def once(
        self, ask: Ask, work: Callable[[], Awaitable[bytes]], current: Callable[[], bytes], urgent: bool = False
    ) -> bytes:
        """The answer of `work`, which goes on when the caller leaves; or the first answer to the same request.

        Args:
            current: the answer where the first one is not known any more.
            urgent: do not ask the journal before: a request of an earlier run of the server is carried out again.

        Raises:
            ControlError: REQUEST_ID_REUSED, STATE_STORE, or what `work` raises.
        """
        if not ask.request_id or ask.validate_only:
            return await asyncio.shield(self._own(work()))
        if (running := self._running.get(ask.request_id)) is not None:
            _refuse_other(ask, running[0])
            return await asyncio.shield(running[1])
        if (recent := self._recent.get(ask.request_id)) is not None:
            _refuse_other(ask, recent[0])
            return recent[1]
        task = self._own(self._first(ask, work, current, urgent))
        self._running[ask.request_id] = (ask.fingerprint, task)
        task.add_done_callback(lambda _: self._running.pop(ask.request_id, None))
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Wait for what is under way; its callers may have left. Whoever stops waiting stops nothing."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _own(self, work: Awaitable[bytes]) -> asyncio.Task[bytes]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # its caller may have left
        return task

    async def _first(
        self, ask: Ask, work: Callable[[], Awaitable[bytes]], current: Callable[[], bytes], urgent: bool
    ) -> bytes:
        if not urgent:
            try:
                found = await self._ledger.remembered(ask.request_id, self._now_ns())
            except JournalError as error:
                raise ControlError(Refusal.STATE_STORE, "the journal cannot be read: retry later") from error
            if found is not None:
                _refuse_other(ask, found.fingerprint)
                return found.answer or current()
        answer = await work()
        while len(self._recent) >= _RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self._recent[ask.request_id] = (ask.fingerprint, answer)
        with contextlib.suppress(JournalError):  # a replay after a restart then gets the model as it is
            await self._ledger.remember_answer(ask.request_id, answer)
        return answer


def _refuse_other(ask: Ask, fingerprint: str) -> None:
    if ask.fingerprint != fingerprint:
        raise ControlError(
            Refusal.REQUEST_ID_REUSED,
            f"request id '{ask.request_id}' came before with another request: make a new id for each request",
            "mutation.request_id",
        )
