"""The admin side around synthetic models on virtual time: controller, journal that fails on demand, and requests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from support.shadows import shadow_rule
from support.virtual import VirtualClock, VirtualExecutors, VirtualLoop
from support.world import DECLARED, Outcome, Seen, SyntheticSource, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.commands import ClearShadow, Load, Rollback, SetWeights, Swap, Unload
from turnout.core.errors import ControlError, LoadError, Refusal
from turnout.core.gates import Golden
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution
from turnout.core.routing import Route
from turnout.core.snapshot import Line
from turnout.core.tensors import Signature, TensorSpec
from turnout.runtime.admin import Admin, AdminLimits
from turnout.runtime.budget import Budget
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.opening import Opener
from turnout.runtime.operations import Wanted
from turnout.runtime.ports import JournalError, Loaded, ModelSource
from turnout.runtime.requests import Ask
from turnout.store.memory_journal import MemoryJournal
from turnout_wire.tensors import DataType

S = 1_000_000_000
BAKE_NS = 600 * S
ALICE = Ask("alice")


class FlakyJournal(MemoryJournal):
    """Fails at chosen calls of `commit`: before it has written, or after.

    Attributes:
        fail: by the number of the call, from 1; True: also written.
        broken: every call fails.
        wait: called before each commit: a test may do something meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fail: dict[int, bool] = {}
        self.broken = False
        self.calls = 0
        self.commits: list[Line] = []

    def commit(self, *args: Any, **more: Any) -> list[Line]:
        self.calls += 1
        written = self.fail.get(self.calls)
        if self.broken or written is False:
            raise JournalError("disk I/O error")
        lines = super().commit(*args, **more)
        self.commits += lines
        if written:
            raise JournalError("disk I/O error")
        return lines


@dataclass
class Shelf:
    """The Revisions port, and the models that its revisions are: what lies in the repository now."""

    versions: dict[int, str] = field(default_factory=lambda: {1: "digest-1", 2: "digest-2", 3: "digest-3"})
    models: dict[int, SyntheticModel] = field(default_factory=dict)
    failing: dict[int, str] = field(default_factory=dict)
    golden: dict[int, Golden] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of classes, by output
    variants: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)  # with what speaks against each
    variant_models: dict[str, SyntheticModel] = field(default_factory=dict)  # else as the version's own
    inferred: bool = False  # whether rows_max is the server's guess
    edition: int = 1  # of the variants' files
    size_bytes: int = 10
    load_s: float = 0.0
    loading: int = 0  # loads that are under way, as it counts them on their threads
    loading_max: int = 0

    def model(self, version: int) -> SyntheticModel:
        return self.models.setdefault(version, SyntheticModel(DECLARED))

    def source(self, *versions: int) -> SyntheticSource:
        return SyntheticSource("m", versions, labels=self.labels, beside=self.beside, inferred=self.inferred)

    def find(self, model: str, version: int | None, variant: str = "") -> tuple[ModelSource, Artefact]:
        number = max(self.versions) if version is None else version
        if model != "m" or number not in self.versions or (variant and (number, variant) not in self.variants):
            raise ControlError(Refusal.REVISION_NOT_FOUND, f"no revision '{model}/{number}'")
        return self.source(*self.versions), self.variant(number, variant) if variant else self.artefact(number)

    def offered(self, model: str) -> list[Artefact]:
        return [each for number in sorted(self.versions) for each in (self.artefact(number), *self.beside(number))]

    def beside(self, version: int) -> list[Artefact]:
        return [self.variant(number, name) for number, name in sorted(self.variants) if number == version]

    def artefact(self, version: int) -> Artefact:
        revision = Revision("m", version, "", self.versions[version])
        golden = self.golden.get(version)
        return Artefact(revision, _no_files, golden=lambda: golden, size_bytes=self.size_bytes)

    def variant(self, version: int, name: str) -> Artefact:
        base, doubts = self.artefact(version), self.variants[version, name]
        digest = f"{base.revision.digest}-{name}-{self.edition}"
        return replace(base, revision=Revision("m", version, name, digest), doubts=doubts)

    def load(self, artefact: Artefact, execution: Execution) -> Loaded:
        version = artefact.revision.version
        if why := self.failing.get(version):
            raise LoadError(why)
        model = self.variant_models.get(artefact.revision.variant) or self.model(version)
        return Loaded(model.declared, (model,), ("synthetic",), memory_bytes=self.memory.get(version))


def _no_files() -> Any:
    raise AssertionError("a synthetic artefact has no files")


