"""Everything that changes slots and traffic, put together: what a server starts, serves operators with, and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from turnout.core.shadow_rules import ShadowLimits
from turnout.core.slots import SlotState
from turnout.runtime.controller import Controller
from turnout.runtime.counts import Counts
from turnout.runtime.demands import Demands
from turnout.runtime.events import Events
from turnout.runtime.fleet import Fleet
from turnout.runtime.ledger import Ledger
from turnout.runtime.opening import Opener
from turnout.runtime.operations import Operations
from turnout.runtime.overhearing import Overheard
from turnout.runtime.ports import ClockNs, Journal, ModelSource, Revisions
from turnout.runtime.recovery import Recovery
from turnout.runtime.requests import Requests
from turnout.runtime.works import Works


@dataclass(frozen=True, slots=True)
class AdminLimits:
    """Each has its flag in config.py."""

    require_etag: bool = False
    memory_bytes_max: int = 0
    bake_ns: int = 600 * 10**9
    shadow: ShadowLimits = field(default_factory=ShadowLimits)


class Admin:
    """The controller with what it needs.

    Args:
        now_ns: the time of day, which must not jump.
        run_id: tells this run of the server from others.
    """

    def __init__(
        self,
        opener: Opener,
        revisions: Revisions,
        journal: Journal,
        now_ns: ClockNs,
        run_id: str,
        limits: AdminLimits,
    ) -> None:
        self.counts = counts = Counts()
        opener = replace(opener, observer=Overheard(opener.observer, counts.transition))
        if limits.memory_bytes_max:  # what a model takes is known when it is loaded: one after the other
            opener = replace(opener, loads=asyncio.Semaphore(1))
        self.fleet = Fleet()
        self.limits = limits
        self.events = Events(run_id)
        ledger = Ledger(journal, opener.offload, counts)
        works = Works(opener, Overheard(opener.observer, self._stepped))
        self.controller = Controller(self.fleet, works, ledger, self.events, now_ns, counts, limits.require_etag)
        demands = Demands(self.fleet, limits.memory_bytes_max)
        self.operations = Operations(self.controller, revisions, opener.offload, demands, limits.shadow)
        self.requests = Requests(ledger, now_ns)
        self._recovery = Recovery(self.controller, revisions, opener.offload, demands)
        self._observer = opener.observer

    async def start(self, sources: Sequence[ModelSource]) -> None:
        """Open every model, as the journal says where it knows them.

        Raises:
            JournalError: it cannot be read or written.
        """
        for note in await self._recovery.start(sources):
            self._observer.noticed(note)

    async def stop(self) -> None:
        """Refuse changes, wait for those under way. What slots hold is the server's to free."""
        await self.controller.stop()
        await self.requests.stop()

    def _stepped(self, model: str, slot: str, state: SlotState) -> None:
        """A step that is not journaled."""
        if state is SlotState.WARMING:
            self.controller.stepped(model)
