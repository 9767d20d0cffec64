"""What a load is held to, by what else the server holds at the time: the signature that clients know, and the memory
that is left. Also where a restart begins a load again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from turnout.core.errors import ControlError, Refusal
from turnout.core.gates import Gate, GateResult, Verdict
from turnout.core.model import Artefact
from turnout.core.offers import summary
from turnout.core.routing import Route
from turnout.core.tensors import Signature
from turnout.runtime.fleet import Fleet, Model
from turnout.runtime.gates import Gates
from turnout.runtime.slot import Slot
from turnout.runtime.views import memory_of


@dataclass(frozen=True, slots=True)
class Demands:
    """Args:
    memory_bytes_max: that all slots together may take resident; 0: no bound.
    """

    fleet: Fleet
    memory_bytes_max: int = 0

    def gates(
        self,
        model: Model | None,
        route: Route | None,
        slot: str,
        artefact: Artefact,
        allow_signature_change: bool,
        forced: str = "",
    ) -> Gates:
        """For a load into a slot of a model (None: one that the server does not have yet)."""
        known = model.clients_know(route) if model is not None else None
        routed = route is not None and route.stable is not None
        name = model.name if model is not None else artefact.revision.model

        def left() -> int:
            return self.memory_bytes_max - sum(map(memory_of, self._others(name, slot)))

        bound = left if self.memory_bytes_max else None
        return gates_of(artefact, forced, known, allow_signature_change, bound, routed and known is None)

    def refuse_too_large(self, slot: str, artefact: Artefact) -> None:
        """As far as the files tell whether a revision can fit at all.

        Raises:
            ControlError: SLOT_MEMORY, naming what there is.
        """
        others = self._others(artefact.revision.model, slot)
        left = self.memory_bytes_max - sum(map(memory_of, others))
        if not self.memory_bytes_max or artefact.size_bytes <= left:
            return
        largest = sorted((s for s in others if memory_of(s)), key=memory_of, reverse=True)[:5]
        held = ", ".join(f"{s.revision} in slot '{s.name}' {memory_of(s)}" for s in largest) or "nothing"
        raise ControlError(
            Refusal.SLOT_MEMORY,
            f"the files of {artefact.revision} take {artefact.size_bytes} bytes, and {max(left, 0)} of "
            f"{self.memory_bytes_max} (--slot-memory-bytes-max) are left; resident are {held}: unload one, or replace "
            "it in place",
            revision=artefact.revision,
        )

    def _others(self, model: str, slot: str) -> list[Slot]:
        return [s for m in self.fleet for s in m.slots.values() if (m.name, s.name) != (model, slot)]


def gates_of(
    artefact: Artefact,
    forced: str = "",
    known: Signature | None = None,
    allow_signature_change: bool = True,
    memory_left: Callable[[], int] | None = None,
    unknown: bool = False,
) -> Gates:
    """What an artefact is held to; of a variant, its report is the first that is told."""
    variant = bool(artefact.revision.variant)
    gates = Gates(
        known, allow_signature_change, artefact.golden, memory_left, unknown, variant, artefact.report, forced
    )
    if variant:
        verdict = Verdict.INCONCLUSIVE if forced else Verdict.PASS
        gates.results.append(
            GateResult(Gate.REPORT, verdict, f"in spite of this: {forced}" if forced else summary(artefact))
        )
    return gates
