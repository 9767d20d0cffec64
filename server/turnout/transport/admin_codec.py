"""Admin messages: views and journal lines as protos, requests as commands, each field within its bounds."""

from __future__ import annotations

import hashlib

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from turnout.core.commands import Load, SetWeights
from turnout.core.errors import ControlError, Refusal
from turnout.core.gates import GateResult
from turnout.core.ids import Revision
from turnout.core.model import Artefact
from turnout.core.offers import agreement, size_ratio
from turnout.core.parity import Kind
from turnout.core.routing import STICKY_METADATA, STICKY_PARAMETER, Pin, Route, StickyKey
from turnout.core.snapshot import Line
from turnout.core.variants import VariantReport, is_variant
from turnout.runtime.operations import Wanted
from turnout.runtime.requests import Ask
from turnout.runtime.views import CountsView, ModelView, ReplaceCost, SlotView
from turnout.transport.shadow_codec import shadow_rule
from turnout_wire.gen import slots_pb2 as pb

REASON_CHARACTERS_MAX = 1024
REQUEST_ID_CHARACTERS_MAX = 128
BAKE_S_MAX = 30 * 24 * 3600
_NAME_CHARACTERS_MAX = 128
_WEIGHTS_MAX = 64
_VERSION_MAX = 10**18 - 1


def ask_of(request: Message, mutation: pb.Mutation, actor: str) -> Ask:
    """Who asks, and how.

    Raises:
        ControlError: INVALID_REQUEST, naming the field and its limit.
    """
    _limit("mutation.reason", mutation.reason, REASON_CHARACTERS_MAX)
    _limit("mutation.request_id", mutation.request_id, REQUEST_ID_CHARACTERS_MAX)
    body = type(request)()
    body.CopyFrom(request)
    body.ClearField("mutation")
    whole = type(request).DESCRIPTOR.name.encode() + b"\0" + body.SerializeToString(deterministic=True)
    return Ask(
        actor=actor,
        reason=mutation.reason,
        etag=mutation.etag,
        request_id=mutation.request_id,
        fingerprint=hashlib.sha256(whole).hexdigest(),
        validate_only=mutation.validate_only,
    )


def read_load(request: pb.LoadSlotRequest) -> tuple[Load, Wanted]:
    """Raises:
    ControlError: INVALID_REQUEST.
    """
    revision = request.revision
    _limit("model", request.model, _NAME_CHARACTERS_MAX)
    if revision.model not in ("", request.model):
        raise _invalid("revision.model", f"is '{revision.model[:64]}', the request is for model '{request.model}'")
    if not 1 <= revision.version <= _VERSION_MAX:
        raise _invalid("revision.version", f"is {revision.version}, versions start at 1")
    named = Revision(request.model, revision.version, revision.variant, request.digest)
    command = Load(request.slot, named, request.replace, request.accept_outage, request.end_bake)
    if revision.variant and not is_variant(revision.variant):
        raise _invalid("revision.variant", f"is '{revision.variant[:64]}', it has other characters than a-z, 0-9 and -")
    return command, Wanted(revision.version, revision.variant, request.digest, request.force)


def read_bake_ns(request: pb.SwapSlotsRequest, default_ns: int) -> int:
    """Raises:
    ControlError: INVALID_REQUEST.
    """
    if not request.HasField("bake"):
        return default_ns
    seconds = request.bake.seconds
    if not (0 <= seconds <= BAKE_S_MAX and 0 <= request.bake.nanos < 10**9):
        raise _invalid("bake", f"is {seconds} s, it must be from 0 to {BAKE_S_MAX} s (30 days)")
    return seconds * 10**9 + request.bake.nanos


def read_weights(request: pb.SetWeightsRequest) -> SetWeights:
    """Raises:
    ControlError: INVALID_SPEC.
    """
    weights: dict[str, int] = {}
    if len(request.weights) > _WEIGHTS_MAX:
        raise _invalid("weights", f"are {len(request.weights)}, the limit is {_WEIGHTS_MAX}", Refusal.INVALID_SPEC)
    for index, weight in enumerate(request.weights):
        if weight.slot in weights:
            raise _invalid(f"weights[{index}].slot", f"names '{weight.slot}' twice", Refusal.INVALID_SPEC)
        weights[weight.slot] = weight.weight_bp
    if request.pins and not request.set_pins:
        raise _invalid("set_pins", "is false, and there are pins: set it to replace all pins", Refusal.INVALID_SPEC)
    pins = tuple(Pin(pin.metadata_key, pin.value, pin.slot) for pin in request.pins) if request.set_pins else None
    sticky = _sticky(request.sticky_key) if request.HasField("sticky_key") else None
    return SetWeights(weights if request.weights else None, sticky, pins)


def _sticky(message: pb.StickyKey) -> StickyKey:
    match message.WhichOneof("source"):
        case "metadata_key":
            return StickyKey(message.metadata_key, "", message.salt)
        case "request_parameter":
            return StickyKey("", message.request_parameter, message.salt)
    return StickyKey(salt=message.salt)


