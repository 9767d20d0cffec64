"""A model's Traffic as JSON and back: what the journal stores of it, whichever store that is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from turnout.core.comparators import Comparator, Method
from turnout.core.ids import Revision
from turnout.core.routing import Interval, Pin, Route, StickyKey, Target
from turnout.core.shadow_rules import ShadowRule
from turnout.core.slots import SlotState
from turnout.core.traffic import SlotRecord, Traffic

FORM = 1  # of the JSON; a later one is refused, an earlier one read


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the journal: who changed what, when and why. `seq` is the journal's; `time_ns` the time of day."""

    seq: int
    time_ns: int
    model: str
    object: str
    from_state: str
    to_state: str
    actor: str
    reason: str
    cause: str
    request_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """A request that was carried out: its id, what it was, and its first answer (b"": not known any more)."""

    request_id: str
    fingerprint: str
    time_ns: int
    answer: bytes = b""


def dump(state: Traffic) -> str:
    """As JSON, the same text for the same state."""
    return json.dumps(
        {
            "form": FORM,
            "model": state.model,
            "version": state.version,
            "changes": state.changes,
            "bake_until_ns": state.bake_until_ns,
            "rolled_back": state.rolled_back,
            "previous": _target(state.previous) if state.previous else None,
            "slots": [_slot(record) for record in state.slots.values()],
            "route": _route(state.route) if state.route else None,
        },
        separators=(",", ":"),
    )


def load(text: str) -> Traffic:
    """Raises:
    ValueError: it is of a later form, or no snapshot at all.
    """
    try:
        raw = json.loads(text)
        if raw["form"] > FORM:
            raise ValueError(f"it is of form {raw['form']}, this server reads up to {FORM}: start a newer one")
        return Traffic(
            model=raw["model"],
            version=raw["version"],
            route=_read_route(raw["model"], raw["route"]) if raw["route"] else None,
            slots={slot["name"]: _read_slot(slot) for slot in raw["slots"]},
            changes=raw["changes"],
            previous=_read_target(raw["previous"]) if raw["previous"] else None,
            bake_until_ns=raw["bake_until_ns"],
            rolled_back=raw["rolled_back"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no snapshot of a model: {error!r}") from error


def _revision(revision: Revision) -> list[Any]:
    return [revision.model, revision.version, revision.variant, revision.digest]


def _target(target: Target) -> dict[str, Any]:
    return {"slot": target.slot, "revision": _revision(target.revision)}


def _read_target(raw: dict[str, Any]) -> Target:
    return Target(raw["slot"], Revision(*raw["revision"]))


def _slot(record: SlotRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "state": record.state.value,
        "revision": _revision(record.revision) if record.revision else None,
        "etag": record.etag,
        "since_ns": record.since_ns,
        "message": record.message,
        # Only where it is so: a server that does not know it reads the rest.
        **({"allow_signature_change": True} if record.allow_signature_change else {}),
        **({"forced": record.forced} if record.forced else {}),
    }


def _read_slot(raw: dict[str, Any]) -> SlotRecord:
    revision = Revision(*raw["revision"]) if raw["revision"] else None
    return SlotRecord(
        raw["name"],
        SlotState(raw["state"]),
        revision,
        raw["etag"],
        raw["since_ns"],
        raw["message"],
        raw.get("allow_signature_change", False),
        raw.get("forced", ""),
    )


def _route(route: Route) -> dict[str, Any]:
    return {
        "generation": route.generation,
        "targets": [_target(target) for target in route.targets],
        "intervals": [[i.start_bp, i.end_bp, route.targets.index(i.target)] for i in route.intervals],
        "sticky": [route.sticky.metadata, route.sticky.parameter, route.sticky.salt],
        "pins": [[pin.metadata, pin.value, pin.slot] for pin in route.pins],
        # Only where there are any: a server that does not know them reads the rest, and copies nothing.
        **({"shadows": [_shadow(rule) for rule in route.shadows]} if route.shadows else {}),
    }


def _read_route(model: str, raw: dict[str, Any]) -> Route:
    targets = tuple(_read_target(target) for target in raw["targets"])
    return Route(
        model,
        raw["generation"],
        targets,
        tuple(Interval(start, end, targets[index]) for start, end, index in raw["intervals"]),
        StickyKey(*raw["sticky"]),
        tuple(Pin(*pin) for pin in raw["pins"]),
        tuple(_read_shadow(rule) for rule in raw.get("shadows", ())),
    )


def _shadow(rule: ShadowRule) -> dict[str, Any]:
    return {
        "slot": rule.slot,
        "sample_bp": rule.sample_bp,
        "salt": rule.salt,
        "comparators": [[c.output, c.method.value, *_parameters(c)] for c in rule.comparators],
        "queue_max": rule.queue_max,
        "bytes_max": rule.bytes_max,
        "deadline_ns": rule.deadline_ns,
        "noise_bp": rule.noise_bp,
    }


def _parameters(comparator: Comparator) -> list[float | None]:
    return [comparator.atol, comparator.rtol, comparator.threshold, comparator.k, comparator.near_tie]


def _read_shadow(raw: dict[str, Any]) -> ShadowRule:
    return ShadowRule(
        raw["slot"],
        raw["sample_bp"],
        raw["salt"],
        tuple(Comparator(output, Method(method), *rest) for output, method, *rest in raw["comparators"]),
        raw["queue_max"],
        raw["bytes_max"],
        raw["deadline_ns"],
        raw["noise_bp"],
    )
