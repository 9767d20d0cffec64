"""Which slots get copies of a model's requests: the part of `core/control` that sets and clears shadow rules.

A rule belongs to its slot and not to what the slot holds: it outlives a replace, and is idle while the slot is not
READY. The stable slot has none, since its answers are what others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from turnout.core.errors import ControlError, Refusal
from turnout.core.filling import Outcome, known
from turnout.core.routing import Route
from turnout.core.shadow_rules import SHADOWS_MAX, ShadowRule, check_rule
from turnout.core.shifting import target_of
from turnout.core.traffic import Traffic


def set_shadow(state: Traffic, rule: ShadowRule) -> Outcome:
    """Add a rule, or replace the one that its slot has."""
    check_rule(rule)
    target = target_of(state, rule.slot)
    route = state.route or Route(state.model, 0, (target,), ())
    if route.stable == target:
        raise ControlError(
            Refusal.SLOT_ROUTED,
            f"slot '{rule.slot}' is the stable one of model '{state.model}', which answers are compared with: shadow "
            "another slot, or swap first",
            "rule.slot",
            model=state.model,
            slot=rule.slot,
        )
    if state.shadow(rule.slot) == rule:
        return state, []
    others = [each for each in route.shadows if each.slot != rule.slot]
    if len(others) >= SHADOWS_MAX:
        raise ControlError(
            Refusal.INVALID_SPEC,
            f"model '{state.model}' has {len(others)} shadow rules, which is the limit: clear one",
            "rule",
            model=state.model,
        )
    return _with(state, route, (*others, rule)), []


def clear_shadow(state: Traffic, slot: str) -> Outcome:
    known(state, slot)
    if state.route is None or state.shadow(slot) is None:
        return state, []
    return _with(state, state.route, (rule for rule in state.route.shadows if rule.slot != slot)), []


def unshadowed(state: Traffic) -> Traffic:
    """Without a rule of the stable slot, where a change of traffic has made it the stable one."""
    route = state.route
    if route is None or route.stable is None or state.shadow(route.stable.slot) is None:
        return state
    stable = route.stable.slot
    return state.with_route(replace(route, shadows=tuple(rule for rule in route.shadows if rule.slot != stable)))


def _with(state: Traffic, route: Route, rules: Iterable[ShadowRule]) -> Traffic:
    shadows = tuple(sorted(rules, key=lambda rule: rule.slot))
    return state.with_route(replace(route, generation=route.generation + 1, shadows=shadows))
