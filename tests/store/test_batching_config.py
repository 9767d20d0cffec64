"""dynamic_batching as a policy of the queue."""

from __future__ import annotations

import pytest

from turnout.core.batch_policy import BatchPolicy, QueuePolicy
from turnout.core.errors import LoadError
from turnout.store.model_config import ModelConfiguration

SECOND_NS = 10**9


def parse(inner: str, max_batch_size: int = 8) -> BatchPolicy:
    text = f"max_batch_size: {max_batch_size} dynamic_batching {{ {inner} }}"
    configuration = ModelConfiguration.parse("m", text)
    assert configuration.warnings == ()
    return configuration.policy()


LEVELS = "priority_levels: 3 default_priority_level: 2"
POLICIES = {
    "": BatchPolicy(),
    "max_queue_delay_microseconds: 100": BatchPolicy(delay_ns_max=100_000),
    "max_queue_delay_microseconds: 60000000": BatchPolicy(delay_ns_max=60 * SECOND_NS),
    "preferred_batch_size: [ 8, 2, 4, 4 ]": BatchPolicy(preferred_rows=(2, 4, 8)),
    "preserve_ordering: true": BatchPolicy(preserve_ordering=True),
    "preserve_ordering: true priority_levels: 1 default_priority_level: 1": (
        BatchPolicy(preserve_ordering=True, priority_levels=1, priority_default=1)
    ),
    LEVELS: BatchPolicy(priority_levels=3, priority_default=2),
    "default_queue_policy { }": BatchPolicy(),
    "default_queue_policy { timeout_action: DELAY }": BatchPolicy(queue=QueuePolicy(delays=True)),
    "default_queue_policy { default_timeout_microseconds: 5 allow_timeout_override: true max_queue_size: 7 }": (
        BatchPolicy(queue=QueuePolicy(timeout_ns=5000, override=True, requests_max=7))
    ),
    f"{LEVELS} priority_queue_policy {{ key: 1 value {{ max_queue_size: 1 }} }}": (
        BatchPolicy(priority_levels=3, priority_default=2, queue_by_level={1: QueuePolicy(requests_max=1)})
    ),
}


@pytest.mark.parametrize("inner", POLICIES)
def test_policies(inner: str) -> None:
    assert parse(inner) == POLICIES[inner]


def test_without_dynamic_batching_the_policy_is_the_default() -> None:
    assert ModelConfiguration.parse("m", "max_batch_size: 8").policy() == BatchPolicy()
    assert ModelConfiguration.parse("m", "").policy() == BatchPolicy()


def test_queue_policies_make_sense_without_batches_too() -> None:
    assert parse("default_queue_policy { max_queue_size: 2 }", 0).queue == QueuePolicy(requests_max=2)
    assert parse(LEVELS, 0).priority_levels == 3


def own(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }} max_batch_size: 8'


OWN = {
    own("batching", "gather"): BatchPolicy(gathers=True),
    own("batching", "eager"): BatchPolicy(gathers=False),
    own("pad_batches", "true"): BatchPolicy(padded=True),
    own("pad_batches", "0"): BatchPolicy(),
    own("batching", "eager") + " dynamic_batching { max_queue_delay_microseconds: 1 }": BatchPolicy(
        gathers=False, delay_ns_max=1000
    ),
}


@pytest.mark.parametrize("text", OWN)
def test_parameters_of_our_own(text: str) -> None:
    configuration = ModelConfiguration.parse("m", text)
    assert configuration.warnings == ()
    assert configuration.policy() == OWN[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (own("batching", "delay"), "parameter batching is 'delay', it must be gather or eager"),
        (own("batching", ""), "parameter batching is '', it must be gather or eager"),
        (own("pad_batches", "maybe"), "parameter pad_batches is 'maybe', it must be 0 or 1"),
        (own("batching", "gather") + " dynamic_batching { preferred_batch_size: [ 4 ] }", "leave out one of the two"),
        (own("batching", "gather") + " dynamic_batching { max_queue_delay_microseconds: 1 }", "leave out one of"),
    ],
)
def test_parameters_of_our_own_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        ModelConfiguration.parse("m", text)


REFUSED = {
    "max_queue_delay_microseconds: 60000001": "max_queue_delay_microseconds is 60000001, the limit is 60000000",
    "preferred_batch_size: [ 0 ]": "preferred_batch_size names 0, sizes start at 1",
    "preferred_batch_size: [ -4, 4 ]": "preferred_batch_size names -4",
    "preferred_batch_size: [ 4, 9 ]": "preferred_batch_size names 9, but max_batch_size is 8",
    "priority_levels: 1001 default_priority_level: 1": "priority_levels is 1001, the limit is 1000",
    "priority_levels: 3": "default_priority_level is 0, it must be from 1 to priority_levels, 3",
    "priority_levels: 3 default_priority_level: 4": "default_priority_level is 4, it must be from 1",
    "default_priority_level: 1": "default_priority_level is set, but priority_levels is 0",
    "priority_queue_policy { key: 1 value { } }": "priority_queue_policy is set, but priority_levels is 0",
    f"{LEVELS} priority_queue_policy {{ key: 0 value {{ }} }}": "priority_queue_policy names level 0, levels are 1 to",
    f"{LEVELS} priority_queue_policy {{ key: 4 value {{ }} }}": "priority_queue_policy names level 4",
    f"{LEVELS} preserve_ordering: true": "preserve_ordering allows one priority level, priority_levels is 3",
    "preserve_ordering: true default_queue_policy { timeout_action: DELAY }": "preserve_ordering does not go with",
    "preserve_ordering: true priority_levels: 1 default_priority_level: 1 "
    "priority_queue_policy { key: 1 value { timeout_action: DELAY } }": "timeout_action DELAY: use REJECT",
    "default_queue_policy { default_timeout_microseconds: 86400000001 }": (
        "default_queue_policy.default_timeout_microseconds is 86400000001, the limit is 86400000000"
    ),
    f"{LEVELS} priority_queue_policy {{ key: 2 value {{ default_timeout_microseconds: 86400000001 }} }}": (
        "priority_queue_policy[2].default_timeout_microseconds is"
    ),
    "default_queue_policy { timeout_action: 7 }": "default_queue_policy.timeout_action is 7, known: REJECT, DELAY",
}


@pytest.mark.parametrize("inner", REFUSED)
def test_refused_by_name(inner: str) -> None:
    with pytest.raises(LoadError) as refused:
        parse(inner)
    assert str(refused.value).startswith("config.pbtxt: dynamic_batching.")
    assert REFUSED[inner] in str(refused.value)
