"""Work on slots that takes time: filling one, draining one, one after the other for each slot. Tasks with an owner;
what is to be done is decided elsewhere, and what came of it is told to whoever asked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from turnout.core.model import Artefact
from turnout.core.slots import SlotState
from turnout.runtime.fleet import Model
from turnout.runtime.gates import Gates
from turnout.runtime.opening import Opener
from turnout.runtime.ports import ModelSource, Observer
from turnout.runtime.slot import Slot

_ON_THE_WAY = (SlotState.LOADING, SlotState.WARMING)


@dataclass(frozen=True, slots=True)
class Order:
    """What a slot is to be filled with, and what that is held to. `request_id`: of who waits for it, if anybody."""

    source: ModelSource
    artefact: Artefact
    gates: Gates
    request_id: str = ""


Done = Callable[[Slot], Awaitable[None]]


class Works:
    """Runs at most one piece of work for a slot at a time, in the order in which they were asked for.

    Args:
        observer: of the slots that are made here.
    """

    def __init__(self, opener: Opener, observer: Observer) -> None:
        self.opener = opener
        self._observer = observer
        self._tasks: dict[tuple[str, str], list[asyncio.Task[None]]] = {}  # of each slot, the oldest first
        self._fills: set[asyncio.Task[None]] = set()

    def fill(self, model: Model, name: str, order: Order, done: Done) -> None:
        """Load into a slot once it is empty; `done` is told when it is READY or FAILED, unless it is called off."""
        slot = self.slot(model, name)
        slot.size_bytes = order.artefact.size_bytes
        self._fills.add(self._start(model, name, self._fill(slot, order, done, self._under_way(model, name))))

    def empty(self, model: Model, name: str, done: Done) -> None:
        """Call off what fills a slot, let those under way finish, free what it holds; then tell `done`."""
        before = self._under_way(model, name)
        for task in before:
            if task in self._fills:
                task.cancel()
        self._start(model, name, self._empty(model, self.slot(model, name), done, before))

    def slot(self, model: Model, name: str) -> Slot:
        """The slot by its name, made if it is not there."""
        return model.slots.setdefault(name, Slot(model.name, name, self._observer))

    async def settled(self, model: str, name: str) -> None:
        """Returns when nothing is under way for a slot."""
        while tasks := self._tasks.get((model, name)):
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        """Call off every fill, and wait for nothing else: what drains ends with the server."""
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _under_way(self, model: Model, name: str) -> list[asyncio.Task[None]]:
        return list(self._tasks.get((model.name, name), ()))

    def _start(self, model: Model, name: str, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        key = (model.name, name)
        self._tasks.setdefault(key, []).append(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._fills.discard(task)
            self._tasks[key].remove(task)
            if not self._tasks[key]:
                del self._tasks[key]

        task.add_done_callback(ended)
        return task

    async def _fill(self, slot: Slot, order: Order, done: Done, before: list[asyncio.Task[None]]) -> None:
        await _after(before)
        try:
            await self.opener.fill(slot, order.source, order.artefact, order.gates)
        except asyncio.CancelledError:
            if slot.state in _ON_THE_WAY:
                slot.move(SlotState.EMPTY, "called off")
                slot.revision = None
                self._close(slot)
            raise
        except Exception as error:  # noqa: BLE001 - our own fault must not leave a slot that loads for ever
            error_id = secrets.token_hex(8)
            self._observer.handler_failed("fill", error_id, error)
            slot.move(SlotState.FAILED, f"internal error (error id {error_id})")
        await done(slot)

    async def _empty(self, model: Model, slot: Slot, done: Done, before: list[asyncio.Task[None]]) -> None:
        await _after(before)
        if slot.state is SlotState.READY:
            await slot.unload()
        elif slot.state is SlotState.FAILED:
            slot.move(SlotState.EMPTY)
            slot.revision = None
        self._close(slot)
        slot.gates, slot.warnings = None, ()
        if self._under_way(model, slot.name)[-1] is asyncio.current_task():
            slot.size_bytes = 0  # else it is what the next load reserves
            routed = model.route is not None and any(target.slot == slot.name for target in model.route.targets)
            if not routed:
                model.slots.pop(slot.name, None)
        await done(slot)

    def _close(self, slot: Slot) -> None:
        self.opener.accounts.close(slot.model, slot.name)


async def _after(before: list[asyncio.Task[None]]) -> None:
    """All of them: one that is called off ends at once, and what it waited for may go on."""
    if before:
        await asyncio.wait(before)
