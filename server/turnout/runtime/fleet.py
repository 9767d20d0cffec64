"""All models with their slots and current routes: who can answer, looked up without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from turnout.core.assignment import Choice
from turnout.core.errors import Reason, ServingError
from turnout.core.frozen import frozen
from turnout.core.model import Artefact
from turnout.core.routing import Route
from turnout.core.slots import SlotState
from turnout.core.tensors import InferenceRequest, Signature
from turnout.runtime.slot import Cargo, Slot
from turnout.runtime.under_way import UnderWay

_ON_THE_WAY = (SlotState.LOADING, SlotState.WARMING)


@frozen
class Lease:
    """A slot kept loaded for one request, and the generation of the route that chose it."""

    slot: Slot
    cargo: Cargo
    generation: int
    # The request said who shall answer, or is answered in another slot's place: it tells nothing about the split.
    pinned: bool = False
    choice: Choice = Choice.ONLY


@dataclass(slots=True)
class Model:
    """A name that clients call. `route` is replaced by one assignment, by one writer; None until the first slot is
    READY. `problem` says why a model of the repository cannot be used at all. `routed` counts by slot the requests that
    the present generation of the route has sent there, pinned ones apart. `signature` is what clients of the stable
    slot knew last, whatever has become of that slot. `variants`: those of the repository, as of when it was last looked
    at, whether or not a slot holds them."""

    name: str
    route: Route | None = None
    slots: dict[str, Slot] = field(default_factory=dict)
    problem: str = ""
    routed: dict[str, int] = field(default_factory=dict)
    signature: Signature | None = None
    variants: tuple[Artefact, ...] = ()

    def assign(self, route: Route | None) -> None:
        """Replace the route: the next request sees it. A new generation counts anew."""
        if route is None or self.route is None or route.generation != self.route.generation:
            self.routed = {}
        self.route = route
        self.clients_know(route)

    def clients_know(self, route: Route | None) -> Signature | None:
        """The signature of the slot that this route makes stable; where that holds nothing (any more), the one that
        clients knew last. None: there is no such slot, or nothing is known of it."""
        if route is None or route.stable is None:
            return None
        slot = self.slots.get(route.stable.slot)
        if slot is not None and slot.cargo is not None:
            self.signature = slot.cargo.spec.signature
        return self.signature

    def ready_slots(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.state is SlotState.READY]

    def answers(self, version: int | None) -> bool:
        """Whether a request with this pin would reach a READY slot now."""
        try:
            self.find(version, None)
        except ServingError:
            return False
        return True

    def find(self, version: int | None, slot: str | None, variant: str | None = None) -> None:
        """Raises:
        ServingError: NOT_FOUND or NOT_READY, as a request with these pins would.
        """
        pinned = version is not None or slot is not None or variant is not None
        if not pinned and self.route is not None and self.route.intervals:
            for name in self.route.weights:
                if self.slots[name].state is SlotState.READY:
                    return
            self._decide(None, None, 0)[0].ready()
            return
        self._decide(version, slot, 0, variant=variant)[0].ready()

    def slot_of(self, version: int | None) -> Slot:
        """The slot to ask about this version; None: about the model: the stable one, or the newest where nothing is
        routed.

        Raises:
            ServingError: NOT_FOUND or NOT_READY, as for a request.
        """
        if self.route is not None and version is None and self.route.targets:
            newest = max(self.route.targets, key=lambda target: target.revision.version)
            return self.slots[(self.route.stable or newest).slot]
        return self._decide(version, None, 0)[0]

    def lease(self, request: InferenceRequest, coin: int) -> Lease:
        """Route a request and lease its slot, with nothing in between."""
        pinned = request.version is not None or request.slot is not None or request.variant is not None
        slot, route = self._decide(request.version, request.slot, coin, request.sticky_key, request.variant)
        if pinned:
            return Lease(slot, slot.lease(), route.generation, pinned, Choice.PIN)
        self.routed[slot.name] = self.routed.get(slot.name, 0) + 1
        return Lease(slot, slot.lease(), route.generation, pinned, route.choice)

    def lease_stable(self, instead_of: Lease) -> Lease | None:
        """The stable slot, for a routed request that another slot failed; None: there is no other that is READY. Chance
        did not send it there, so it is counted with the pinned ones."""
        stable = self.route.stable if self.route is not None else None
        if stable is None or self.route is None or instead_of.pinned or stable.slot == instead_of.slot.name:
            return None
        slot = self.slots[stable.slot]
        if slot.state is not SlotState.READY:
            return None
        return Lease(slot, slot.lease(), self.route.generation, True, Choice.FALLBACK)

    def _decide(
        self, version: int | None, slot: str | None, coin: int, key: str | None = None, variant: str | None = None
    ) -> tuple[Slot, Route]:
        if self.route is None:
            raise self._unroutable()
        try:
            target = self.route.decide(version, slot, coin, key, variant)
        except ServingError:
            self._refuse_unready(version, slot, variant)
            raise
        return self.slots[target.slot], self.route

    def _unroutable(self) -> ServingError:
        if any(slot.state in _ON_THE_WAY for slot in self.slots.values()):
            return ServingError(Reason.NOT_READY, f"model '{self.name}' is loading, retry later")
        why = self.problem or "; ".join(f"slot '{s.name}': {s.message}" for s in self.slots.values() if s.message)
        return ServingError(
            Reason.NOT_FOUND, f"model '{self.name}' has no ready version" + (f" ({why})" if why else "")
        )

    def _refuse_unready(self, version: int | None, name: str | None, variant: str | None) -> None:
        """A pinned revision that exists but is not READY is UNAVAILABLE to the client, not NOT_FOUND."""
        for slot in self.slots.values():
            held = slot.revision
            if held is not None and held.fits(version, variant) and name in (None, slot.name):
                slot.ready()


class Fleet:
    """The models of this server by name, and how many requests to them are under way."""

    def __init__(self) -> None:
        self.under_way = UnderWay()
        self._models: dict[str, Model] = {}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def add(self, model: Model) -> None:
        self._models[model.name] = model

    def model(self, name: str) -> Model:
        """Raises:
        ServingError: NOT_FOUND, with the names that there are.
        """
        try:
            return self._models[name]
        except KeyError:
            known = ", ".join(f"'{n}'" for n in sorted(self._models)[:10]) or "none"
            raise ServingError(Reason.NOT_FOUND, f"unknown model '{name[:128]}', this server has {known}") from None
