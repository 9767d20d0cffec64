"""Shadow rules through the controller on virtual time: journaled first, brought back by a restart, told where idle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.control import ALICE, Control, S, again, other_signature
from support.virtual import VirtualLoop, virtual
from turnout.backends.synthetic import SyntheticModel
from turnout.core.comparators import Comparator, Method
from turnout.core.errors import ControlError, Refusal
from turnout.core.shadow_rules import ShadowLimits
from turnout.core.tensors import Signature, TensorSpec
from turnout.runtime.admin import AdminLimits
from turnout.runtime.requests import Ask
from turnout.runtime.views import Health
from turnout_wire.tensors import DataType


async def refused(work: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        await work
    return caught.value


async def shadowed(loop: VirtualLoop, **more: Any) -> Control:
    """Version 1 in blue with all traffic, version 2 in green, which gets copies."""
    control = await Control.open(loop, **more)
    await control.load("green", 2)
    await control.shadow("green", 5_000)
    return control


def copied_to(control: Control) -> list[str]:
    route = control.admin.fleet.model("m").route
    assert route is not None
    return [str(target.revision) for _, target in route.shadow_targets]


@virtual
async def test_a_rule_is_in_force_and_in_the_journal_with_who_and_why(loop: VirtualLoop) -> None:
    control = await shadowed(loop)
    assert control.shadows == control.journaled_shadows == {"green": 5_000}
    assert control.in_force == {"blue": 10_000}
    assert copied_to(control) == ["m/2"]
    await control.clear_shadow("green", again(ALICE, reason="enough"))
    assert control.shadows == control.journaled_shadows == {}
    done = [line for line in control.journal.commits if line.object == "shadows/green"]
    assert [(line.actor, line.reason, line.cause, line.from_state, line.to_state) for line in done] == [
        ("alice", "", "shadow", "", "sample=5000 noise=0 m/2"),
        ("alice", "enough", "shadow", "sample=5000 noise=0 m/2", ""),
    ]
    assert [event.kind for event in control.controller.events.after(0) if event.line in done] == ["route", "route"]


@virtual
async def test_of_two_operators_with_one_etag_one_sets_the_rule(loop: VirtualLoop) -> None:
    control = await shadowed(loop)
    route = control.admin.fleet.model("m").route
    assert route is not None
    ask = Ask("bob", etag=str(route.generation))
    results = await asyncio.gather(
        control.shadow("green", 1, ask), control.clear_shadow("green", ask), return_exceptions=True
    )
    assert results[0] is None
    assert isinstance(results[1], ControlError)
    assert results[1].refusal is Refusal.ETAG_MISMATCH
    assert control.shadows == {"green": 1}


@virtual
async def test_validate_only_checks_a_rule_and_sets_none(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    check = Ask("a", validate_only=True)
    await control.shadow("green", ask=check)
    assert (await refused(control.shadow("blue", ask=check))).refusal is Refusal.SLOT_ROUTED
    assert control.shadows == {}


@virtual
async def test_a_journal_that_fails_sets_no_rule(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    await control.load("green", 2)
    control.journal.broken = True
    assert (await refused(control.shadow("green"))).refusal is Refusal.STATE_STORE
    control.journal.broken = False
    await asyncio.sleep(60)
    assert control.shadows == control.journaled_shadows == {}


@virtual
async def test_a_rule_is_held_to_the_limits_of_the_server_and_the_outputs_of_the_slot(loop: VirtualLoop) -> None:
    limits = ShadowLimits(queue_max=10, bytes_max=1 << 20, deadline_ns=5 * S)
    control = await Control.open(loop, limits=AdminLimits(shadow=limits))
    await control.load("green", 2)
    await control.shadow("green", queue_max=0, deadline_ns=0, comparators=(Comparator("y", Method.COSINE),))
    route = control.admin.fleet.model("m").route
    assert route is not None
    assert (route.shadows[0].queue_max, route.shadows[0].deadline_ns) == (10, 5 * S)
    refusals: list[tuple[dict[str, Any], str, str]] = [
        ({"queue_max": 11}, "queue_max", "the server's limit is 10"),
        ({"comparators": (Comparator("z", Method.JS),)}, "comparators[0].output", "no output 'z', the outputs are 'y'"),
    ]
    for more, field, words in refusals:
        error = await refused(control.shadow("green", **{"queue_max": 0, "deadline_ns": 0, **more}))
        assert (error.refusal, error.field) == (Refusal.INVALID_SPEC, f"rule.{field}")
        assert words in error.message
    assert (await refused(control.shadow("pink", queue_max=1))).refusal is Refusal.SLOT_NOT_FOUND
    assert (await refused(control.operations.set_shadow("x", route.shadows[0], ALICE))).field == "model"


@virtual
async def test_bytes_are_only_compared_exactly(loop: VirtualLoop) -> None:
    control = await Control.open(loop)
    signature = Signature(
        (TensorSpec("x", DataType.FP32, (-1, 4)),), (TensorSpec("y", DataType.BYTES, (-1, 4)),), rows_max=8
    )
    control.shelf.models[2] = SyntheticModel(signature)
    await control.load("green", 2, allow_signature_change=True)
    error = await refused(control.shadow("green", comparators=(Comparator("y", Method.ARGMAX),)))
    assert (error.field, "use EXACT" in error.message) == ("rule.comparators[0].method", True)
    await control.shadow("green", comparators=(Comparator("y", Method.EXACT),))


@virtual
async def test_a_replace_keeps_the_rule_and_says_meanwhile_that_it_is_idle(loop: VirtualLoop) -> None:
    control = await shadowed(loop)
    control.shelf.load_s = 5
    await control.load("green", 3, wait=False, replace=True)
    assert (control.shadows, copied_to(control)) == ({"green": 5_000}, [])
    view = control.controller.view("m")
    assert (view.health, view.message) == (
        Health.PROGRESSING, "the shadow rule of slot 'green' is idle: the slot is LOADING",
    )  # fmt: skip
    await asyncio.sleep(6)
    assert copied_to(control) == ["m/3"]
    assert control.controller.view("m").message == ""


@virtual
async def test_a_shadow_that_fails_to_load_leaves_the_model_healthy_and_is_told(loop: VirtualLoop) -> None:
    control = await shadowed(loop)
    control.shelf.models[3] = SyntheticModel(other_signature())
    await refused(control.load("green", 3, replace=True))
    view = control.controller.view("m")
    assert view.health is Health.HEALTHY
    assert "the shadow rule of slot 'green' is idle: the slot is FAILED: " in view.message
    assert (await refused(control.unload("green"))).refusal is Refusal.SLOT_ROUTED
    await control.load("green", 2)
    assert copied_to(control) == ["m/2"]


@virtual
async def test_a_rollback_to_a_shadow_ends_its_rule_at_once(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    await control.load("green", 2)
    await control.swap("green")
    await control.shadow("blue")
    task = asyncio.ensure_future(control.rollback_now())
    await asyncio.sleep(0)
    assert (control.in_force, control.shadows, control.journaled_shadows) == ({"blue": 10_000}, {}, {"blue": 10_000})
    await task
    assert control.journaled_shadows == {}


@virtual
async def test_a_restart_brings_rules_back(loop: VirtualLoop) -> None:
    control = await shadowed(loop)
    comparators = (Comparator("y", Method.ALLCLOSE, rtol=0.1),)
    await control.shadow("green", 100, noise_bp=200, comparators=comparators)
    later = await control.restarted()
    route, before = later.admin.fleet.model("m").route, control.admin.fleet.model("m").route
    assert route is not None
    assert before is not None
    assert (route.shadows, route.generation) == (before.shadows, before.generation)
    assert copied_to(later) == ["m/2"]


@virtual
async def test_a_restart_without_the_revision_keeps_the_rule_idle_and_says_so(loop: VirtualLoop) -> None:
    control = await shadowed(loop)
    del control.shelf.versions[2]
    later = await control.restarted()
    assert (later.shadows, later.journaled_shadows, copied_to(later)) == ({"green": 5_000}, {"green": 5_000}, [])
    assert "idle: the slot is FAILED: no revision 'm/2'" in later.controller.view("m").message
    told = [line for line in later.journal.lines("m", 10) if line.object == "shadows/green"]
    assert (told[0].cause, told[0].to_state) == ("restart", "sample=5000 noise=0 idle")
