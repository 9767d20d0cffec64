"""What operators ask for, from the look-up of a revision to the end of its load: commands of the controller with what
they need and what is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from turnout.core.commands import Load, Rollback, SetShadow, Swap, Unload, Withdraw
from turnout.core.errors import ControlError, Refusal
from turnout.core.filling import free_slot
from turnout.core.gates import Gate, GateResult, Verdict
from turnout.core.model import Artefact
from turnout.core.shadow_rules import ShadowLimits, ShadowRule, check_outputs
from turnout.core.slots import SlotState
from turnout.core.traffic import Traffic
from turnout.runtime.controller import Controller, Desk
from turnout.runtime.demands import Demands
from turnout.runtime.ports import Offload, Revisions
from turnout.runtime.requests import Ask
from turnout.runtime.views import ReplaceCost, memory_of
from turnout.runtime.works import Order

_REFUSALS = {
    Gate.MEMORY: Refusal.SLOT_MEMORY,
    Gate.MANIFEST: Refusal.MANIFEST_MISMATCH,
    Gate.SIGNATURE: Refusal.SIGNATURE_MISMATCH,
}
_FAILED = frozenset({*_REFUSALS.values(), Refusal.GATE_FAILED, Refusal.VARIANT_REFUSED})  # not what was asked for

_FORCED_CHARACTERS_MAX = 500  # the journal's line has them
_NOTHING_YET = "nothing but what its golden samples may say"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A revision to load. `version` None: the newest that the model's version policy allows; `digest` "": as it is;
    `force`: a variant whatever speaks against it; `insist`: force it where its report does not stand."""

    version: int | None
    variant: str = ""
    digest: str = ""
    force: bool = False
    insist: bool = False


