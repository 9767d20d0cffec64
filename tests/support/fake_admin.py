"""SlotService and FeedbackService in this process: the server's own decisions (core/control) over models that load at
once, with refusals on demand. What is measured (counts, observed shares) is what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from support.fake_shadows import FakeShadows
from turnout.core.commands import (
    Assign,
    Change,
    ClearShadow,
    Command,
    Empty,
    Fill,
    Load,
    Loaded,
    Lost,
    Rollback,
    SetShadow,
    SetWeights,
    Swap,
    Unload,
    Unloaded,
)
from turnout.core.control import etag_of, step
from turnout.core.errors import ControlError, Refusal
from turnout.core.ids import Revision
from turnout.core.routing import STICKY_METADATA, Pin, StickyKey
from turnout.core.shadow_rules import ShadowLimits
from turnout.core.traffic import Traffic
from turnout.transport.shadow_codec import read_rule, shadow_rule
from turnout_wire.admin import DETAILS_KEY, ERROR_DOMAIN, FEEDBACK_METHODS, FEEDBACK_SERVICE, METHODS, SERVICE, Method
from turnout_wire.gen import slots_pb2 as pb
from turnout_wire.gen.feedback_pb2 import RecordFeedbackRequest, RecordFeedbackResponse

_CODES = {
    Refusal.ETAG_MISMATCH: grpc.StatusCode.ABORTED,
    Refusal.INVALID_SPEC: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.TOKEN_EXPIRED: grpc.StatusCode.OUT_OF_RANGE,
    Refusal.STATE_STORE: grpc.StatusCode.UNAVAILABLE,
    Refusal.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Refusal.SLOT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Refusal.REVISION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
}


class FakeAdmin:
    """Models by name, each with the versions that its repository has.

    Attributes:
        asked: every request that came, by the name of its RPC.
        refusals: what an RPC is refused with from now on.
        broken: versions that fail to load.
        doubts: variants that are refused unless forced, with what speaks against them.
        slow_s: how long a load that is waited for takes.
        requests: by (model, slot): what the slot has answered.
        shadows: what comparing shows, and which labels came.
    """

    def __init__(self, **versions: int) -> None:
        self.states: dict[str, Traffic] = {}
        self.versions = versions
        self.asked: list[tuple[str, Any]] = []
        self.refusals: dict[str, ControlError] = {}
        self.broken: set[int] = set()
        self.slow_s = 0.0
        self.closed = threading.Event()
        self.doubts: dict[str, str] = {}  # by revision, what speaks against a variant
        self.requests: dict[tuple[str, str], int] = {}
        self.shadows = FakeShadows()
        self.watching = 0  # how many watches have begun
        self.step_ns = 0  # between two readings, where a test wants rates that are exact
        self.transitions: list[pb.Transition] = []
        self.events: list[pb.ModelEvent] = []
        self._lock = threading.Condition()
        self._now_ns = time.time_ns()
        self.address = ""

    @classmethod
    def digits(cls) -> FakeAdmin:
        """Version 1 in blue with all traffic."""
        fake = cls(digits=3)
        fake.states["digits"] = Traffic("digits")
        fake.do("digits", Load("blue", revision("digits", 1)))
        fake.do("digits", Swap("blue", 0))
        state = fake.states["digits"]
        assert state.route is not None
        fake.states["digits"] = state.with_route(replace(state.route, generation=1))  # as after a start
        fake.transitions.clear()
        fake.events.clear()
        return fake

    def do(self, model: str, command: Command, actor: str = "test", reason: str = "") -> None:
        """Carries a command out, and what follows from it."""
        with self._lock:
            done = step(self.states.get(model, Traffic(model)), command, self._now_ns)
            self.states[model] = done.state
            for change in done.changes:
                self._record(model, change, actor, reason)
            for effect in done.effects:
                match effect:
                    case Fill(slot, filled):
                        broken = filled.version in self.broken
                        self.do(model, Lost(slot, "it is broken") if broken else Loaded(slot), "server")
                    case Empty(slot) if self.states[model].slots[slot].state.value == "DRAINING":
                        self.do(model, Unloaded(slot), "server")
                    case Assign() | Empty():
                        pass
            self._lock.notify_all()

    def handle(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append((name, request))
        try:
            if name in self.refusals:
                raise self.refusals[name]
            return getattr(self, f"_{name}")(request, context)
        except ControlError as error:
            self._abort(context, error)

    def _abort(self, context: grpc.ServicerContext, error: ControlError) -> None:
        status = Status(message=error.message)
        status.details.add().Pack(ErrorInfo(reason=error.refusal.name, domain=ERROR_DOMAIN, metadata=error.metadata))
        if error.field:
            violation = BadRequest.FieldViolation(field=error.field, description=f"{error.field} is wrong")
            status.details.add().Pack(BadRequest(field_violations=[violation]))
        context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
        context.abort(_CODES.get(error.refusal, grpc.StatusCode.FAILED_PRECONDITION), error.message)

    def _record(self, model: str, change: Change, actor: str, reason: str) -> None:
        line = pb.Transition(
            seq=len(self.transitions) + 1, model=model, object=change.object, from_state=change.from_state,
            to_state=change.to_state, actor=actor, reason=reason, cause=change.cause, generation=change.generation,
        )  # fmt: skip
        line.time.FromNanoseconds(self._now_ns)
        self.transitions.append(line)
        kind = pb.MODEL_EVENT_TYPE_SLOT if change.object.startswith("slots/") else pb.MODEL_EVENT_TYPE_ROUTE
        self.events.append(
            pb.ModelEvent(resume_token=str(line.seq), event_type=kind, model=self.model(model), transition=line)
        )

    def _change(self, request: Any, command: Command) -> pb.Model:
        mutation, model = request.mutation, request.model
        state = self.states.get(model)
        if state is None:
            if not isinstance(command, Load):
                raise ControlError(Refusal.MODEL_NOT_FOUND, f"unknown model '{model}'", model=model)
            state = Traffic(model)
        current = etag_of(state, command)
        if mutation.etag and mutation.etag.strip('"') != current:
            raise ControlError(Refusal.ETAG_MISMATCH, f"{current} is current", current_etag=current, model=model)
        step(state, command, self._now_ns)
        if not mutation.validate_only:
            self.do(model, command, "operator", mutation.reason)
        return self.model(model) if model in self.states else pb.Model()

    def _LoadSlot(self, request: pb.LoadSlotRequest, _: object) -> pb.LoadSlotResponse:
        version = request.revision.version
        if not 1 <= version <= self.versions.get(request.model, 0):
            raise ControlError(Refusal.REVISION_NOT_FOUND, f"no revision '{request.model}/{version}'")
        wanted = revision(request.model, version, request.revision.variant)
        doubts = self.doubts.get(str(wanted), "")
        if doubts and not request.force:
            raise ControlError(Refusal.VARIANT_REFUSED, f"{wanted}: {doubts}", model=request.model, revision=wanted)
        forced = doubts if request.force else ""
        command = Load(request.slot, wanted, request.replace, request.accept_outage, request.end_bake, forced=forced)
        weight = self.states[request.model].weight_bp(request.slot) if request.model in self.states else 0
        self.closed.wait(self.slow_s)
        reply = pb.LoadSlotResponse(model=self._change(request, command))
        if request.replace:
            reply.cost.share_bp = weight
            reply.cost.last_load.FromMilliseconds(1500)
        slot = self.states[request.model].slots.get(request.slot) if request.model in self.states else None
        if request.wait and slot is not None and slot.state.value == "FAILED":
            raise ControlError(Refusal.GATE_FAILED, slot.message, gate="finite", slot=request.slot)
        return reply

    def _UnloadSlot(self, request: pb.UnloadSlotRequest, _: object) -> pb.UnloadSlotResponse:
        return pb.UnloadSlotResponse(model=self._change(request, Unload(request.slot, request.end_bake)))

    def _SwapSlots(self, request: pb.SwapSlotsRequest, _: object) -> pb.SwapSlotsResponse:
        bake_ns = request.bake.ToNanoseconds() if request.HasField("bake") else 600 * 10**9
        return pb.SwapSlotsResponse(model=self._change(request, Swap(request.slot, bake_ns)))

    def _RollbackModel(self, request: pb.RollbackModelRequest, _: object) -> pb.RollbackModelResponse:
        return pb.RollbackModelResponse(model=self._change(request, Rollback(request.slot)))

    def _SetWeights(self, request: pb.SetWeightsRequest, _: object) -> pb.SetWeightsResponse:
        weights = {weight.slot: weight.weight_bp for weight in request.weights} or None
        sticky = None
        if request.HasField("sticky_key"):
            key = request.sticky_key
            sticky = StickyKey(salt=key.salt)
            if key.WhichOneof("source"):
                sticky = StickyKey(key.metadata_key, key.request_parameter, key.salt)
        pins = tuple(Pin(pin.metadata_key, pin.value, pin.slot) for pin in request.pins) if request.set_pins else None
        return pb.SetWeightsResponse(model=self._change(request, SetWeights(weights, sticky, pins)))

    def _SetShadow(self, request: pb.SetShadowRequest, _: object) -> pb.SetShadowResponse:
        rule = ShadowLimits().bounded(read_rule(request))
        return pb.SetShadowResponse(model=self._change(request, SetShadow(rule)))

    def _ClearShadow(self, request: pb.ClearShadowRequest, _: object) -> pb.ClearShadowResponse:
        return pb.ClearShadowResponse(model=self._change(request, ClearShadow(request.slot)))

    def _GetModel(self, request: pb.GetModelRequest, _: object) -> pb.GetModelResponse:
        if request.model not in self.states:
            raise ControlError(Refusal.MODEL_NOT_FOUND, f"unknown model '{request.model}'", model=request.model)
        reply = pb.GetModelResponse(model=self.model(request.model))
        if request.available:
            held = {str(record.revision) for record in self.states[request.model].slots.values()}
            names = [(number, "") for number in range(1, self.versions[request.model] + 1)]
            names += [(2, name.partition("@")[2]) for name in {*self.doubts, *held} if "@" in name]
            for number, variant in sorted(names):
                found = reply.available.add(revision=pb.Revision(model=request.model, version=number, variant=variant))
                found.size_bytes = 1 << 20
                if doubts := self.doubts.get(str(revision(request.model, number, variant))):
                    found.doubts.append(doubts)
                elif variant:
                    found.report.agreement, found.report.size_ratio, found.report.rows = 0.9973, 3.75, 360
        return reply

    def _ListModels(self, request: pb.ListModelsRequest, _: object) -> pb.ListModelsResponse:
        names = sorted(name for name in self.states if name > request.page_token)
        reply = pb.ListModelsResponse(models=[self.model(name) for name in names[:1]])  # every page has one
        reply.next_page_token = names[0] if len(names) > 1 else ""
        return reply

    def _ListTransitions(self, request: pb.ListTransitionsRequest, _: object) -> pb.ListTransitionsResponse:
        before = int(request.page_token or 10**9)
        wanted = (request.model or "-", "-")
        found = [
            t
            for t in reversed(self.transitions)
            if request.since_seq < t.seq < before and (t.model in wanted or "-" in wanted[:1])
        ]
        reply = pb.ListTransitionsResponse(transitions=found[:2])
        reply.next_page_token = str(found[1].seq) if len(found) > 2 else ""
        return reply

    def _WatchModel(self, request: pb.WatchModelRequest, context: grpc.ServicerContext) -> Iterator[pb.ModelEvent]:
        seen = int(request.resume_token or len(self.events))
        self.watching += 1
        if request.send_initial_state:
            for name in self.states if request.model == "-" else [request.model]:
                kind = pb.MODEL_EVENT_TYPE_INITIAL
                yield pb.ModelEvent(resume_token=str(seen), event_type=kind, model=self.model(name))
            yield pb.ModelEvent(resume_token=str(seen), event_type=pb.MODEL_EVENT_TYPE_SYNCED)
        while context.is_active():
            with self._lock:
                self._lock.wait(0.05)
                fresh, seen = self.events[seen:], len(self.events)
            yield from fresh

    def _WatchComparisons(
        self, request: pb.WatchComparisonsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ComparisonEvent]:
        return self.shadows.watch(request, context)

    def _RecordFeedback(self, request: RecordFeedbackRequest, _: object) -> RecordFeedbackResponse:
        return self.shadows.record(request)

    def model(self, name: str) -> pb.Model:
        state, self._now_ns = self.states[name], self._now_ns + self.step_ns
        message = pb.Model(name=name, health=pb.HEALTH_HEALTHY)
        message.read_time.FromNanoseconds(self._now_ns if self.step_ns else time.time_ns())
        for record in state.slots.values():
            slot = message.slots.add(name=record.name, state=f"SLOT_STATE_{record.state.value}", etag=str(record.etag))  # type: ignore[arg-type]
            slot.message, slot.held, slot.forced = record.message, record.name == state.held, record.forced
            if record.revision is not None:
                held = record.revision
                slot.revision.CopyFrom(pb.Revision(model=name, version=held.version, variant=held.variant))
                slot.digest = held.digest
            count = self.requests.get((name, record.name), 0)
            slot.routed.requests = slot.routed.successes = count
            if count:
                slot.routed.latency_p50.FromMicroseconds(1500)
                slot.routed.latency_p99.FromMicroseconds(12000)
        message.previous_slot = state.previous.slot if state.previous else ""
        if state.bake_until_ns:
            message.bake_until.FromNanoseconds(state.bake_until_ns)
        if (route := state.route) is not None:
            message.stable_slot = route.stable.slot if route.stable else ""
            message.route.generation, message.route.etag = route.generation, str(route.generation)
            for slot_name, weight in route.weights.items():
                message.route.weights.add(slot=slot_name, weight_bp=weight)
                message.weights.add(slot=slot_name, weight_bp=weight, actual_bp=-1)
            message.route.sticky_key.salt = route.sticky.salt
            if route.sticky.metadata and route.sticky.metadata != STICKY_METADATA:
                message.route.sticky_key.metadata_key = route.sticky.metadata
            elif not route.sticky.metadata:
                message.route.sticky_key.request_parameter = route.sticky.parameter
            for pin in route.pins:
                message.route.pins.add(metadata_key=pin.metadata, value=pin.value, slot=pin.slot)
            message.route.shadows.extend(shadow_rule(rule) for rule in route.shadows)
        return message


def revision(model: str, version: int, variant: str = "") -> Revision:
    return Revision(model, version, variant, f"{version:064x}")


@contextmanager
def serving(fake: FakeAdmin, port: int = 0) -> Iterator[FakeAdmin]:
    """The fake on a port, or on a free one of its own: `fake.address`."""
    server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
    for service, methods in ((SERVICE, METHODS), (FEEDBACK_SERVICE, FEEDBACK_METHODS)):
        handlers = {name: _handler(fake, method) for name, method in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    fake.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    fake.closed.clear()
    server.start()
    try:
        yield fake
    finally:
        fake.closed.set()
        server.stop(0).wait()


def _handler(fake: FakeAdmin, method: Method) -> Any:
    make: Any = grpc.unary_stream_rpc_method_handler if method.stream else grpc.unary_unary_rpc_method_handler
    return make(
        lambda request, context: fake.handle(method.name, request, context),
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )
