"""Seeded simulation of the controller: random operations, with a crash at every journal write and every effect, and
with a journal that fails at its n-th write, for n = 1 and on, once and for ever. A failure prints the SEED that
repeats it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.control import Control, FlakyJournal, S, Shelf
from support.virtual import VirtualLoop, run_virtual
from turnout.core.errors import ControlError, Refusal, ServingError
from turnout.core.slots import SlotState
from turnout.runtime.requests import Ask
from turnout.runtime.views import Health
from turnout.store.memory_journal import MemoryJournal

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else list(range(int(os.environ.get("RUNS", "12"))))
STEPS = 14
SLOTS = ("blue", "green", "red")
WHY = Ask("alice", "to see")
VARIANTS = {(2, "int8"): ("it has no report",)}


@dataclass
class Point:
    """The journal as a crash would leave it, and what was acknowledged last: the split, and the shadow rules."""

    where: str
    journal: MemoryJournal
    acknowledged: dict[str, int]
    shadows: dict[str, int]
    asked: bool  # something is under way: the journal may be ahead of what was acknowledged


class Recorder(FlakyJournal):
    """Keeps a copy of itself before and after each write."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def commit(self, *args: Any, **more: Any) -> Any:
        self._run.point(f"before write {self.calls + 1}", self)
        try:
            return super().commit(*args, **more)
        finally:
            self._run.point(f"after write {self.calls}", self)


@dataclass
class Run:
    """One run of a seed's operations."""

    seed: int
    fail: dict[int, bool] = field(default_factory=dict)
    broken_from: int | None = None
    points: list[Point] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    shadows: dict[str, int] = field(default_factory=dict)
    asked: bool = False
    writes: int = 0
    refused: int = 0

    def point(self, where: str, journal: MemoryJournal) -> None:
        dead = MemoryJournal()
        dead.__dict__.update({key: copy(journal.__dict__[key]) for key in dead.__dict__ if key != "_turn"})
        self.points.append(Point(where, dead, dict(self.acknowledged), dict(self.shadows), self.asked))

    async def __call__(self, loop: VirtualLoop) -> Control:
        rng = random.Random(self.seed)
        journal = Recorder(self)
        control = await Control.open(loop, journal=journal, shelf=_shelf(rng), pause_s=0.01)
        self.acknowledged = control.in_force
        seen = control.seen.slot_changed

        def effect(*args: Any) -> None:
            seen(*args)
            self.point(f"effect {args[1]} {args[2].value}", journal)

        control.seen.slot_changed = effect  # type: ignore[method-assign]
        journal.fail = {journal.calls + nth: written for nth, written in self.fail.items()}
        first = journal.calls
        for slot, version in (("green", 2), ("red", 3)):
            await self._carried_out(control, control.load(slot, version))
        for _ in range(STEPS):
            journal.broken = self.broken_from is not None and journal.calls - first >= self.broken_from - 1
            await self._operation(control, rng)
            await asyncio.sleep(rng.choice([0, 0.005, 1, 30]))
        self.writes = journal.calls - first
        return control

    async def _operation(self, control: Control, rng: random.Random) -> None:
        slot, other = rng.sample(SLOTS, 2)
        weight = rng.randrange(10_001)
        work = rng.choice(
            [
                *[lambda: control.load(slot, rng.randint(1, 3), wait=rng.random() < 0.7, replace=rng.random() < 0.3)]
                * 3,
                lambda: control.load(slot, 2, variant="int8", ask=WHY, force=weight % 2 == 0, replace=weight % 3 == 0),
                lambda: control.swap(slot, bake_ns=rng.choice([0, 20 * S])),
                lambda: control.swap(slot, bake_ns=600 * S),
                lambda: control.weights(**{slot: weight, other: 10_000 - weight}),
                lambda: control.unload(slot, wait=rng.random() < 0.5),
                lambda: control.shadow(slot, 1 + weight % 10_000),
                lambda: control.clear_shadow(slot),
                lambda: control.roll_back(),
                lambda: control.roll_back(slot, allow_reload=True),
            ]
        )
        await self._carried_out(control, work())

    async def _carried_out(self, control: Control, work: Awaitable[Any]) -> None:
        self.asked = True
        try:
            await work
            self.acknowledged, self.shadows = control.in_force, control.shadows
        except ControlError as error:
            assert error.refusal is not Refusal.INTERNAL
            self.refused += 1
        self.asked = False


