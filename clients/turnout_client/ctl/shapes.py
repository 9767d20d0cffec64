"""Messages as JSON: the stable shape that --json prints. Names as in the proto, enum values without their prefix, times
in RFC 3339, durations in milliseconds, 64-bit numbers as numbers. Fields are added, never renamed."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from turnout_client.ctl.advice import next_step
from turnout_client.desired import pins_of
from turnout_client.errors import AdminError
from turnout_client.plan import held, written
from turnout_wire.gen import slots_pb2 as pb


def model(message: pb.Model) -> dict[str, Any]:
    return {
        "name": message.name,
        "health": pb.Health.Name(message.health).removeprefix("HEALTH_"),
        "message": message.message,
        "stable_slot": message.stable_slot,
        "candidate_slot": message.candidate_slot,
        "previous_slot": message.previous_slot,
        "bake_until": _time(message, "bake_until"),
        "read_time": _time(message, "read_time"),
        "route": _route(message),
        "slots": [slot(message, status) for status in message.slots],
    }


def _route(message: pb.Model) -> dict[str, Any] | None:
    if not message.HasField("route"):
        return None
    sticky = message.route.sticky_key
    return {
        "generation": message.route.generation,
        "etag": message.route.etag,
        "weights": {weight.slot: weight.weight_bp for weight in message.route.weights},
        "sticky_key": {
            "metadata_key": sticky.metadata_key,
            "request_parameter": sticky.request_parameter,
            "salt": sticky.salt,
        },
        "pins": [{"metadata_key": pin.metadata_key, "value": pin.value, "slot": pin.slot} for pin in pins_of(message)],
        "shadows": [_shadow(rule) for rule in message.route.shadows],
    }


def _shadow(rule: pb.ShadowRule) -> dict[str, Any]:
    return {
        "slot": rule.slot,
        "sample_bp": rule.sample_bp,
        "noise_bp": rule.noise_bp,
        "salt": rule.salt,
        "queue_max": rule.queue_max,
        "bytes_max": rule.bytes_max,
        "deadline_ms": _milliseconds(rule, "deadline"),
        "comparators": [_comparator(each) for each in rule.comparators],
    }


def _comparator(message: pb.Comparator) -> dict[str, Any]:
    """With the parameters that are set; others are as by default."""
    return {field.name: value for field, value in message.ListFields()} | {
        "method": pb.ComparisonMethod.Name(message.method).removeprefix("COMPARISON_METHOD_")
    }


def slot(message: pb.Model, status: pb.SlotStatus) -> dict[str, Any]:
    observed = next((weight for weight in message.weights if weight.slot == status.name), None)
    return {
        "name": status.name,
        "state": pb.SlotState.Name(status.state).removeprefix("SLOT_STATE_"),
        "revision": held(status),
        "digest": status.digest,
        "weight_bp": next((w.weight_bp for w in message.route.weights if w.slot == status.name), 0),
        "observed_bp": observed.actual_bp if observed is not None and observed.actual_bp >= 0 else None,
        "held": status.held,
        "forced": status.forced,
        "etag": status.etag,
        "message": status.message,
        "memory_bytes": status.memory_bytes,
        "leases": status.leases,
        "queued_rows": status.queued_rows,
        "providers": list(status.providers),
        "state_time": _time(status, "state_time"),
        "routed": counts(status.routed),
        "pinned": counts(status.pinned),
        "gates": [_gate(gate) for gate in status.gates],
    }


def available(message: pb.AvailableRevision) -> dict[str, Any]:
    report = message.report
    return {
        "revision": written(message.revision),
        "digest": message.digest,
        "size_bytes": message.size_bytes,
        "problem": message.problem,
        "doubts": list(message.doubts),
        "report": {
            "agreement": report.agreement if report.HasField("agreement") else None,
            "error_relative_max": report.error_relative_max if report.HasField("error_relative_max") else None,
            "size_ratio": report.size_ratio if report.HasField("size_ratio") else None,
            "rows": report.rows,
            "created_at": report.created_at,
        }
        if message.HasField("report")
        else None,
    }


def counts(message: pb.Counts) -> dict[str, Any]:
    return {
        "requests": message.requests,
        "successes": message.successes,
        "errors": message.errors,
        "rejected": message.rejected,
        "invalid": message.invalid,
        "cancelled": message.cancelled,
        "latency_p50_ms": _milliseconds(message, "latency_p50"),
        "latency_p99_ms": _milliseconds(message, "latency_p99"),
    }


def _gate(message: pb.GateResult) -> dict[str, Any]:
    return {
        "gate": message.gate,
        "verdict": pb.Verdict.Name(message.verdict).removeprefix("VERDICT_"),
        "observed": message.observed,
        "limit": message.limit,
        "message": message.message,
    }


def cost(message: pb.ReplaceCost) -> dict[str, Any]:
    return {
        "share_bp": message.share_bp,
        "leases": message.leases,
        "last_load_ms": _milliseconds(message, "last_load"),
        "memory_bytes": message.memory_bytes,
    }


def transition(message: pb.Transition) -> dict[str, Any]:
    return {
        "seq": message.seq,
        "time": _time(message, "time"),
        "model": message.model,
        "object": message.object,
        "from_state": message.from_state,
        "to_state": message.to_state,
        "actor": message.actor,
        "reason": message.reason,
        "cause": message.cause,
        "request_id": message.request_id,
        "generation": message.generation,
    }


def event(message: pb.ModelEvent) -> dict[str, Any]:
    return {
        "resume_token": message.resume_token,
        "event_type": pb.ModelEventType.Name(message.event_type).removeprefix("MODEL_EVENT_TYPE_"),
        "model": model(message.model) if message.HasField("model") else None,
        "transition": transition(message.transition) if message.HasField("transition") else None,
    }


def error(found: AdminError, **known: str) -> dict[str, Any]:
    return {
        "code": found.code,
        "reason": found.reason,
        "message": found.message,
        "metadata": dict(found.metadata),
        "fields": [{"field": field, "description": description} for field, description in found.fields],
        "next_step": next_step(found, **known),
    }


def _time(message: Message, name: str) -> str | None:
    stamp: Timestamp = getattr(message, name)
    return stamp.ToJsonString() if message.HasField(name) else None


def _milliseconds(message: Message, name: str) -> float | None:
    duration: Duration = getattr(message, name)
    return duration.ToNanoseconds() / 1e6 if message.HasField(name) else None
