"""Seeded simulation: the real dispatcher, fleet, slots and batchers on virtual time, under random traffic and faults.

Each seed makes a server with a queue policy, an arrival process and a set of faults: poisonous requests, clients that
leave, deadlines that pass, queues that overflow, a slot that is unloaded in the middle, a slow and faulty shadow. Then
the invariants of ARCHITECTURE.md that such a run can break are checked. Run by `make sim`; a failure prints the SEED
that repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from support.shadows import shadow_rule
from support.virtual import VirtualLoop, inline, run_virtual
from support.world import DECLARED, Outcome, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.batch_policy import BatchPolicy, QueuePolicy
from turnout.core.copies import PairKind
from turnout.core.errors import Reason, ServingError
from turnout.core.model import Execution
from turnout.core.shadow_rules import ShadowRule
from turnout.core.slots import SlotState
from turnout.runtime.account import Outcome as Counted
from turnout.runtime.budget import Budget
from turnout.runtime.comparison_feed import ComparisonFeed
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.shadows import Shadows

MS = 1_000_000
POISON = -1.0


@dataclass
class Sent:
    """A request, and what became of it."""

    value: float
    rows: int
    inference_id: str
    sent_ns: int
    deadline_ns: int | None
    outcome: Outcome | None = None  # None: refused at once
    refusal: Reason | None = None
    cancelled: bool = False

    @property
    def computed(self) -> bool:
        """Whether there is an answer, or an error of the model itself."""
        answer = self.outcome.answer if self.outcome is not None else None
        if isinstance(answer, ServingError):
            return answer.reason is Reason.EXECUTION_FAILED
        return answer is not None


@dataclass
class Plan:
    """Everything that chance decides about one run."""

    seed: int
    rows_max: int
    instances: int
    queue_rows_max: int
    run_ms: float
    row_ms: float
    requests: int
    gap_ms: float
    poison: float
    cancel: float
    deadline: float
    unload_after: int | None  # requests; None: never
    policy: BatchPolicy
    budget_rows_max: int
    rule: ShadowRule | None
    shadow_run_ms: float
    break_reuse: bool = False  # the control: break invariant 13 on purpose

    @classmethod
    def draw(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        return cls(
            seed=seed,
            rows_max=rng.choice([1, 2, 4, 8, 32]),
            instances=rng.choice([1, 1, 2, 3]),
            queue_rows_max=rng.choice([4, 32, 1000]),
            run_ms=rng.choice([0, 0.5, 3, 20]),
            row_ms=rng.choice([0, 0.1]),
            requests=rng.choice([20, 100, 300]),
            gap_ms=rng.choice([0, 0.2, 1, 5]),
            poison=rng.choice([0, 0, 0.02, 0.3]),
            cancel=rng.choice([0, 0.1, 0.5]),
            deadline=rng.choice([0, 0.3, 1]),
            unload_after=rng.choice([None, None, rng.randrange(20)]),
            policy=_policy(rng),
            budget_rows_max=rng.choice([8, 64, 1 << 20]),
            rule=_rule(rng),
            shadow_run_ms=rng.choice([0, 3, 300]),
        )


def _policy(rng: random.Random) -> BatchPolicy:
    levels = rng.choice([0, 0, 3])
    queue = QueuePolicy(
        timeout_ns=rng.choice([0, 0, 30 * MS]),
        delays=rng.choice([False, False, True]),
        override=rng.choice([False, True]),
        requests_max=rng.choice([0, 0, 10]),
    )
    return BatchPolicy(
        gathers=rng.choice([True, False]),
        padded=rng.choice([False, False, True]),
        delay_ns_max=rng.choice([0, 0, 1 * MS, 15 * MS]),
        preferred_rows=rng.choice([(), (), (2,), (4, 8)]),
        preserve_ordering=rng.choice([False, False, True]),
        priority_levels=levels,
        priority_default=min(levels, 2),
        queue=queue,
        queue_by_level={1: QueuePolicy()} if levels else {},
    )


def _rule(rng: random.Random) -> ShadowRule | None:
    rule = shadow_rule(
        "v1",
        rng.choice([3000, 10_000]),
        queue_max=rng.choice([1, 20, 1000]),
        bytes_max=rng.choice([100, 1 << 20]),
        deadline_ns=rng.choice([1, 60 * MS, 2000 * MS]),
        noise_bp=rng.choice([0, 5000]),
    )
    return rng.choice([None, rule])


async def simulate(loop: VirtualLoop, plan: Plan) -> str:
    """One run; returns a digest of all that happened.

    Raises:
        AssertionError: an invariant does not hold.
    """
    rng = random.Random(plan.seed + 1)
    world = World(loop, SlotLimits(plan.queue_rows_max, 1 << 30))
    world.budget = Budget(plan.budget_rows_max, 1 << 30)
    model, shadow = SyntheticModel(DECLARED), SyntheticModel(DECLARED)
    execution = Execution(instances=plan.instances)
    source = SyntheticSource("m", (2, 1), plan.rows_max, execution=execution, policy=plan.policy)
    model.wait = lambda rows: world.clock.spend(int((plan.run_ms + plan.row_ms * rows) * MS))
    shadow.wait = lambda rows: world.clock.spend(int(plan.shadow_run_ms * MS))
    await world.load({"m/2": model, "m/1": shadow}, [source], rng.randrange)
    model.poison, model.reuse_outputs = POISON, plan.break_reuse
    shadow.poison = POISON if plan.seed % 2 else 7.0
    model.runs.clear()
    shadows = _shadowed(world, plan, rng)
    sent: list[Sent] = []
    tasks: set[asyncio.Task[None]] = set()
    slot = world.fleet.model("m").slots["blue"]
    for number in range(plan.requests):
        sent.append(await _send(world, plan, rng, number))
        if rng.random() < plan.cancel:
            tasks.add(asyncio.ensure_future(_leave(sent[-1], rng.expovariate(1 / 0.005))))
        if number == plan.unload_after:
            tasks.add(asyncio.ensure_future(slot.unload()))
        queued = slot.cargo.batcher.queued_rows if slot.cargo else 0
        assert queued <= max(plan.queue_rows_max, plan.rows_max), "6: the queue is bounded"
        assert world.budget.rows <= max(plan.budget_rows_max, plan.rows_max), "6: what is under way is bounded"
        copies = sum(report.queued for report in shadows.reports())
        assert plan.rule is None or copies <= plan.rule.queue_max, "6: copies are bounded"
        await asyncio.sleep(rng.expovariate(1 / plan.gap_ms) / 1000 if plan.gap_ms else 0)
    await asyncio.sleep(60)
    await asyncio.gather(*tasks)
    _check(world, plan, model, sent)
    _check_copies(world, plan, shadows, sent)
    await shadows.stop()
    return _digest(sent, model)


def _shadowed(world: World, plan: Plan, rng: random.Random) -> Shadows:
    bits = random.Random(plan.seed).getrandbits
    shadows = Shadows(world.fleet, world.clock, world.clock, inline, world.seen, bits, ComparisonFeed())
    world.dispatcher = Dispatcher(world.fleet, world.clock, rng.randrange, shadow=shadows)
    served = world.fleet.model("m")
    if plan.rule is not None and served.route is not None:
        served.assign(replace(served.route, generation=2, shadows=(plan.rule,)))
    return shadows


async def _send(world: World, plan: Plan, rng: random.Random, number: int) -> Sent:
    rows = rng.randint(1, plan.rows_max)
    value = POISON if rng.random() < plan.poison else float(number + 1)
    now_ns = world.clock()
    deadline_ns = now_ns + int(rng.expovariate(1 / (20 * MS))) if rng.random() < plan.deadline else None
    timeout_ns = rng.choice([0, 0, 25 * MS])
    one = Sent(value, rows, f"id-{number}", now_ns, deadline_ns)
    asked = request(
        value,
        rows,
        inference_id=one.inference_id,
        deadline_ns=deadline_ns,
        timeout_ns=timeout_ns,
        priority=rng.randrange(5),
    )
    try:
        one.outcome = world.infer(asked)
    except ServingError as refusal:
        one.refusal = refusal.reason
        return one
    ticket = one.outcome.ticket
    if ticket is not None and ticket.deadline_ns is not None and rng.random() < 0.5:
        hint_ns = ticket.deadline_ns - now_ns + rng.choice([-1, 0, 2]) * MS
        asyncio.get_running_loop().call_later(max(hint_ns, 0) / 1e9, ticket.expire)
    return one


async def _leave(one: Sent, after_s: float) -> None:
    await asyncio.sleep(after_s)
    if one.outcome is not None and one.outcome.ticket is not None and one.outcome.answer is None:
        one.cancelled = True
        one.outcome.ticket.cancel()


def _check(world: World, plan: Plan, model: SyntheticModel, sent: list[Sent]) -> None:
    for one in sent:
        _check_one(one)
    slot = world.fleet.model("m").slots["blue"]
    assert slot.leases == 0, "every lease was released"
    assert world.fleet.under_way.count == 0, "and no request is under way any more"
    assert (world.budget.rows, world.budget.bytes) == (0, 0), "the budget was given back"
    assert slot.state is (SlotState.READY if plan.unload_after is None else SlotState.EMPTY), slot.state
    counted = {outcome: slot.account.tally(outcome).requests for outcome in Counted}
    leased = [one for one in sent if one.refusal is not Reason.NOT_READY]
    assert sum(counted.values()) == len(leased), "each request is counted exactly once"
    assert counted[Counted.SUCCESS] == sum(one.outcome is not None and bool(one.outcome.kept) for one in sent)
    assert counted[Counted.CANCELLED] == sum(one.cancelled for one in sent)
    if plan.policy.preserve_ordering:
        answered = [one.outcome.nth for one in sent if one.outcome is not None and one.outcome.kept]
        assert answered == sorted(answered), "answers left in the order of their requests"
    assert sum(run.runs for run in slot.account.batches.values()) <= len(model.runs)
    assert all(rows <= plan.rows_max for rows in model.runs)


def _check_copies(world: World, plan: Plan, shadows: Shadows, sent: list[Sent]) -> None:
    assert world.fleet.model("m").slots["v1"].leases == 0, "every copy's lease was released"
    assert not any(report.queued for report in shadows.reports()), "no copy keeps its place"
    assert not world.seen.handler_failures, world.seen.handler_failures
    account = shadows.account
    compared = sum(count for (*_, kind, _), count in account.comparisons.items() if kind is PairKind.SHADOW)
    offered = sum(plan.rule is not None and plan.rule.takes(one.inference_id) for one in sent if one.computed)
    assert offered == compared + account.dropped.total(), "each copy is compared, or dropped and counted"


def _check_one(one: Sent) -> None:
    if one.outcome is None:
        allowed = (Reason.QUEUE_FULL, Reason.NOT_READY, Reason.DEADLINE_EXCEEDED)
        assert one.refusal in allowed, one.refusal
        return
    assert one.outcome.calls == (0 if one.cancelled else 1), "each request ends exactly once"
    answer = one.outcome.answer
    if one.cancelled:
        assert answer is None
    elif isinstance(answer, ServingError):
        expected = Reason.EXECUTION_FAILED if one.value == POISON else Reason.DEADLINE_EXCEEDED
        assert answer.reason in (expected, Reason.DEADLINE_EXCEEDED), f"10: {answer.reason} for value {one.value}"
    else:
        assert answer is not None
        assert one.value != POISON
        ((_, array),) = answer.outputs
        assert np.array_equal(one.outcome.kept[0], array), "13: an answer changed after it was given"
        assert array.shape == (one.rows, 4)
        assert (array == 2 * one.value).all(), "an answer holds another request's rows"
        started_ns = one.sent_ns + answer.timings.queue_ns
        assert one.deadline_ns is None or started_ns < one.deadline_ns, "a request ran after its deadline"


def _digest(sent: list[Sent], model: SyntheticModel) -> str:
    history = [(o.value, o.rows, o.refusal, o.cancelled, type(o.outcome and o.outcome.answer).__name__) for o in sent]
    return hashlib.sha256(repr((history, model.runs)).encode()).hexdigest()


def run(plan: Plan) -> str:
    return run_virtual(lambda loop: simulate(loop, plan))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, help="repeat one run")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    count = 1 if options.seed is not None else options.runs
    requests = 0
    for seed in range(first, first + count):
        plan = Plan.draw(seed)
        try:
            run(plan)
        except BaseException:
            print(f"SEED={seed} fails: repeat it with `make sim SEED={seed}`\n{plan}", file=sys.stderr)
            raise
        requests += plan.requests
    print(f"sim: {count} runs from seed {first}, {requests} requests, every invariant held")


if __name__ == "__main__":
    main()
