"""The one writer of traffic: takes commands, journals what they change, then carries it out.

Changes of one model happen one after the other. A rollback is the exception: it is in force before it waits for
anything, and what was being written meanwhile is not carried out. What only tells of a fact (a slot is loaded, or
drained) cannot be refused: where the journal fails, it is owed to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from turnout.core.commands import (
    Assign,
    Command,
    Empty,
    EndBake,
    Fill,
    Load,
    Loaded,
    Lost,
    Rollback,
    SetWeights,
    Step,
    Swap,
    Unloaded,
)
from turnout.core.control import etag_of, step
from turnout.core.errors import ControlError, Refusal, ServingError
from turnout.core.slots import SlotState
from turnout.core.snapshot import Line
from turnout.core.traffic import Traffic
from turnout.runtime.counts import Counts
from turnout.runtime.events import Events
from turnout.runtime.fleet import Fleet, Model
from turnout.runtime.ledger import Ledger
from turnout.runtime.ports import ClockNs, JournalError
from turnout.runtime.requests import SERVER, Ask, lines_of, undone
from turnout.runtime.slot import Slot
from turnout.runtime.views import Health, ModelView, health_of, view_of
from turnout.runtime.works import Order, Works

T = TypeVar("T")

_MEND_S = (1.0, 30.0)  # the first and the longest time between attempts to write what is owed


@dataclass(slots=True)
class Desk:
    """What the controller knows of one model. `rollbacks`: how many are in force and not journaled yet."""

    model: Model
    state: Traffic
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    rollbacks: int = 0
    note: str = ""
    bake: asyncio.TimerHandle | None = None
    mending: asyncio.Task[None] | None = None


class Controller:
    """Used on the loop thread only.

    Args:
        now_ns: the time of day in nanoseconds; it should not jump.
    """

    def __init__(
        self,
        fleet: Fleet,
        works: Works,
        ledger: Ledger,
        events: Events,
        now_ns: ClockNs,
        counts: Counts,
        require_etag: bool = False,
    ) -> None:
        self.fleet = fleet
        self.works = works
        self.ledger = ledger
        self.events = events
        self.now_ns = now_ns
        self._counts = counts
        self._require_etag = require_etag
        self._desks: dict[str, Desk] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def stop(self) -> None:
        """Refuse new changes, and call off what fills slots. The journal keeps what was."""
        self._stopping = True
        for desk in self._desks.values():
            if desk.bake is not None:
                desk.bake.cancel()
            if desk.mending is not None:
                desk.mending.cancel()
        await self.works.stop()
        if self._tasks:
            await asyncio.wait(set(self._tasks))  # whoever stops waiting stops no write

    def adopt(self, model: Model, state: Traffic, note: str = "") -> Desk:
        """Take charge of a model in this state, which is in force."""
        desk = self._desks[model.name] = Desk(model, state, note=note)
        self._time_bake(desk)
        return desk

    def desk(self, name: str) -> Desk:
        """Raises:
        ControlError: MODEL_NOT_FOUND.
        """
        if (desk := self._desks.get(name)) is not None:
            return desk
        try:
            self.fleet.model(name)
        except ServingError as error:
            raise ControlError(Refusal.MODEL_NOT_FOUND, error.message, "model", model=name[:128]) from None
        raise ControlError(Refusal.MODEL_NOT_FOUND, f"model '{name}' is not open yet", "model", model=name)

    def desk_or_new(self, name: str) -> Desk:
        """Also for a model that the server has not had so far."""
        if name not in self._desks:
            model = Model(name)
            self.fleet.add(model)
            self.adopt(model, Traffic(name))
        return self._desks[name]

    def names(self) -> list[str]:
        return sorted(self._desks)

    def view(self, name: str) -> ModelView:
        """Raises:
        ControlError: MODEL_NOT_FOUND.
        """
        return self._view(self.desk(name))

    def health(self) -> list[tuple[str, Health]]:
        """Of every model, for little."""
        desks = self._desks.items()
        return [(name, health_of(desk.model, desk.state, self._trouble(desk))) for name, desk in desks]

    async def change(self, name: str, command: Command, ask: Ask, order: Order | None = None) -> Step:
        """Carry out a command, or with `validate_only` check it; to its end, also when the caller leaves. `order`: what
        its Fill is to load.

        Raises:
            ControlError: refused; nothing has changed.
        """
        desk = self.desk_or_new(name) if isinstance(command, Load) else self.desk(name)
        if ask.validate_only:
            return self._checked(desk, command, ask)
        asked_ns = self.now_ns()
        step = await self._to_the_end(self._change(desk, command, ask, order))
        if step.changes and isinstance(command, Swap | SetWeights):
            self._counts.moved(name, "swap" if isinstance(command, Swap) else "weights", self.now_ns() - asked_ns)
        return step

    async def _change(self, desk: Desk, command: Command, ask: Ask, order: Order | None) -> Step:
        name = desk.model.name
        async with desk.lock:
            step = self._checked(desk, command, ask)
            if not step.changes:
                return step
            lines, undo = (
                lines_of(name, step.changes, ask, self.now_ns()),
                lines_of(name, undone(step.changes), SERVER, self.now_ns()),
            )
            try:
                remembered = ask.remembered(self.now_ns())
                numbered = await self.ledger.write(step.state, lines, remembered, undo)
            except JournalError as error:
                self._mend(desk)  # it may be there all the same, and a restart must not bring it back
                raise ControlError(
                    Refusal.STATE_STORE, "the journal cannot be written, so nothing was changed: see the server's log"
                ) from error
            if desk.rollbacks:
                self.ledger.owe(name, undo, ask.request_id)
                raise _overtaken(name)
            self._carry_out(desk, step, order)
            self._publish(desk, numbered)
        return step

    async def roll_back(self, name: str, command: Rollback, ask: Ask) -> Step:
        """In force when this first waits. One that finds nothing to change still goes before what is being written.

        Raises:
            ControlError: there is nothing to go back to, or a given etag is stale.
        """
        desk = self.desk(name)
        step = self._checked(desk, command, ask)
        if ask.validate_only or not (step.changes or desk.rollbacks or desk.lock.locked()):
            return step
        asked_ns = self.now_ns()
        lines = lines_of(name, step.changes, ask, asked_ns)
        desk.rollbacks += 1
        self._carry_out(desk, step, None)
        self._counts.moved(name, "rollback", self.now_ns() - asked_ns)
        await self._to_the_end(self._journal_rollback(desk, lines, ask))
        return step

    async def _journal_rollback(self, desk: Desk, lines: Sequence[Line], ask: Ask) -> None:
        try:
            async with desk.lock:
                try:
                    lines = await self.ledger.write(desk.state, lines, ask.remembered(self.now_ns()))
                except JournalError:
                    self.ledger.owe(desk.model.name, lines)
                    self._mend(desk)
        finally:
            desk.rollbacks -= 1
        self._publish(desk, lines)

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """As a task of its own: a caller that is cancelled must not leave memory and journal at odds."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _checked(self, desk: Desk, command: Command, ask: Ask) -> Step:
        name = desk.model.name
        if self._stopping:
            raise ControlError(Refusal.STOPPING, "the server stops: ask another one")
        if desk.rollbacks and not isinstance(command, Rollback):
            raise _overtaken(name)
        given, current = ask.etag.removeprefix('"').removesuffix('"'), etag_of(desk.state, command)
        if given and given != current:
            generation = desk.state.route.generation if desk.state.route else 0
            raise ControlError(
                Refusal.ETAG_MISMATCH,
                f"the etag is {given[:64]}, and {current} is current: read the model again",
                "mutation.etag",
                current_etag=current,
                generation=generation,
                model=name,
            )
        if not given and self._require_etag and not ask.on_behalf and not isinstance(command, Rollback):
            raise ControlError(Refusal.ETAG_REQUIRED, "there is no etag, and --require-etag is set", "mutation.etag")
        return step(desk.state, command, self.now_ns())

    def _carry_out(self, desk: Desk, step: Step, order: Order | None) -> None:
        """Without waiting: what takes time goes on by itself, and knows its slot's etag, by which it tells what it was
        begun for from what came after."""
        desk.state = step.state
        for effect in step.effects:
            match effect:
                case Assign():
                    desk.model.assign(effect.route)
                case Empty():
                    self.works.empty(desk.model, effect.slot, partial(self._emptied, desk, _etag(desk, effect.slot)))
                case Fill():
                    if order is None:
                        raise AssertionError("a slot is filled by an order")
                    done = partial(self._filled, desk, _etag(desk, effect.slot), order.request_id)
                    self.works.fill(desk.model, effect.slot, order, done)
        self._time_bake(desk)

    async def _filled(self, desk: Desk, etag: int, request_id: str, slot: Slot) -> None:
        ready = slot.state is SlotState.READY
        if not ready:
            self.ledger.void(desk.model.name, request_id)  # who waits is told that it failed, and may ask again
        await self._tell(desk, Loaded(slot.name) if ready else Lost(slot.name, slot.message), SlotState.LOADING, etag)

    async def _emptied(self, desk: Desk, etag: int, slot: Slot) -> None:
        await self._tell(desk, Unloaded(slot.name), SlotState.DRAINING, etag)

    async def _tell(self, desk: Desk, fact: Loaded | Lost | Unloaded, expected: SlotState, etag: int) -> None:
        def still() -> bool:
            record = desk.state.slots.get(fact.slot)
            return record is not None and record.state is expected and record.etag == etag

        await self._to_the_end(self._settle(desk, fact, still))

    async def _settle(self, desk: Desk, fact: Command, still: object = None) -> None:
        """Journal and carry out what the server itself has to say, after any rollback that is under way."""
        name = desk.model.name
        while True:
            async with desk.lock:
                if desk.rollbacks:
                    await asyncio.sleep(0)  # its turn is next: it asks for the lock by then, and locks go in order
                    continue
                if callable(still) and not still():
                    return
                done = step(desk.state, fact, self.now_ns())
                if not done.changes:
                    return
                lines: Sequence[Line] = lines_of(name, done.changes, SERVER, self.now_ns())
                try:
                    lines = await self.ledger.write(done.state, lines)
                except JournalError:
                    if isinstance(fact, EndBake):
                        self._mend(desk)
                        self._time_bake(desk, _MEND_S[1])
                        return
                    if not desk.rollbacks:
                        self.ledger.owe(name, lines)
                        self._mend(desk)
                else:
                    if desk.rollbacks:
                        self.ledger.owe(name, lines_of(name, undone(done.changes), SERVER, self.now_ns()))
                if desk.rollbacks:
                    continue
                if isinstance(fact, Loaded):
                    desk.model.problem = ""  # whatever the repository was like at start: it can be used now
                self._carry_out(desk, done, None)
                self._publish(desk, lines)
                return

    def _time_bake(self, desk: Desk, seconds_min: float = 0.0) -> None:
        if desk.bake is not None:
            desk.bake.cancel()
            desk.bake = None
        if desk.state.bake_until_ns and not self._stopping:
            seconds = max((desk.state.bake_until_ns - self.now_ns()) / 1e9, seconds_min, 0.0)
            # Loops may fire a little early, and what comes early is asked again.
            desk.bake = asyncio.get_running_loop().call_later(seconds + 0.001, self._end_bake, desk)

    def _end_bake(self, desk: Desk) -> None:
        desk.bake = None
        task = asyncio.ensure_future(self._baked(desk))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _baked(self, desk: Desk) -> None:
        await self._settle(desk, EndBake())
        if desk.bake is None:
            self._time_bake(desk)

    def _mend(self, desk: Desk) -> None:
        if desk.mending is None and not self._stopping:
            desk.mending = asyncio.ensure_future(self._write_owed(desk))

    async def _write_owed(self, desk: Desk) -> None:
        """Until the journal can be written again."""
        seconds = _MEND_S[0]
        while self.ledger.owes(desk.model.name):
            await asyncio.sleep(seconds)
            seconds = min(seconds * 2, _MEND_S[1])
            async with desk.lock:
                try:
                    if self.ledger.owes(desk.model.name):
                        await self.ledger.write(desk.state, [])
                except JournalError:
                    continue
        desk.mending = None
        self._publish(desk, [])

    def _publish(self, desk: Desk, lines: Sequence[Line]) -> None:
        view = self._view(desk)
        for line in lines:
            self.events.publish("slot" if line.object.startswith("slots/") else "route", view, line)
        if not lines:
            self.events.publish("route", view, None)

    def stepped(self, name: str) -> None:
        """A slot has come a step further that is not journaled, such as WARMING."""
        if (desk := self._desks.get(name)) is not None:
            self.events.publish("slot", self._view(desk), None)

    def _view(self, desk: Desk) -> ModelView:
        view = view_of(desk.model, desk.state, self.now_ns(), self._trouble(desk))
        return replace(view, message="; ".join(filter(None, (view.message, desk.note))))

    def _trouble(self, desk: Desk) -> str:
        owes = self.ledger.owes(desk.model.name)
        return "the journal cannot be written, and may not say what is in force" if owes else ""


def _etag(desk: Desk, slot: str) -> int:
    return desk.state.slots[slot].etag


def _overtaken(name: str) -> ControlError:
    return ControlError(
        Refusal.OPERATION_IN_PROGRESS,
        f"a rollback of model '{name}' goes before: read the model again, then decide",
        model=name,
    )
