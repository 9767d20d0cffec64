"""Whatever a shadow does, every live answer is the one without it, no copy is lost uncounted, and nothing is kept.

Seeded runs of the real dispatcher, slots, lanes and comparer on virtual time, beside the same run without a rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from support.control import Control, Shelf
from support.virtual import VirtualLoop, inline, run_virtual
from support.world import DECLARED, Outcome, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.copies import PairKind
from turnout.core.errors import ServingError
from turnout.core.records import Compared, ShadowReport
from turnout.core.sampling import Export
from turnout.core.shadow_rules import ShadowRule
from turnout.core.tensors import Tensors
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.shadowing import Shadowing
from turnout.runtime.shadows import Shadows
from turnout_wire.tensors import Array

MS = 1_000_000
HANG_MS = 100_000
POISON = -1.0
SEEDS = range(4)


class Odd(SyntheticModel):
    """A model whose answers go through `spoil`."""

    spoil: Callable[[Array], Array] = staticmethod(lambda y: y)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        return [self.spoil(y) for y in super().run(inputs, outputs)]


def _raises(y: Array) -> Array:
    raise RuntimeError("a crash")


def _some_nan(y: Array) -> Array:
    return np.where(y % 3 == 0, np.float32(np.nan), y)


SPOILS: dict[str, Callable[[Array], Array]] = {
    "fine": lambda y: y,
    "raises": _raises,
    "nan": _some_nan,
    "infinite": lambda y: np.full_like(y, np.inf),
    "wrong shape": lambda y: y[:, :2],
    "too few rows": lambda y: y[:-1],
    "no dimensions": lambda y: y.sum(),
    "wrong datatype": lambda y: y.astype(np.float64),
    "texts": lambda y: y.astype(str).astype(object),
}
WAITS_MS = {"slow": 300, "hangs": HANG_MS}
ENDING = ("unloaded", "replaced", "changed")  # a rule at work ends, and what waits is forgotten
WHAT = [*SPOILS, *WAITS_MS, *ENDING]


@dataclass
class Sink:
    """The ComparisonSink port, with a fault."""

    rng: random.Random

    def compared(self, told: Export[Compared]) -> None:
        if self.rng.random() < 0.5:
            raise RuntimeError("a bug")

    def summarised(self, report: ShadowReport) -> None:
        """Fine."""


@dataclass
class Played:
    """What clients got: by request slot, outputs or reason; and when. With copies by what became of them."""

    answers: list[tuple[Any, ...]] = field(default_factory=list)
    times: dict[int, float] = field(default_factory=dict)
    offered: int = 0
    compared: int = 0
    dropped: int = 0
    under_way: int = 0


@dataclass
class Plan:
    what: str
    seed: int
    rule: ShadowRule
    requests: int
    gap_ms: float
    rows_max: int
    pinned: float  # share of requests for the shadow slot itself
    turn: int  # the request before which a slot is unloaded or replaced, or the rule changed

    @classmethod
    def draw(cls, what: str, seed: int) -> Plan:
        rng = random.Random(f"{what} {seed}")
        rule = ShadowRule(
            slot="green",
            sample_bp=rng.choice([10_000, 10_000, 3000]),
            salt="s",
            comparators=(),
            queue_max=rng.choice([1, 10, 1000]),
            bytes_max=rng.choice([40, 400, 1 << 20]),
            deadline_ns=rng.choice([1, 100 * MS, 2000 * MS]),
            noise_bp=rng.choice([0, 0, 5000]),
        )
        gap_ms, rows_max = rng.choice([0.5, 5, 20]), rng.choice([1, 4])
        pinned = 0.2 if what in ("fine", "slow") else 0
        return cls(what, seed, rule, rng.choice([50, 150]), gap_ms, rows_max, pinned, rng.randrange(10, 40))


async def play(loop: VirtualLoop, plan: Plan, shadowed: bool) -> Played:
    rng = random.Random(plan.seed)
    odd = Odd(DECLARED)
    shelf = Shelf(models={1: SyntheticModel(DECLARED), 2: odd})
    control = await Control.open(loop, shelf=shelf)
    await control.load("green", 2)
    for model, wait_ms in ((shelf.models[1], 2), (odd, WAITS_MS.get(plan.what, 5))):
        model.wait = lambda rows, wait_ms=wait_ms: control.clock.spend(wait_ms * MS)  # type: ignore[misc]
    shelf.models[1].poison = POISON
    odd.spoil = SPOILS.get(plan.what, SPOILS["fine"])  # type: ignore[assignment]
    sink = Sink(rng=random.Random(plan.seed))
    fleet = control.admin.fleet
    shadows = Shadows(fleet, control.clock, control.now_ns, inline, control.seen, random.Random(1).getrandbits, sink)
    control.dispatcher = Dispatcher(fleet, control.clock, lambda n: 0, fallback=True, shadow=shadows)
    played = Played()
    if shadowed:
        await _set(control, plan.rule)
    for number in range(plan.requests):
        if number == plan.turn:
            await _turn(control, plan, shadowed)
        _ask(control, plan, played, number, rng)
        await _after(loop, rng.expovariate(1 / plan.gap_ms) / 1000)
    await _after(loop, 1)
    played.under_way = sum(report.queued for report in shadows.reports())
    assert played.under_way <= plan.rule.queue_max, "6: copies are bounded"
    played.compared = sum(n for (*_, kind, _), n in shadows.account.comparisons.items() if kind is PairKind.SHADOW)
    played.dropped = shadows.account.dropped.total()
    await _end(control, shadows, loop)
    return played


async def _after(loop: VirtualLoop, seconds: float) -> None:
    waited = loop.create_future()
    loop.call_later(seconds, waited.set_result, None)
    await waited


async def _set(control: Control, rule: ShadowRule) -> None:
    slots = {name: getattr(rule, name) for name in ("salt", "queue_max", "bytes_max", "deadline_ns", "noise_bp")}
    await control.shadow(rule.slot, rule.sample_bp, **slots)


def _ask(control: Control, plan: Plan, played: Played, number: int, rng: random.Random) -> None:
    outcome, started_s = Outcome(), control.loop.time()
    rows = rng.randint(1, plan.rows_max)
    value = POISON if rng.random() < 0.05 else float(number)
    slot = "green" if rng.random() < plan.pinned else None
    played.answers.append(())

    def done(answer: Any) -> None:
        outcome.done(answer)
        failed = isinstance(answer, ServingError)
        said = answer.reason if failed else [array.tobytes() for _, array in answer.outputs]
        played.answers[number] = (said, "" if failed else (answer.slot, str(answer.revision)), outcome.calls)
        if slot is None:
            played.times[number] = control.loop.time() - started_s
            route = control.admin.fleet.model("m").route
            played.offered += len(route.copies(f"id-{number}", "blue")) if route else 0

    control.dispatcher.infer(request(value, rows, inference_id=f"id-{number}", slot=slot), done)


async def _turn(control: Control, plan: Plan, shadowed: bool) -> None:
    """In the middle of it all. Loading and unloading go on by themselves."""
    match plan.what:
        case "unloaded":
            if shadowed:
                await control.clear_shadow("green")
            await control.unload("green", wait=False)
        case "replaced":
            await control.load("green", 3, wait=False, replace=True)
        case "changed":
            if shadowed:
                await _set(control, replace(plan.rule, salt="t"))
        case _:
            pass


async def _end(control: Control, shadows: Shadows, loop: VirtualLoop) -> None:
    """Everything comes to an end, also what hung."""
    await _after(loop, 3 * HANG_MS / 1000)
    reports = shadows.reports()
    assert [report.queued for report in reports] == [0] * len(reports)
    model = control.admin.fleet.model("m")
    assert {name: slot.leases for name, slot in model.slots.items()} == dict.fromkeys(model.slots, 0)
    await shadows.stop()
    assert all(failure[0] in ("compare", "shadow") for failure in control.seen.handler_failures)
    assert {str(failure[2]) for failure in control.seen.handler_failures} <= {"a bug"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("what", WHAT)
def test_no_live_answer_differs_and_no_copy_is_lost(what: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[int] = []
    close = Shadowing.close

    def counted(self: Shadowing) -> None:
        forgotten.append(self.queued)
        close(self)

    monkeypatch.setattr(Shadowing, "close", counted)
    plan = Plan.draw(what, seed)
    alone = run_virtual(lambda loop: play(loop, plan, shadowed=False))
    assert (alone.offered, alone.compared, alone.dropped) == (0, 0, 0)
    beside = run_virtual(lambda loop: play(loop, plan, shadowed=True))
    assert beside.answers == alone.answers
    assert all(answer and answer[2] == 1 for answer in beside.answers)
    if not plan.rule.noise_bp:
        assert beside.times == pytest.approx(alone.times, abs=1e-9), "copies take nothing from live requests here"
    assert beside.offered > 0
    lost = beside.offered - beside.compared - beside.dropped - beside.under_way
    assert 0 <= lost <= sum(forgotten), plan
    assert plan.what in ENDING or not lost, plan
