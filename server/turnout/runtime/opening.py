"""Opens a repository: loads, completes and warms every allowed version into its starting slot, and routes to it.

A model that cannot be used never stops the others: its reason stays with its slot. What belongs where is decided in
`core/routing`; this module only carries it out, off the loop where it blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from turnout.core.errors import LoadError
from turnout.core.gates import Gate
from turnout.core.ids import NO_VARIANT
from turnout.core.model import Artefact, ModelSpec
from turnout.core.offers import Hardware, choose, precision_of
from turnout.core.routing import Target, starting_route, starting_slots
from turnout.core.slots import SlotState
from turnout.runtime.account import Accounts
from turnout.runtime.batcher import Batcher
from turnout.runtime.budget import Budget
from turnout.runtime.fleet import Fleet, Model
from turnout.runtime.gates import Gates, MessageLimit
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.ports import Backend, ClockNs, Executors, Loaded, ModelSource, Observer, Offload, Tracer
from turnout.runtime.slot import Cargo, Slot
from turnout.runtime.tracing import NO_TRACER
from turnout.runtime.warmup import Doubt, doubt_batching, warm

# At a time, also of those that were called off: each takes a model's memory, a pre-flight process and a thread. Two, so
# that a model that takes minutes does not hold up all others.
LOADS_MAX = 2


@dataclass(frozen=True, slots=True)
class Opener:
    """Everything that filling a slot needs."""

    backend: Backend
    new_executors: Callable[[str], Executors]  # takes a name for its threads
    limits: SlotLimits
    budget: Budget
    clock_ns: ClockNs
    offload: Offload
    observer: Observer
    tracer: Tracer = NO_TRACER
    warmup_bytes_max: int = 1 << 28
    message_limit: MessageLimit = field(default_factory=MessageLimit)
    accounts: Accounts = field(default_factory=Accounts)
    variant: str = NO_VARIANT  # which one is taken of a version at start: `core/offers`
    hardware: Callable[[], Hardware] = lambda: Hardware(gpu=False, vnni=False)  # asked once the backend has started
    loads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOADS_MAX))

    async def open(self, sources: Iterable[ModelSource]) -> Fleet:
        """Every model of the repository, in slots and routed, or with the reason why not."""
        fleet = Fleet()
        for source in sources:
            model = Model(source.name, problem=source.problem)
            fleet.add(model)
            await self.open_model(model, source)
        return fleet

    async def open_model(self, model: Model, source: ModelSource) -> None:
        """Every allowed version of one model, in its starting slot, and the starting route."""
        slots = starting_slots([artefact.revision.version for artefact in source.artefacts])
        for artefact in source.artefacts:
            slot = Slot(model.name, slots[artefact.revision.version], self.observer)
            model.slots[slot.name] = slot
            await self._fill_first(slot, source, artefact)
        ready = [Target(s.name, s.revision) for s in model.ready_slots() if s.revision is not None]
        if ready:
            model.assign(starting_route(model.name, ready))

    def choose(self, source: ModelSource, base: Artefact) -> tuple[Artefact, str]:
        """What this server takes of a version by itself, and what is to be said of that; blocks."""
        if self.variant == NO_VARIANT or base.problem:
            return base, ""
        variants = source.variants(base.revision.version)
        return choose(self.variant, self.hardware(), source.execution.device, base, variants)

    async def _fill_first(self, slot: Slot, source: ModelSource, base: Artefact) -> None:
        """With the variant that this server takes by itself; where that fails, with the version's own file."""
        artefact, note = await self.offload(self.choose, source, base)
        if artefact is not base:
            gates = Gates(None, True, artefact.golden, variant=True, report=artefact.report)
            await self.fill(slot, source, artefact, gates, note)
            if slot.state is SlotState.READY:
                return
            note = f"--variant {self.variant}: its own file is used, {artefact.revision} failed: {slot.message}"
        if note:
            self.observer.noticed(f"{base.revision}: {note}")
        await self.fill(slot, source, base, note=note)

    async def fill(
        self, slot: Slot, source: ModelSource, artefact: Artefact, gates: Gates | None = None, note: str = ""
    ) -> None:
        """Load and warm an artefact into an empty slot, and hold it to `gates`; leaves it READY, or FAILED with the
        reason. At start there are no gates but these: nobody waits to be told, and clients have seen no other model.
        `note`: what else an operator should know of it."""
        started_ns = self.clock_ns()
        slot.revision = artefact.revision
        slot.account = self.accounts.open(slot.name, artefact.revision)
        slot.size_bytes = artefact.size_bytes
        gates = gates or Gates(None, True, lambda: None)
        slot.gates = gates
        slot.move(SlotState.LOADING)
        at = Gate.MANIFEST
        try:
            if artefact.problem:
                raise LoadError(artefact.problem)
            gates.passed(at)
            at = Gate.PREFLIGHT
            loaded = await self._load(artefact, source, gates)
            gates.passed(at)
            gates.memory(loaded)
            slot.size_bytes = loaded.memory_bytes or slot.size_bytes  # what it takes, for loads beside this one
            at = Gate.SIGNATURE
            spec = await self.offload(source.complete, artefact.revision.version, loaded.declared)
            slot.move(SlotState.WARMING)
            at = Gate.WARMUP
            first, inferred = loaded.sessions[0], spec.batch_inferred
            bytes_max = self.warmup_bytes_max
            precision = precision_of(artefact.revision.variant, artefact.report)
            if doubt := await self.offload(doubt_batching, spec.signature, first, inferred, bytes_max, precision):
                spec = await self.offload(_settle_batching, source, spec, loaded, artefact, doubt)
            profile_ns, warnings = await self.offload(
                warm, spec.signature, loaded, self.clock_ns, spec.warmup, bytes_max
            )
            gates.passed(at)
            gates.signature(spec)
            limit = gates.message(spec.signature, self.message_limit)
            await self.offload(gates.samples, loaded, spec)
            spec = replace(spec, warmup=())  # its tensors may be large
        except LoadError as refusal:
            gates.failed(refusal, at)
            slot.size_bytes = 0
            slot.move(SlotState.FAILED, str(refusal), refusal.__cause__)
            return
        batcher = Batcher(
            artefact.revision,
            spec,
            loaded.sessions,
            self.new_executors(f"{slot.model}-{slot.name}"),
            self.limits,
            self.budget,
            slot.account,
            self.clock_ns,
            self.observer,
            profile_ns,
            self.tracer,
        )
        batcher.start()
        notes = tuple(filter(None, (limit, note)))
        slot.warnings = spec.warnings + loaded.warnings + warnings + notes
        opening_ns = self.clock_ns() - started_ns
        slot.cargo = Cargo(
            artefact.revision,
            spec,
            batcher,
            loaded.providers,
            profile_ns,
            opening_ns,
            loaded.memory_bytes,
            precision,
        )
        slot.move(SlotState.READY)

    async def _load(self, artefact: Artefact, source: ModelSource, gates: Gates) -> Loaded:
        """One of a bounded number at a time. A load that is called off keeps its place until its thread has ended."""
        await self.loads.acquire()
        try:
            gates.files(artefact.size_bytes)
            work = asyncio.ensure_future(self.offload(self.backend.load, artefact, source.execution))
        except BaseException:
            self.loads.release()
            raise
        waiting = asyncio.shield(work)
        work.add_done_callback(lambda _: self.loads.release())  # after whoever waits has been woken
        return await waiting


def _settle_batching(
    source: ModelSource, spec: ModelSpec, loaded: Loaded, artefact: Artefact, doubt: Doubt
) -> ModelSpec:
    """A model that was only guessed to batch is served request by request; one that is configured to is believed,
    where that is possible at all. Models whose scale depends on the batch (dynamic quantization) need that."""
    rows_max = spec.signature.rows_max
    if spec.batch_inferred:
        try:
            spec = source.complete(artefact.revision.version, loaded.declared, batch=False)
        except LoadError as refusal:
            raise LoadError(f"{refusal} (it is not batched: {doubt.why})") from refusal.__cause__
        note = f"not batched: {doubt.why}; set max_batch_size in config.pbtxt if its rows are independent"
    elif doubt.impossible:
        raise LoadError(f"max_batch_size is {rows_max}, but {doubt.why}: set it to 0")
    else:
        note = f"max_batch_size is {rows_max}, but {doubt.why}"
    return replace(spec, warnings=(*spec.warnings, note))
