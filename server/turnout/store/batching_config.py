"""Reads `dynamic_batching`: when a batch is sent, in what order requests are taken, and how long they may wait."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.core.batch_policy import BatchPolicy, QueuePolicy
from turnout.core.errors import LoadError
from turnout.store.accelerators import flag
from turnout_wire.gen import model_config_pb2 as pb

_DELAY_US_MAX = 60 * 10**6
_TIMEOUT_US_MAX = 24 * 3600 * 10**6
_PRIORITY_LEVELS_MAX = 1000  # each is a counter of every slot
_FIELD = "config.pbtxt: dynamic_batching"
BATCHING = "batching"
PAD_BATCHES = "pad_batches"


def read_policy(proto: pb.ModelConfig) -> BatchPolicy:
    """The policy; without `dynamic_batching` batches are formed all the same, with no delay. The preferred sizes are
    checked against the completed max_batch_size: `check_preferred`.

    Raises:
        LoadError: a value is out of bounds, or two contradict each other; naming them.
    """
    batching = proto.dynamic_batching
    _check_priorities(batching)
    _limit("max_queue_delay_microseconds", batching.max_queue_delay_microseconds, _DELAY_US_MAX)
    preferred = tuple(sorted(set(batching.preferred_batch_size)))
    if preferred and preferred[0] < 1:
        raise LoadError(f"{_FIELD}.preferred_batch_size names {preferred[0]}, sizes start at 1")
    policy = BatchPolicy(
        delay_ns_max=batching.max_queue_delay_microseconds * 1000,
        preferred_rows=preferred,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        priority_default=batching.default_priority_level,
        queue=_queue("default_queue_policy", batching.default_queue_policy),
        queue_by_level={
            level: _queue(f"priority_queue_policy[{level}]", queue)
            for level, queue in sorted(batching.priority_queue_policy.items())
        },
        gathers=_gathers(proto),
        padded=PAD_BATCHES in proto.parameters
        and flag(f"config.pbtxt: parameter {PAD_BATCHES}", proto.parameters[PAD_BATCHES].string_value),
    )
    if policy.gathers and policy.waits_for_size:
        raise LoadError(
            f"config.pbtxt: parameter {BATCHING} is 'gather', but dynamic_batching has a delay or preferred sizes: "
            "leave out one of the two"
        )
    if policy.preserve_ordering:
        _check_ordering(policy)
    return policy


def _gathers(proto: pb.ModelConfig) -> bool | None:
    """Turnout's own parameter, for one model, of what --batching says for all."""
    if BATCHING not in proto.parameters:
        return None
    match mode := proto.parameters[BATCHING].string_value:
        case "gather":
            return True
        case "eager":
            return False
    raise LoadError(f"config.pbtxt: parameter {BATCHING} is '{mode[:64]}', it must be gather or eager")


def check_preferred(preferred: Sequence[int], rows_max: int) -> None:
    """Raises:
    LoadError: a preferred size is larger than any batch can be.
    """
    if preferred and max(preferred) > rows_max:
        raise LoadError(
            f"{_FIELD}.preferred_batch_size names {max(preferred)}, but max_batch_size is {rows_max}: "
            f"{'raise max_batch_size or name smaller sizes' if rows_max else 'set max_batch_size or leave it out'}"
        )


def _check_priorities(batching: pb.ModelDynamicBatching) -> None:
    levels, default = batching.priority_levels, batching.default_priority_level
    _limit("priority_levels", levels, _PRIORITY_LEVELS_MAX)
    if not levels:
        for field, value in (
            ("default_priority_level", default),
            ("priority_queue_policy", len(batching.priority_queue_policy)),
        ):
            if value:
                raise LoadError(f"{_FIELD}.{field} is set, but priority_levels is 0: set priority_levels")
    elif not 1 <= default <= levels:
        raise LoadError(f"{_FIELD}.default_priority_level is {default}, it must be from 1 to priority_levels, {levels}")
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            raise LoadError(f"{_FIELD}.priority_queue_policy names level {level}, levels are 1 to {levels}")


def _check_ordering(policy: BatchPolicy) -> None:
    """Both would let a request pass one that came before it."""
    if policy.priority_levels > 1:
        raise LoadError(
            f"{_FIELD}.preserve_ordering allows one priority level, priority_levels is {policy.priority_levels}"
        )
    if any(queue.delays for queue in (policy.queue, *policy.queue_by_level.values())):
        raise LoadError(f"{_FIELD}.preserve_ordering does not go with the timeout_action DELAY: use REJECT")


def _queue(field: str, queue: pb.ModelQueuePolicy) -> QueuePolicy:
    _limit(f"{field}.default_timeout_microseconds", queue.default_timeout_microseconds, _TIMEOUT_US_MAX)
    if queue.timeout_action not in pb.ModelQueuePolicy.TimeoutAction.values():
        raise LoadError(f"{_FIELD}.{field}.timeout_action is {queue.timeout_action}, known: REJECT, DELAY")
    return QueuePolicy(
        timeout_ns=queue.default_timeout_microseconds * 1000,
        delays=queue.timeout_action == pb.ModelQueuePolicy.DELAY,
        override=queue.allow_timeout_override,
        requests_max=queue.max_queue_size,
    )


def _limit(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise LoadError(f"{_FIELD}.{field} is {value}, the limit is {limit}")
