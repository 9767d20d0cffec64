"""Shadow rules as messages and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from turnout.core.comparators import Comparator, Method
from turnout.core.errors import ControlError, Refusal
from turnout.core.shadow_rules import ShadowRule
from turnout_wire.gen import slots_pb2 as pb

_METHODS: dict[int, Method] = {pb.ComparisonMethod.Value(f"COMPARISON_METHOD_{m.value}"): m for m in Method}


def read_rule(request: pb.SetShadowRequest) -> ShadowRule:
    """With zeroes where the request leaves a bound to the server.

    Raises:
        ControlError: INVALID_SPEC.
    """
    if not request.HasField("rule"):
        raise _invalid("is missing: say at least slot and sample_bp", "rule")
    message = request.rule
    deadline_ns = message.deadline.ToNanoseconds()
    if deadline_ns < 0:
        raise _invalid(f"is {deadline_ns / 1e9:g} s, it must be positive", "rule.deadline")
    return ShadowRule(
        message.slot,
        message.sample_bp,
        message.salt,
        tuple(_read_comparator(index, comparator) for index, comparator in enumerate(message.comparators)),
        message.queue_max,
        message.bytes_max,
        deadline_ns,
        message.noise_bp,
    )


def _read_comparator(index: int, message: pb.Comparator) -> Comparator:
    method = _METHODS.get(message.method)
    if method is None:
        known = ", ".join(method.value for method in Method)
        raise _invalid(f"is {message.method}, it must be one of {known}", f"rule.comparators[{index}].method")
    return Comparator(
        message.output,
        method,
        atol=message.atol if message.HasField("atol") else None,
        rtol=message.rtol if message.HasField("rtol") else None,
        threshold=message.threshold if message.HasField("threshold") else None,
        k=message.k if message.HasField("k") else None,
        near_tie=message.near_tie if message.HasField("near_tie") else None,
    )


def shadow_rule(rule: ShadowRule) -> pb.ShadowRule:
    return pb.ShadowRule(
        slot=rule.slot,
        sample_bp=rule.sample_bp,
        salt=rule.salt,
        comparators=[_comparator(comparator) for comparator in rule.comparators],
        queue_max=rule.queue_max,
        bytes_max=rule.bytes_max,
        deadline=Duration(seconds=rule.deadline_ns // 10**9, nanos=rule.deadline_ns % 10**9),
        noise_bp=rule.noise_bp,
    )


def _comparator(comparator: Comparator) -> pb.Comparator:
    return pb.Comparator(
        output=comparator.output,
        method=f"COMPARISON_METHOD_{comparator.method.value}",
        atol=comparator.atol,
        rtol=comparator.rtol,
        threshold=comparator.threshold,
        k=comparator.k,
        near_tie=comparator.near_tie,
    )


def _invalid(what: str, field: str) -> ControlError:
    return ControlError(Refusal.INVALID_SPEC, f"{field} {what}", field)
