"""The start of a server's models: from the journal where it knows them, else from the repository.

The journal wins. A revision that is gone, or whose files are others by now, is refused loudly: its slot is FAILED, its
share goes where `core/shifting` says, and everything else serves. A version that has appeared is told, not routed. A
slot that was FAILED stays so: what it was refused for may be its signature or its size, and a restart is no way around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from turnout.core.commands import Change, Command, Loaded, Lost, Unloaded
from turnout.core.control import step
from turnout.core.errors import ControlError
from turnout.core.ids import Revision
from turnout.core.model import Artefact
from turnout.core.slots import SlotState
from turnout.core.traffic import SlotRecord, Traffic, described
from turnout.runtime.controller import Controller
from turnout.runtime.demands import Demands, gates_of
from turnout.runtime.fleet import Model
from turnout.runtime.ports import ModelSource, Offload, Revisions
from turnout.runtime.requests import SERVER, lines_of


@dataclass(frozen=True, slots=True)
class Recovery:
    """Opens every model, and puts the controller in charge of it."""

    controller: Controller
    revisions: Revisions
    offload: Offload
    demands: Demands

    async def start(self, sources: Sequence[ModelSource]) -> list[str]:
        """Returns what an operator should know: revisions that were refused, versions that are new.

        Raises:
            JournalError: the journal cannot be read or written; nothing can be promised then.
        """
        states = await self.controller.ledger.start()
        notes: list[str] = []
        for source in sources:
            model = Model(source.name, problem=source.problem)
            model.variants = await self.offload(_variants, source)
            self.controller.fleet.add(model)
            if (state := states.pop(source.name, None)) is not None:
                notes += await self._restore(model, state, source)
            else:
                await self._open(model, source)
        for name, state in states.items():
            model = Model(name, problem="" if not _loaded(state) else "it is not in the model repository any more")
            self.controller.fleet.add(model)
            notes += await self._restore(model, state, None)
        return notes

    async def _open(self, model: Model, source: ModelSource) -> None:
        """A model that the journal does not know: as a server without a journal starts it. One that cannot serve at all
        is not journaled: mended files are found at the next start."""
        await self.controller.works.opener.open_model(model, source)
        now_ns = self.controller.now_ns()
        state = Traffic(model.name, route=model.route)
        for slot in model.slots.values():
            state = state.with_slot(slot.name, slot.state, slot.revision, now_ns, slot.message)
        changes = [
            Change(f"slots/{record.name}", SlotState.EMPTY.value, str(record), "start", 1)
            for record in state.slots.values()
        ]
        if model.route is not None:
            changes.append(Change("route", "", described(model.route), "start", 1))
        if model.ready_slots():
            await self.controller.ledger.write(state, lines_of(model.name, changes, SERVER, self.controller.now_ns()))
        self.controller.adopt(model, state)

    async def _restore(self, model: Model, state: Traffic, source: ModelSource | None) -> list[str]:
        commands: list[tuple[int, Command]] = []
        notes = []
        for record in sorted(_loaded(state), key=lambda record: _turn(state, record)):
            if record.state is SlotState.DRAINING:
                commands.append((0, Unloaded(record.name)))
                continue
            if record.state is SlotState.FAILED:
                self._fail(model, record, record.message)
                why = f"stays FAILED until it is loaded again: {record.message}"
                notes.append(f"slot '{record.name}' of model '{model.name}' {why}")
                continue
            why = await self._fill(model, state, record)
            if why:
                notes.append(f"slot '{record.name}' of model '{model.name}': {why}")
                commands.append((state.weight_bp(record.name), Lost(record.name, why)))
            elif record.state is not SlotState.READY:
                commands.append((0, Loaded(record.name)))
        changes: list[Change] = []
        for _, command in sorted(commands, key=lambda pair: pair[0]):  # an heir that is lost itself inherits nothing
            done = step(state, command, self.controller.now_ns())
            state, changes = done.state, [*changes, *(replace(change, cause="restart") for change in done.changes)]
        if changes:
            await self.controller.ledger.write(state, lines_of(model.name, changes, SERVER, self.controller.now_ns()))
        model.assign(state.route)
        note = _news(state, source)
        self.controller.adopt(model, state, note)
        return [*notes, *([f"model '{model.name}': {note}"] if note else [])]

    async def _fill(self, model: Model, state: Traffic, record: SlotRecord) -> str:
        """Load what the journal says a slot holds; returns why that cannot be. What was READY has proved itself; a load
        that was under way is held to what it was held to."""
        revision = record.revision
        if revision is None:
            raise AssertionError(f"slot '{record.name}' is {record.state.value} with nothing")
        slot = self.controller.works.slot(model, record.name)
        opener = self.controller.works.opener
        try:
            source, found = await self.offload(self.revisions.find, model.name, revision.version, revision.variant)
            artefact = replace(found, revision=revision, problem=_other_files(revision, found))
        except ControlError as error:
            return self._fail(model, record, error.message)
        doubts, forced = "; ".join(artefact.doubts), record.forced
        if record.state is SlotState.LOADING:
            if doubts and not forced and not artefact.problem:
                artefact = replace(
                    artefact, problem=f"{revision} has not shown that it answers like its version: {doubts}"
                )
            allow = record.allow_signature_change
            gates = self.demands.gates(model, state.route, record.name, artefact, allow, forced)
        else:
            gates = gates_of(artefact, forced or doubts)
        note = f"it serves as before, and would not be loaded now: {doubts}" if doubts and not forced else ""
        await opener.fill(slot, source, artefact, gates, note)
        return slot.message

    def _fail(self, model: Model, record: SlotRecord, why: str) -> str:
        slot = self.controller.works.slot(model, record.name)
        slot.revision = record.revision
        slot.move(SlotState.LOADING)
        slot.move(SlotState.FAILED, why)
        return why


def _variants(source: ModelSource) -> tuple[Artefact, ...]:
    usable = [artefact.revision.version for artefact in source.artefacts if not artefact.problem]
    return tuple(variant for version in sorted(usable) for variant in source.variants(version))


def _turn(state: Traffic, record: SlotRecord) -> tuple[bool, int]:
    """What served first, the most traffic first: what was loading is held against it."""
    return record.state is SlotState.LOADING, -state.weight_bp(record.name)


def _loaded(state: Traffic) -> list[SlotRecord]:
    return [record for record in state.slots.values() if record.revision is not None]


def _other_files(revision: Revision, found: Artefact) -> str:
    if found.revision.digest == revision.digest:
        return found.problem
    return (
        f"the files of {revision} have digest {found.revision.digest[:12]}, the journal says {revision.digest[:12]}: "
        "put the old files back, or load the new ones under a version of their own"
    )


def _news(state: Traffic, source: ModelSource | None) -> str:
    known = {record.revision.version for record in _loaded(state) if record.revision is not None}
    found = sorted({a.revision.version for a in source.artefacts} - known) if source is not None else []
    new = [version for version in found if version > max(known, default=0)]
    if not new:
        return ""
    versions = ", ".join(map(str, new))
    return (
        f"version {versions} has appeared and is not loaded, since the journal says what is served: load it to use it"
    )