class Control:
    """`await Control.open(loop)`: version 1 in blue with all traffic, unless told otherwise."""

    def __init__(
        self,
        loop: VirtualLoop,
        shelf: Shelf | None = None,
        journal: MemoryJournal | None = None,
        limits: AdminLimits | None = None,
        pause_s: float = 0.0,
    ) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.seen = Seen()
        self.shelf = shelf or Shelf()
        self.journal = journal if journal is not None else FlakyJournal()
        self.pause_s = pause_s
        opener = Opener(
            backend=self.shelf,
            new_executors=lambda name: VirtualExecutors(loop, self.clock),
            limits=SlotLimits(1000, 1 << 30),
            budget=Budget(1 << 20, 1 << 40),
            clock_ns=self.clock,
            offload=self._offload,
            observer=self.seen,
        )
        self.admin = Admin(opener, self.shelf, self.journal, self.now_ns, "run", limits or AdminLimits(bake_ns=BAKE_NS))
        self.controller = self.admin.controller
        self.operations = self.admin.operations
        coins = itertools.count()
        self.dispatcher = Dispatcher(self.admin.fleet, self.clock, lambda n: next(coins) * 7919 % n, fallback=True)

    def now_ns(self) -> int:
        return 10**18 + self.clock()

    @classmethod
    async def open(cls, loop: VirtualLoop, versions: Sequence[int] = (1,), **more: Any) -> Control:
        control = cls(loop, **more)
        await control.admin.start([control.shelf.source(*versions)] if versions else [])
        control.controller.events.after(0)
        return control

    async def _offload(self, blocking: Callable[..., Any], *args: Any) -> Any:
        """On a thread of its own, a call takes time; here `pause_s` of it, and `load_s` for a load. It goes on when
        nobody waits for it any more."""
        return await asyncio.shield(asyncio.ensure_future(self._on_thread(blocking, *args)))

    async def _on_thread(self, blocking: Callable[..., Any], *args: Any) -> Any:
        if getattr(blocking, "__name__", "") != "load":
            await asyncio.sleep(self.pause_s)
            return blocking(*args)
        self.shelf.loading += 1
        self.shelf.loading_max = max(self.shelf.loading_max, self.shelf.loading)
        try:
            await asyncio.sleep(self.shelf.load_s)
            return blocking(*args)
        finally:
            self.shelf.loading -= 1

    async def load(self, slot: str, version: int, wait: bool = True, ask: Ask = ALICE, **more: Any) -> Any:
        allow = more.pop("allow_signature_change", False)
        digest, variant, force = more.pop("digest", ""), more.pop("variant", ""), more.pop("force", False)
        command = Load(slot, Revision("m", version, variant, ""), **more)
        wanted = Wanted(version, variant, digest, force)
        return await self.operations.load("m", command, wanted, ask, wait, allow)

    async def unload(self, slot: str, wait: bool = True, ask: Ask = ALICE, end_bake: bool = False) -> None:
        await self.operations.unload("m", Unload(slot, end_bake), ask, wait)

    async def swap(self, slot: str, bake_ns: int = BAKE_NS, ask: Ask = ALICE) -> None:
        await self.controller.change("m", Swap(slot, bake_ns), ask)

    async def weights(self, ask: Ask = ALICE, **weights: int) -> None:
        await self.controller.change("m", SetWeights(weights), ask)

    async def shadow(self, slot: str, sample_bp: int = 10_000, ask: Ask = ALICE, **more: Any) -> None:
        await self.operations.set_shadow("m", shadow_rule(slot, sample_bp, **more), ask)

    async def clear_shadow(self, slot: str, ask: Ask = ALICE) -> None:
        await self.controller.change("m", ClearShadow(slot), ask)

    async def roll_back(self, slot: str = "", ask: Ask = ALICE, allow_reload: bool = False) -> None:
        await self.operations.roll_back("m", slot, allow_reload, ask)

    def rollback_now(self, slot: str = "") -> Any:
        return self.controller.roll_back("m", Rollback(slot), ALICE)

    @property
    def in_force(self) -> dict[str, int]:
        """The shares that requests see."""
        route = self.admin.fleet.model("m").route
        return dict(route.weights) if route else {}

    @property
    def journaled(self) -> dict[str, int]:
        state = self.journal.states()["m"]
        return dict(state.route.weights) if state.route else {}

    @property
    def shadows(self) -> dict[str, int]:
        """By slot with a shadow rule, the sample that requests see."""
        return _samples(self.admin.fleet.model("m").route)

    @property
    def journaled_shadows(self) -> dict[str, int]:
        return _samples(self.journal.states()["m"].route)

    def state(self, slot: str) -> str:
        record = self.controller.desk("m").state.slots.get(slot)
        return str(record) if record else "-"

    def infer(self, value: float = 1.0, **more: Any) -> Outcome:
        outcome = Outcome()
        outcome.ticket = self.dispatcher.infer(request(value, **more), outcome.done)
        return outcome

    async def restarted(self, versions: Sequence[int] = (1,), **more: Any) -> Control:
        """Another server with what the journal holds: this one is gone without a word."""
        journal = MemoryJournal()
        journal.__dict__.update({k: copy(self.journal.__dict__[k]) for k in journal.__dict__ if k != "_turn"})
        return await Control.open(self.loop, versions, shelf=self.shelf, journal=journal, **more)


def _samples(route: Route | None) -> dict[str, int]:
    return {rule.slot: rule.sample_bp for rule in route.shadows} if route else {}


def other_signature() -> Signature:
    x, y = (TensorSpec(name, DataType.FP32, (-1, 5)) for name in ("x", "y"))
    return Signature((x,), (y,))


def again(ask: Ask, **more: Any) -> Ask:
    return replace(ask, **more)