@dataclass(frozen=True, slots=True)
class Operations:
    """Used on the loop thread only."""

    controller: Controller
    revisions: Revisions
    offload: Offload
    demands: Demands
    shadow_limits: ShadowLimits

    async def load(
        self, model: str, command: Load, wanted: Wanted, ask: Ask, wait: bool, allow_signature_change: bool = False
    ) -> ReplaceCost:
        """Fill a slot; `command.revision` is replaced by the one that is found. Returns what a replace costs.

        Raises:
            ControlError: refused, or with `wait` why the load failed.
        """
        source, artefact = await self.offload(self.revisions.find, model, wanted.version, wanted.variant)
        revision = artefact.revision
        if wanted.digest and wanted.digest.lower() != revision.digest:
            raise ControlError(
                Refusal.DIGEST_MISMATCH,
                f"the files of {revision} have digest {revision.digest}, asked for was {wanted.digest[:64]}",
                "digest",
                revision=revision,
            )
        forced = _forced(artefact, wanted, ask)
        known = model in self.controller.names()
        state = self.controller.desk(model).state if known else Traffic(model)
        desk = self.controller.desk(model) if known else None
        command = replace(command, revision=revision, allow_signature_change=allow_signature_change, forced=forced)
        cost = self._cost(desk, command) if command.replace else ReplaceCost()
        self.demands.refuse_too_large(command.slot, artefact)
        held = desk.model if desk is not None else None
        gates = self.demands.gates(held, state.route, command.slot, artefact, allow_signature_change, forced)
        gates.results.append(GateResult(Gate.DIGEST, Verdict.PASS))
        if not known and ask.validate_only:
            return cost
        order = Order(source, artefact, gates, ask.request_id if wait else "")
        step = await self.controller.change(model, command, ask, order)
        if wait and not ask.validate_only:
            try:
                await self._loaded(model, command, bool(step.changes))
            except ControlError:
                if step.changes:
                    self.controller.ledger.void(model, ask.request_id)
                raise
        return cost

    async def unload(self, model: str, command: Unload, ask: Ask, wait: bool) -> None:
        await self.controller.change(model, command, ask)
        if wait and not ask.validate_only:
            await self.controller.works.settled(model, command.slot)

    async def roll_back(self, model: str, slot: str, allow_reload: bool, ask: Ask) -> None:
        """With `allow_reload`, what is not loaded any more is loaded first, into its own slot or a free one."""
        try:
            await self.controller.roll_back(model, Rollback(slot), ask)
            return
        except ControlError as error:
            previous = self.controller.desk(model).state.previous
            if error.refusal is not Refusal.ROLLBACK_TARGET_UNLOADED or not allow_reload or previous is None:
                raise
        state = self.controller.desk(model).state
        record = state.slots.get(previous.slot)
        name = previous.slot if record is None or record.state is not SlotState.READY else ""
        name = name or free_slot(state, previous.revision.version)
        # What served before is loaded again whatever is said of it by now.
        insist = bool(previous.revision.variant)
        wanted = Wanted(previous.revision.version, previous.revision.variant, previous.revision.digest, insist=insist)
        again = replace(ask, etag="", on_behalf=True, reason=ask.reason or "rollback")
        load = partial(self.load, model, Load(name, previous.revision), wait=True, allow_signature_change=True)
        try:
            await load(wanted=wanted, ask=again)
        except ControlError as error:
            if not insist or error.metadata.get("gate") != Gate.GOLDEN.value:
                raise
            # It may have been forced past its samples, which its report says nothing of.
            await load(wanted=replace(wanted, force=True), ask=again)
        if not ask.validate_only:
            await self.controller.roll_back(model, Rollback(name), again)

    async def set_shadow(self, model: str, rule: ShadowRule, ask: Ask) -> None:
        """Zeroes among the rule's bounds stand for the server's own."""
        bounded = self.shadow_limits.bounded(rule)
        slot = self.controller.desk(model).model.slots.get(rule.slot)
        if slot is not None and slot.cargo is not None:
            check_outputs(bounded, slot.cargo.spec.signature)
        await self.controller.change(model, SetShadow(bounded), ask)

    async def look(self, model: str) -> Sequence[Artefact]:
        """What the repository has of a model now.

        Raises:
            ControlError: MODEL_NOT_FOUND.
        """
        known = self.controller.desk(model).model
        found = await self.offload(self.revisions.offered, model)
        known.variants = tuple(artefact for artefact in found if artefact.revision.variant)
        return found

    async def load_newest(self, model: str, bake_ns: int, ask: Ask) -> None:
        """The newest version, or the variant of it that this server takes by itself, into a free slot, then all traffic
        to it; nothing where it has the traffic already. Where the variant fails to load, the version's own file."""
        opener = self.controller.works.opener
        source, base = await self.offload(self.revisions.find, model, None)
        artefact, _ = await self.offload(opener.choose, source, base)
        try:
            await self._take_over(model, artefact, bake_ns, ask)
        except ControlError as error:
            if artefact is base or error.refusal not in _FAILED:
                raise
            opener.observer.noticed(
                f"{base.revision}: --variant {opener.variant}: its own file is used, {error.message}"
            )
            await self._take_over(model, base, bake_ns, ask)

    async def _take_over(self, model: str, artefact: Artefact, bake_ns: int, ask: Ask) -> None:
        known = model in self.controller.names()
        state = self.controller.desk(model).state if known else Traffic(model)
        stable = state.route.stable if state.route else None
        if stable is not None and stable.revision == artefact.revision and state.ready(stable.slot):
            await self.controller.change(model, Swap(stable.slot, bake_ns), ask)
            return
        version = artefact.revision.version
        held = [name for name in state.slots if (t := state.ready(name)) and t.revision == artefact.revision]
        name = held[0] if held else free_slot(state, version)
        wanted = Wanted(version, artefact.revision.variant)
        await self.load(model, Load(name, artefact.revision), wanted, ask, wait=True)
        await self.controller.change(model, Swap(name, bake_ns), ask)

    async def withdraw(self, model: str, ask: Ask) -> None:
        """Everything of a model away; returns when its slots are empty."""
        desk = self.controller.desk(model)
        slots = list(desk.state.slots)
        await self.controller.change(model, Withdraw(), ask)
        for name in slots:
            await self.controller.works.settled(model, name)

    async def _loaded(self, model: str, command: Load, new: bool) -> None:
        """Wait for a load to end, and raise what it failed with."""
        await self.controller.works.settled(model, command.slot)
        desk = self.controller.desk(model)
        record = desk.state.slots.get(command.slot)
        if record is not None and record.revision == command.revision and record.state is SlotState.READY:
            return
        if record is None or record.revision != command.revision or record.state is not SlotState.FAILED or not new:
            raise ControlError(
                Refusal.OPERATION_IN_PROGRESS, f"the load into slot '{command.slot}' was called off", slot=command.slot
            )
        slot = desk.model.slots.get(command.slot)
        results = slot.gates.results if slot is not None and slot.gates is not None else []
        failed = next((r for r in results if r.verdict is Verdict.FAIL), GateResult(Gate.PREFLIGHT, Verdict.FAIL))
        raise ControlError(
            _REFUSALS.get(failed.gate, Refusal.GATE_FAILED),
            f"{command.revision} failed to load into slot '{command.slot}': {record.message}",
            gate=failed.gate.value,
            observed=failed.observed,
            limit=failed.limit,
            model=model,
            slot=command.slot,
            revision=command.revision,
        )

    def _cost(self, desk: Desk | None, command: Load) -> ReplaceCost:
        slot = desk.model.slots.get(command.slot) if desk is not None else None
        if desk is None or slot is None or slot.cargo is None:
            return ReplaceCost()
        share = desk.state.weight_bp(command.slot)
        return ReplaceCost(share, slot.leases, slot.cargo.opening_ns, memory_of(slot))


def _forced(artefact: Artefact, wanted: Wanted, ask: Ask) -> str:
    """What a load overrides; "": nothing.

    Raises:
        ControlError: VARIANT_REFUSED, with what to do; INVALID_SPEC, a force that needs a reason or has no object.
    """
    revision = artefact.revision
    doubts = "; ".join(artefact.doubts)
    force = wanted.force or (wanted.insist and bool(doubts))
    if force and not revision.variant:
        raise ControlError(
            Refusal.INVALID_SPEC, f"{revision} is no variant: there is nothing to force, leave force out", "force"
        )
    if force and not ask.reason:
        raise ControlError(
            Refusal.INVALID_SPEC,
            f"force needs a reason, which the journal keeps: say why {revision} must be loaded",
            "mutation.reason",
        )
    if doubts and not force:
        base = f"{revision.model}/{revision.version}"
        raise ControlError(
            Refusal.VARIANT_REFUSED,
            f"{revision} has not shown that it answers like {base}: {doubts}. `turnout quantize {base}` makes a "
            f"variant with its report, `turnout verify {base} {revision}` says how far they agree; to load it all the "
            "same, force it and say why",
            gate=Gate.REPORT.value,
            model=revision.model,
            revision=revision,
        )
    return (doubts or _NOTHING_YET)[:_FORCED_CHARACTERS_MAX] if force else ""
