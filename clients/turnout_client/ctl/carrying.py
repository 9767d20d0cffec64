"""A plan carried out on one server, step by step; each step is said when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable

from turnout_client.admin import AdminClient
from turnout_client.ctl.loading import WAIT_TIMEOUT_S, watching
from turnout_client.ctl.session import Session
from turnout_client.ctl.traffic import sticky_message
from turnout_client.errors import AdminError
from turnout_client.plan import (
    ClearShadow,
    Load,
    Options,
    Plan,
    Route,
    SetShadow,
    Step,
    Unload,
    Wait,
    same_route,
    split,
    state_name,
)
from turnout_client.shadows import rule_message, shadows_of
from turnout_wire.gen import slots_pb2 as pb

_LOOK_S = 0.2


class Carrying:
    """What was done on one server, and the error that ended it."""

    def __init__(
        self,
        session: Session,
        endpoint: str,
        options: Options,
        mutation: pb.Mutation,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.done: list[str] = []
        self.error: AdminError | None = None
        self._session = session
        self._endpoint = endpoint
        self._options = options
        self._mutation = mutation
        self._sleep = sleep
        self._wait_s = session.timeout_s or WAIT_TIMEOUT_S

    def carry(self, client: AdminClient, plan: Plan, planned_on: pb.Model | None) -> None:
        """Raises AdminError where a step is refused, or somebody else changed what the plan was made for."""
        for step in plan.steps:
            done = self._step(client, plan.model, step, planned_on or pb.Model(name=plan.model))
            self.done.append(f"{plan.model}: {done}")
            if not self._session.as_json:
                self._session.say(f"{self._endpoint}  {plan.model}: {done}")

    def _step(self, client: AdminClient, model: str, step: Step, planned_on: pb.Model) -> str:
        match step:
            case Load():
                with watching(self._session, model, step.slot):
                    client.load(self._load(model, step), self._wait_s)
                return f"{step.slot} is READY {step.revision.text(model)}"
            case Wait():
                with watching(self._session, model, step.slot):
                    self._ready(client, model, step.slot)
                return f"{step.slot} is READY"
            case Route():
                now = _unchanged(client, model, planned_on)
                client.set_weights(self._route(model, step, now.route.etag))
                return split(step.weights) if step.weights is not None else "sticky key or pins set"
            case ClearShadow(slot):
                etag = _same_rule(client, model, slot, planned_on)
                client.clear_shadow(pb.ClearShadowRequest(model=model, slot=slot, mutation=self._next(etag)))
                return f"{slot} gets no copies"
            case SetShadow(rule):
                etag = _same_rule(client, model, rule.slot, planned_on)
                message = rule_message(rule)
                client.set_shadow(pb.SetShadowRequest(model=model, rule=message, mutation=self._next(etag)))
                return f"{rule.slot} gets copies of {rule.brief()}"
            case Unload():
                request = pb.UnloadSlotRequest(
                    model=model,
                    slot=step.slot,
                    wait=True,
                    end_bake=self._options.end_bake,
                    mutation=self._next(step.etag),
                )
                client.unload(request, self._wait_s)
                return f"{step.slot} is EMPTY"

    def _load(self, model: str, step: Load) -> pb.LoadSlotRequest:
        return pb.LoadSlotRequest(
            model=model,
            slot=step.slot,
            revision=pb.Revision(model=model, version=step.revision.version, variant=step.revision.variant),
            digest=step.revision.digest,
            wait=True,
            replace=step.replace,
            accept_outage=step.accept_outage,
            end_bake=self._options.end_bake,
            allow_signature_change=self._options.allow_signature_change,
            force=self._options.force and bool(step.revision.variant),
            mutation=self._next(step.etag),
        )

    def _route(self, model: str, step: Route, etag: str) -> pb.SetWeightsRequest:
        request = pb.SetWeightsRequest(model=model, mutation=self._next(etag))
        for slot, weight in (step.weights or {}).items():
            request.weights.add(slot=slot, weight_bp=weight)
        if step.sticky is not None:
            request.sticky_key.CopyFrom(sticky_message(step.sticky))
        if step.pins is not None:
            request.set_pins = True
            for pin in step.pins:
                request.pins.add(metadata_key=pin.metadata_key, value=pin.value, slot=pin.slot)
        return request

    def _next(self, etag: str) -> pb.Mutation:
        """Each step is a request of its own, and has an id of its own."""
        request_id = f"{self._mutation.request_id}/{len(self.done)}"
        return pb.Mutation(etag=etag, request_id=request_id, reason=self._mutation.reason)

    def _ready(self, client: AdminClient, model: str, slot: str) -> None:
        until = time.monotonic() + self._wait_s
        while True:
            status = next((each for each in client.model(model).slots if each.name == slot), pb.SlotStatus(name=slot))
            if status.state == pb.SLOT_STATE_READY:
                return
            if status.state not in (pb.SLOT_STATE_LOADING, pb.SLOT_STATE_WARMING):
                said = f"slot '{slot}' of model '{model}' became {state_name(status)}: {status.message}"
                raise AdminError("FAILED_PRECONDITION", said, "SLOT_NOT_READY", {"model": model, "slot": slot})
            if time.monotonic() > until:
                raise AdminError("DEADLINE_EXCEEDED", f"slot '{slot}' of '{model}' is still {state_name(status)}")
            self._sleep(_LOOK_S)


def _unchanged(client: AdminClient, model: str, planned_on: pb.Model) -> pb.Model:
    """The etag of the plan will not do: a load since may have made the route another one, with the same split."""
    now = client.model(model)
    if not same_route(now, planned_on):
        said = f"somebody moved the traffic of model '{model}' since the difference was shown"
        raise AdminError("ABORTED", said, "ETAG_MISMATCH", {"model": model, "current_etag": now.route.etag})
    return now


def _same_rule(client: AdminClient, model: str, slot: str, planned_on: pb.Model) -> str:
    """The etag of a route by which a slot still gets the copies that the plan was made for."""
    now = client.model(model)
    if shadows_of(now).get(slot) != shadows_of(planned_on).get(slot):
        said = f"somebody changed the shadow rule of slot '{slot}' of model '{model}' since the difference was shown"
        raise AdminError("ABORTED", said, "ETAG_MISMATCH", {"model": model, "current_etag": now.route.etag})
    return now.route.etag