def model(view: ModelView) -> pb.Model:
    traffic = view.traffic
    message = pb.Model(
        name=traffic.model,
        health=f"HEALTH_{view.health.value}",
        message=view.message,
        slots=[_slot(slot) for slot in view.slots],
        stable_slot=view.stable,
        candidate_slot=view.candidate,
        previous_slot=traffic.previous.slot if traffic.previous else "",
        weights=[
            pb.ObservedWeight(slot=slot, weight_bp=wanted, actual_bp=actual, requests=count)
            for slot, wanted, actual, count in view.actual
        ],
        read_time=as_time(view.read_ns),
    )
    if traffic.route is not None:
        message.route.CopyFrom(_route(traffic.route))
    if traffic.bake_until_ns:
        message.bake_until.CopyFrom(as_time(traffic.bake_until_ns))
    return message


def transition(line: Line) -> pb.Transition:
    return pb.Transition(
        seq=line.seq,
        time=as_time(line.time_ns),
        model=line.model,
        object=line.object,
        from_state=line.from_state,
        to_state=line.to_state,
        actor=line.actor,
        reason=line.reason,
        cause=line.cause,
        request_id=line.request_id,
        generation=line.generation,
    )


def replace_cost(cost: ReplaceCost) -> pb.ReplaceCost:
    return pb.ReplaceCost(
        share_bp=cost.share_bp,
        leases=cost.leases,
        last_load=as_duration(cost.opening_ns),
        memory_bytes=cost.memory_bytes,
    )


def _route(route: Route) -> pb.Route:
    message = pb.Route(
        generation=route.generation,
        etag=str(route.generation),
        weights=[pb.SlotWeight(slot=slot, weight_bp=weight) for slot, weight in route.weights.items()],
        pins=[pb.Pin(metadata_key=pin.metadata, value=pin.value, slot=pin.slot) for pin in route.pins],
        shadows=[shadow_rule(rule) for rule in route.shadows],
        intervals=[pb.Interval(start_bp=i.start_bp, end_bp=i.end_bp, slot=i.target.slot) for i in route.intervals],
    )
    sticky = route.sticky
    message.sticky_key.salt = sticky.salt
    if (sticky.metadata, sticky.parameter) != (STICKY_METADATA, STICKY_PARAMETER):
        if sticky.metadata:
            message.sticky_key.metadata_key = sticky.metadata
        else:
            message.sticky_key.request_parameter = sticky.parameter
    return message


def _slot(view: SlotView) -> pb.SlotStatus:
    record = view.record
    message = pb.SlotStatus(
        name=record.name,
        state=f"SLOT_STATE_{view.state.value}",
        memory_bytes=view.memory_bytes,
        leases=view.leases,
        state_time=as_time(record.since_ns),
        message=view.message,
        etag=str(record.etag),
        gates=[_gate(result) for result in view.gates],
        providers=view.providers,
        batch_rows_max=view.rows_max,
        queued_rows=view.queued_rows,
        routed=_counts(view.routed),
        pinned=_counts(view.pinned),
        held=view.held,
        forced=record.forced,
    )
    if record.revision is not None:
        message.revision.CopyFrom(as_revision(record.revision))
        message.digest = record.revision.digest
    return message


def _gate(result: GateResult) -> pb.GateResult:
    return pb.GateResult(
        gate=result.gate.value,
        verdict=f"VERDICT_{result.verdict.value}",
        observed=result.observed,
        limit=result.limit,
        message=result.message,
    )


def _counts(view: CountsView) -> pb.Counts:
    message = pb.Counts(
        requests=view.requests,
        successes=view.successes,
        errors=view.errors,
        rejected=view.rejected,
        invalid=view.invalid,
        cancelled=view.cancelled,
    )
    if view.p50_ns is not None and view.p99_ns is not None:
        message.latency_p50.CopyFrom(as_duration(round(view.p50_ns)))
        message.latency_p99.CopyFrom(as_duration(round(view.p99_ns)))
    return message


def available(artefact: Artefact) -> pb.AvailableRevision:
    message = pb.AvailableRevision(
        revision=as_revision(artefact.revision),
        digest=artefact.revision.digest,
        size_bytes=artefact.size_bytes,
        problem=artefact.problem,
        doubts=artefact.doubts,
    )
    if artefact.report is not None:
        message.report.CopyFrom(_report(artefact.report))
    return message


def _report(report: VariantReport) -> pb.VariantSummary:
    errors = [output.error_relative_max for output in report.outputs if output.kind is Kind.VALUES]
    return pb.VariantSummary(
        agreement=agreement(report),
        error_relative_max=max((error for error in errors if error is not None), default=None),
        size_ratio=size_ratio(report),
        rows=report.samples.rows,
        created_at=report.created_at,
    )


def as_revision(revision: Revision) -> pb.Revision:
    return pb.Revision(model=revision.model, version=revision.version, variant=revision.variant)


def as_time(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def as_duration(ns: int) -> Duration:
    return Duration(seconds=ns // 10**9, nanos=ns % 10**9)


def _limit(field: str, text: str, characters_max: int) -> None:
    if len(text) > characters_max:
        raise _invalid(field, f"has {len(text)} characters, the limit is {characters_max}")


def _invalid(field: str, what: str, refusal: Refusal = Refusal.INVALID_REQUEST) -> ControlError:
    return ControlError(refusal, f"{field} {what}", field)
