"""One model as an operator may see it, at one moment: what the journal keeps of it, and what the runtime measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from turnout.core.buckets import BASIS_POINTS
from turnout.core.gates import GateResult
from turnout.core.slots import SlotState
from turnout.core.snapshot import Line
from turnout.core.traffic import SlotRecord, Traffic
from turnout.runtime.account import Account, Outcome
from turnout.runtime.fleet import Model
from turnout.runtime.slot import Slot

_PINNED = "pins lead to it, so it stays READY until they are removed and it is unloaded"


class Health(Enum):
    HEALTHY = "HEALTHY"
    PROGRESSING = "PROGRESSING"  # a slot fills or empties, or a bake goes on
    DEGRADED = "DEGRADED"  # traffic leads to what is not READY, or a promise could not be kept


@dataclass(frozen=True, slots=True)
class CountsView:
    """Requests that have ended, since the slot's revision was loaded. Latencies are of successes, in nanoseconds."""

    requests: int
    successes: int
    errors: int
    rejected: int
    invalid: int
    cancelled: int
    p50_ns: float | None
    p99_ns: float | None


@dataclass(frozen=True, slots=True)
class SlotView:
    record: SlotRecord
    state: SlotState  # as it is, where the journal does not write each step
    message: str
    memory_bytes: int
    leases: int
    queued_rows: int
    rows_max: int
    providers: tuple[str, ...]
    gates: tuple[GateResult, ...]
    routed: CountsView
    pinned: CountsView
    held: bool


@dataclass(frozen=True, slots=True)
class ModelView:
    """`actual` has, by slot with traffic or requests: wanted share, share of `routed` requests, and their number."""

    traffic: Traffic
    health: Health
    message: str
    slots: tuple[SlotView, ...]
    stable: str
    candidate: str
    actual: tuple[tuple[str, int, int, int], ...]
    read_ns: int


@dataclass(frozen=True, slots=True)
class ReplaceCost:
    """What an in-place replace takes away: the share that nobody answers meanwhile, requests that are waited for, how
    long what goes took to load, and what it frees."""

    share_bp: int = 0
    leases: int = 0
    opening_ns: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A change, or a step of a load: `line` is what was journaled of it."""

    seq: int
    kind: str  # slot, route
    view: ModelView
    line: Line | None


def view_of(model: Model, traffic: Traffic, now_ns: int, trouble: str) -> ModelView:
    """`trouble`: what is wrong beyond what the model's slots tell, such as a journal that cannot be written."""
    route = traffic.route
    slots = tuple(_slot(model.slots.get(name), record, traffic) for name, record in traffic.slots.items())
    health, message = _health(model, traffic, [(view.record, view.state) for view in slots], trouble)
    return ModelView(
        traffic=traffic,
        health=health,
        message=message,
        slots=slots,
        stable=route.stable.slot if route and route.stable else "",
        candidate=route.candidate.slot if route and route.candidate else "",
        actual=_actual(model, traffic),
        read_ns=now_ns,
    )


def health_of(model: Model, traffic: Traffic, trouble: str) -> Health:
    """As `view_of` has it."""
    states = [(record, _state(model.slots.get(name), record)) for name, record in traffic.slots.items()]
    return _health(model, traffic, states, trouble)[0]


def memory_of(slot: Slot) -> int:
    """What its revision takes resident, as far as that is known."""
    cargo = slot.cargo
    return slot.size_bytes if cargo is None or cargo.memory_bytes is None else cargo.memory_bytes


def _slot(slot: Slot | None, record: SlotRecord, traffic: Traffic) -> SlotView:
    cargo = slot.cargo if slot is not None else None
    account = slot.account if slot is not None else Account()
    kept = record.state is SlotState.READY and traffic.pinned(record.name) and not traffic.weight_bp(record.name)
    return SlotView(
        record=record,
        state=_state(slot, record),
        message="; ".join(
            filter(None, (record.message, _forced(record), _PINNED if kept else "", *(slot.warnings if slot else ())))
        ),
        memory_bytes=memory_of(slot) if slot is not None and record.revision is not None else 0,
        leases=slot.leases if slot is not None else 0,
        queued_rows=cargo.batcher.queued_rows if cargo is not None else 0,
        rows_max=cargo.spec.signature.rows_max if cargo is not None else 0,
        providers=cargo.providers if cargo is not None else (),
        gates=tuple(slot.gates.results) if slot is not None and slot.gates is not None else (),
        routed=_counts(account, pinned=False),
        pinned=_counts(account, pinned=True),
        held=record.name == traffic.held,
    )


def _forced(record: SlotRecord) -> str:
    return f"forced: {record.forced}" if record.forced and record.state is not SlotState.FAILED else ""


def _state(slot: Slot | None, record: SlotRecord) -> SlotState:
    on_the_way = slot is not None and (record.state, slot.state) == (SlotState.LOADING, SlotState.WARMING)
    return SlotState.WARMING if on_the_way else record.state


def _counts(account: Account, pinned: bool) -> CountsView:
    tallies = account.pinned if pinned else account.routed
    ended = {outcome: tally.requests for outcome, tally in tallies.items()}
    sketch = tallies[Outcome.SUCCESS].durations
    return CountsView(
        requests=sum(ended.values()),
        successes=ended[Outcome.SUCCESS],
        errors=ended[Outcome.FAILED] + ended[Outcome.EXPIRED],
        rejected=ended[Outcome.REJECTED],
        invalid=ended[Outcome.INVALID],
        cancelled=ended[Outcome.CANCELLED],
        p50_ns=sketch.quantile(0.5),
        p99_ns=sketch.quantile(0.99),
    )


def _actual(model: Model, traffic: Traffic) -> tuple[tuple[str, int, int, int], ...]:
    total = sum(model.routed.values())
    wanted = dict(traffic.route.weights) if traffic.route else {}
    rows = []
    for slot in dict.fromkeys((*wanted, *model.routed)):
        count = model.routed.get(slot, 0)
        actual = round(count * BASIS_POINTS / total) if total else -1
        rows.append((slot, wanted.get(slot, 0), actual, count))
    return tuple(rows)


def _health(
    model: Model, traffic: Traffic, slots: Sequence[tuple[SlotRecord, SlotState]], trouble: str
) -> tuple[Health, str]:
    broken = [
        f"slot '{record.name}' has {traffic.weight_bp(record.name) / 100:g} % of the traffic and is "
        f"{state.value}" + (f": {record.message}" if record.message else "")
        for record, state in slots
        if state is not SlotState.READY and traffic.weight_bp(record.name)
    ]
    lost = traffic.held and traffic.ready(traffic.held) is None
    idle = _idle_shadows(traffic)
    why = [
        *filter(None, (trouble, model.problem)),
        *broken,
        *_unserved_pins(traffic),
        *([f"slot '{traffic.held}' is kept for a rollback and cannot serve"] if lost else []),
        *(["it has READY slots and no traffic: swap to one"] if _idle(traffic) else []),
    ]
    if why:
        return Health.DEGRADED, "; ".join(why + idle)
    busy = any(state in (SlotState.LOADING, SlotState.WARMING, SlotState.DRAINING) for _, state in slots)
    return (Health.PROGRESSING if busy or traffic.held else Health.HEALTHY), "; ".join(idle)


def _idle_shadows(traffic: Traffic) -> list[str]:
    """No client notices, so the model is none the worse for it."""
    rules = traffic.route.shadows if traffic.route is not None else ()
    records = [traffic.slots[rule.slot] for rule in rules if traffic.ready(rule.slot) is None]
    return [
        f"the shadow rule of slot '{record.name}' is idle: the slot is {record.state.value}"
        + (f": {record.message}" if record.message else "")
        for record in records
    ]


def _unserved_pins(traffic: Traffic) -> list[str]:
    """Of slots that have no weight too: those with weight are told as broken already."""
    pins = traffic.route.pins if traffic.route is not None else ()
    told = []
    for slot in dict.fromkeys(pin.slot for pin in pins):
        if traffic.ready(slot) is None and not traffic.weight_bp(slot):
            record = traffic.slots.get(slot)
            told.append(f"pins lead to slot '{slot}', which is {record.state.value if record else 'not there'}")
    return told


def _idle(traffic: Traffic) -> bool:
    return traffic.route is not None and not traffic.route.intervals and bool(traffic.route.targets)
