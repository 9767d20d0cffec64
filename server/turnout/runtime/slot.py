"""A slot: a named place of a model that holds at most one revision, the leases on it, and what it has counted.

Moves between states obey the table in `core/slots`; who moves them is the opener's (later the controller's) business.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from turnout.core.comparators import Precision
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.model import ModelSpec
from turnout.core.slots import NEXT, SlotState
from turnout.runtime.account import Account
from turnout.runtime.batcher import Batcher
from turnout.runtime.gates import Gates
from turnout.runtime.ports import Observer


@dataclass(frozen=True, slots=True)
class Cargo:
    """What a READY slot serves with."""

    revision: Revision
    spec: ModelSpec
    batcher: Batcher
    providers: tuple[str, ...]
    profile_ns: dict[int, int]  # measured run time of each warm batch bucket: the batcher's first cost profile
    opening_ns: int  # how long loading, proving and warming took
    memory_bytes: int | None = None  # that loading and one run took at their peak, where that was tried out
    precision: Precision = Precision.SINGLE  # of its numbers, whatever their datatype


class Slot:
    """One slot of one model. Used on the loop thread only."""

    def __init__(self, model: str, name: str, observer: Observer) -> None:
        self.model = model
        self.name = name
        self.state = SlotState.EMPTY
        self.revision: Revision | None = None
        self.message = ""  # why it FAILED
        self.warnings: tuple[str, ...] = ()
        self.cargo: Cargo | None = None
        self.gates: Gates | None = None  # what its load was held to
        self.size_bytes = 0  # of its revision's files: what it takes at least
        self.account = Account()
        self._observer = observer
        self._leases = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def leases(self) -> int:
        return self._leases

    def move(self, state: SlotState, why: str = "", cause: BaseException | None = None) -> None:
        """Enter a state and tell the observer; `cause` may hold what clients must not read.

        Raises:
            ValueError: this state cannot follow the present one; a programming error.
        """
        if state not in NEXT[self.state]:
            raise ValueError(f"slot '{self.model}/{self.name}' cannot go from {self.state.value} to {state.value}")
        self.state = state
        self.message = why if state is SlotState.FAILED else ""
        self._observer.slot_changed(self.model, self.name, state, self.revision, why, cause)

    def ready(self) -> Cargo:
        """What the slot serves with.

        Raises:
            ServingError: NOT_READY, with the state and why.
        """
        if self.state is not SlotState.READY or self.cargo is None:
            detail = f": {self.message}" if self.message else ""
            raise ServingError(
                Reason.NOT_READY, f"slot '{self.name}' of model '{self.model}' is {self.state.value}{detail}"
            )
        return self.cargo

    def lease(self) -> Cargo:
        """Keep the slot's revision loaded until `release`.

        Raises:
            ServingError: NOT_READY.
        """
        cargo = self.ready()
        if not self._leases:
            self._idle.clear()
        self._leases += 1
        return cargo

    def release(self) -> None:
        self._leases -= 1
        if self._leases == 0:
            self._idle.set()

    async def unload(self) -> None:
        """Give no more leases, wait until none is left, free the revision."""
        self.move(SlotState.DRAINING)
        if self.cargo is not None:
            self.cargo.batcher.flush()
        await self._idle.wait()
        if self.cargo is not None:
            await self.cargo.batcher.stop()
        self.cargo = None
        self.move(SlotState.EMPTY)
        self.revision = None