def _shelf(rng: random.Random) -> Shelf:
    """With a variant that nobody gets in but by force."""
    return Shelf(load_s=rng.choice([0, 3]), variants=VARIANTS)


def consistent(control: Control) -> None:
    """What requests see, what operators are told and what the slots are do not contradict each other."""
    desk = control.controller.desk("m")
    assert sum(control.in_force.values()) == 10_000
    assert desk.state.route == desk.model.route
    for name, record in desk.state.slots.items():
        slot = desk.model.slots.get(name)
        assert (slot.state if slot else SlotState.EMPTY) is record.state, f"slot {name}"
        assert (slot.revision if slot else None) == record.revision
        is_variant = record.revision is not None and record.revision.variant != ""
        assert record.forced == ("it has no report" if is_variant else ""), "who was let in is known to the end"
    for name in control.shadows:
        record = desk.state.slots[name]
        assert record.state not in (SlotState.EMPTY, SlotState.DRAINING), "no shadow is taken away"
        told = f"the shadow rule of slot '{name}' is idle" in control.controller.view("m").message
        assert told == (record.state is not SlotState.READY)
    for name in control.in_force:
        assert desk.state.slots[name].state is SlotState.READY, "no slot has traffic unless READY"


async def settled(control: Control) -> None:
    await asyncio.sleep(2_000)  # loads, drains, bakes, and the journal that is put right
    consistent(control)
    outcome = control.infer()
    await asyncio.sleep(1)
    assert outcome.response.slot in control.in_force


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_at_any_write_or_effect_loses_nothing_that_was_acknowledged(seed: int) -> None:
    run = Run(seed)

    async def whole(loop: VirtualLoop) -> None:
        await settled(await run(loop))

    run_virtual(whole)
    assert len(run.points) > STEPS, f"SEED={seed}: there is something to crash at"
    for point in run.points:

        async def restart(loop: VirtualLoop, point: Point = point) -> None:
            control = await Control.open(loop, journal=point.journal, shelf=Shelf(variants=VARIANTS))
            if not point.acknowledged:
                return
            if not point.asked:
                assert control.in_force == point.acknowledged, f"SEED={seed} {point.where}"
                assert control.shadows == point.shadows, f"SEED={seed} {point.where}"
            assert control.in_force == control.journaled
            assert control.shadows == control.journaled_shadows
            await settled(control)

        try:
            run_virtual(restart)
        except BaseException as error:
            error.add_note(f"SEED={seed}: crash at {point.where}")
            raise


@pytest.mark.parametrize("seed", SEEDS[:6])
@pytest.mark.parametrize("how", ["before", "after", "for ever"])
def test_a_journal_that_fails_at_its_nth_write_keeps_the_promises(seed: int, how: str) -> None:
    nth, writes = 1, 1
    while nth <= writes:
        run = Run(seed, {} if how == "for ever" else {nth: how == "after"}, nth if how == "for ever" else None)

        async def one(loop: VirtualLoop, run: Run = run) -> None:
            control = await run(loop)
            if how == "for ever":
                consistent_route = control.in_force
                await asyncio.sleep(100)
                assert control.in_force == consistent_route, "without a journal nothing moves by itself"
                assert control.controller.view("m").health in Health
                control.journal.broken = False
            await settled(control)
            assert control.journaled == control.in_force, "the journal is put right"
            assert control.journaled_shadows == control.shadows
            later = await control.restarted()
            assert later.in_force == control.in_force
            assert later.shadows == control.shadows

        try:
            run_virtual(one)
        except (AssertionError, ServingError, RuntimeError) as error:
            error.add_note(f"SEED={seed}: write {nth} fails {how}")
            raise
        writes = min(run.writes, 40)
        nth += 1
    assert nth > 3, "it failed several times"
