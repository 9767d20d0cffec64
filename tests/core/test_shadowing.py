"""Shadow rules: what they may say, which requests they choose, and what becomes of them as slots and traffic change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.shadows import shadow_rule
from turnout.core.commands import (
    Assign,
    ClearShadow,
    Command,
    Empty,
    EndBake,
    Load,
    Loaded,
    Lost,
    Rollback,
    SetShadow,
    SetWeights,
    Step,
    Swap,
    Unload,
    Withdraw,
)
from turnout.core.comparators import Comparator, Method
from turnout.core.control import etag_of, step
from turnout.core.errors import ControlError, Refusal
from turnout.core.filling import free_slot
from turnout.core.ids import Revision
from turnout.core.shadow_rules import (
    SHADOWS_MAX,
    ShadowLimits,
    ShadowRule,
    check_outputs,
    check_rule,
)
from turnout.core.slots import SlotState
from turnout.core.tensors import Signature, TensorSpec
from turnout.core.traffic import Traffic
from turnout_wire.tensors import DataType

NOW = 10**12
BAKE = 600 * 10**9
LIMITS = ShadowLimits(queue_max=100, bytes_max=1000, deadline_ns=2 * 10**9)


def run(state: Traffic, *commands: Command, now_ns: int = NOW) -> Step:
    """The last command's step."""
    last = Step(state)
    for command in commands:
        last = step(last.state, command, now_ns)
    return last


def load(slot: str, version: int) -> tuple[Command, ...]:
    return (Load(slot, Revision("m", version, "", f"digest-{version}")), Loaded(slot))


def replaced(slot: str, version: int) -> Load:
    return Load(slot, Revision("m", version, "", f"digest-{version}"), replace=True)


def rules(state: Traffic) -> list[str]:
    return [rule.slot for rule in state.route.shadows] if state.route else []


def lines(done: Step) -> list[tuple[str, str, str, str]]:
    return [(c.object, c.from_state, c.to_state, c.cause) for c in done.changes]


# version 1 in blue with all traffic, version 2 in green, which gets copies
TWO = run(Traffic("m"), *load("blue", 1), Swap("blue", 0), *load("green", 2)).state
SHADOWED = run(TWO, SetShadow(shadow_rule("green"))).state


def refused(state: Traffic, command: Command) -> ControlError:
    with pytest.raises(ControlError) as caught:
        step(state, command, NOW)
    return caught.value


def test_a_rule_is_one_line_of_the_journal_and_one_generation() -> None:
    assert TWO.route is not None
    done = run(TWO, SetShadow(shadow_rule("green", 1_000, noise_bp=200)))
    assert done.effects == (Assign(done.state.route),)  # type: ignore[arg-type]
    assert done.state.route is not None
    assert done.state.route.generation == TWO.route.generation + 1
    assert done.state.route.intervals == TWO.route.intervals
    assert lines(done) == [("shadows/green", "", "sample=1000 noise=200 m/2", "shadow")]
    assert run(done.state, SetShadow(shadow_rule("green", 1_000, noise_bp=200))) == Step(done.state)
    assert etag_of(TWO, SetShadow(shadow_rule("green"))) == str(TWO.route.generation)


def test_a_rule_replaces_the_one_that_its_slot_has() -> None:
    other = replace(shadow_rule("green"), comparators=(Comparator("y", Method.EXACT),))
    done = run(SHADOWED, SetShadow(other))
    assert done.state.route is not None
    assert done.state.route.shadows == (other,)
    assert [c.object for c in done.changes] == ["shadows/green"], "also where its line reads as before"


def test_clearing_takes_the_rule_away_and_nothing_else() -> None:
    cleared = run(SHADOWED, ClearShadow("green"))
    assert rules(cleared.state) == []
    assert lines(cleared) == [("shadows/green", "sample=10000 noise=0 m/2", "", "shadow")]
    assert cleared.state.slots["green"].state is SlotState.READY
    assert run(cleared.state, ClearShadow("green")) == Step(cleared.state)
    red = run(SHADOWED, *load("red", 3), SetShadow(shadow_rule("red"))).state
    assert rules(run(red, ClearShadow("green")).state) == ["red"]
    fresh = run(Traffic("m"), Load("blue", Revision("m", 1, "", "d"))).state
    assert run(fresh, ClearShadow("blue")) == Step(fresh)


@pytest.mark.parametrize(
    ("command", "refusal", "field", "words"),
    [
        (SetShadow(shadow_rule("pink")), Refusal.SLOT_NOT_FOUND, "", "has no slot 'pink'"),
        (SetShadow(shadow_rule("blue")), Refusal.SLOT_ROUTED, "rule.slot", "'blue' is the stable one"),
        (ClearShadow("pink"), Refusal.SLOT_NOT_FOUND, "", "has no slot 'pink'"),
        (Unload("green"), Refusal.SLOT_ROUTED, "", "'green' of model 'm' has a shadow rule: clear it first"),
    ],
)
def test_refusals(command: Command, refusal: Refusal, field: str, words: str) -> None:
    error = refused(SHADOWED, command)
    assert (error.refusal, error.field) == (refusal, field)
    assert words in error.message


@pytest.mark.parametrize("state", [SlotState.LOADING, SlotState.FAILED, SlotState.DRAINING])
def test_a_slot_that_is_not_ready_gets_no_rule(state: SlotState) -> None:
    slot = replace(TWO.slots["green"], state=state, message="why")
    error = refused(replace(TWO, slots={**TWO.slots, "green": slot}), SetShadow(shadow_rule("green")))
    assert error.refusal is Refusal.SLOT_NOT_READY
    assert f"is {state.value}: why" in error.message


def test_the_rules_of_a_model_are_bounded() -> None:
    state = TWO
    for number in range(SHADOWS_MAX):
        state = run(state, *load(f"s{number}", 10 + number), SetShadow(shadow_rule(f"s{number}"))).state
    error = refused(state, SetShadow(shadow_rule("green")))
    assert (error.refusal, error.field) == (Refusal.INVALID_SPEC, "rule")
    assert "has 8 shadow rules, which is the limit" in error.message
    assert run(state, SetShadow(shadow_rule("s3", 1))).changes, "one that is there may change"


def rule(**more: object) -> ShadowRule:
    return shadow_rule("green", **more)  # type: ignore[arg-type]


def comparing(method: Method, **more: float) -> ShadowRule:
    return rule(comparators=(Comparator("ok", Method.EXACT), Comparator("y", method, **more)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "field", "words"),
    [
        (rule(sample_bp=0), "sample_bp", "is 0, it must be from 1 to 10000"),
        (rule(sample_bp=10_001), "sample_bp", "is 10001"),
        (rule(noise_bp=-1), "noise_bp", "is -1, it must be from 0 to 10000"),
        (rule(noise_bp=10_001), "noise_bp", "is 10001"),
        (rule(salt="s" * 65), "salt", "has 65 characters, the limit is 64"),
        (rule(queue_max=-1), "queue_max", "is -1, it must be at least 1"),
        (rule(bytes_max=0), "bytes_max", "is 0, it must be at least 1"),
        (rule(deadline_ns=0), "deadline", "is 0, it must be at least 1"),
        (rule(comparators=(Comparator("y", Method.JS),) * 65), "comparators", "65 comparators, the limit is 64"),
        (rule(comparators=(Comparator("y", Method.JS),) * 2), "comparators[1]", "'y' is compared by JS twice"),
        (rule(comparators=(Comparator("", Method.JS),)), "comparators[0].output", "this one has 0"),
        (rule(comparators=(Comparator("y" * 513, Method.JS),)), "comparators[0].output", "this one has 513"),
        (comparing(Method.EXACT, atol=0.1), "comparators[1].atol", "but EXACT takes nothing"),
        (comparing(Method.ARGMAX, k=3), "comparators[1].k", "but ARGMAX takes near_tie"),
        (comparing(Method.ALLCLOSE, rtol=-0.1), "comparators[1].rtol", "is -0.1, it must be finite and at least 0"),
        (comparing(Method.ALLCLOSE, atol=math.inf), "comparators[1].atol", "is inf"),
        (comparing(Method.ARGMAX, near_tie=math.nan), "comparators[1].near_tie", "is nan"),
        (comparing(Method.TOPK, k=0), "comparators[1].k", "of TOPK is 0, it must be from 1 to 1000"),
        (comparing(Method.TOPK, k=1001), "comparators[1].k", "is 1001"),
        (comparing(Method.TOPK, threshold=1.5), "comparators[1].threshold", "it must be from 0 to 1"),
        (comparing(Method.COSINE, threshold=2.5), "comparators[1].threshold", "it must be from 0 to 2"),
        (comparing(Method.JS, threshold=1.5), "comparators[1].threshold", "it must be from 0 to 1"),
    ],
)
def test_a_rule_out_of_its_bounds_names_the_field(bad: ShadowRule, field: str, words: str) -> None:
    error = refused(TWO, SetShadow(bad))
    assert (error.refusal, error.field) == (Refusal.INVALID_SPEC, f"rule.{field}")
    assert words in error.message


def test_rules_at_their_bounds_are_taken() -> None:
    methods = (
        Comparator("y", Method.EXACT),
        Comparator("y", Method.ALLCLOSE, atol=0, rtol=1e9),
        Comparator("y", Method.ARGMAX, near_tie=0.0),
        Comparator("y", Method.TOPK, k=1000, threshold=1.0),
        Comparator("y", Method.COSINE, threshold=2.0),
        Comparator("x" * 512, Method.JS, threshold=0),
    )
    check_rule(rule(sample_bp=1, noise_bp=10_000, salt="s" * 64, queue_max=1, comparators=methods))


SIGNATURE = Signature(
    (),
    (
        TensorSpec("ok", DataType.FP32, (-1, 10)),
        TensorSpec("y", DataType.FP32, (-1,)),
        TensorSpec("s", DataType.BYTES, (-1,)),
    ),
)


@pytest.mark.parametrize(
    ("comparator", "field", "words"),
    [
        (Comparator("z", Method.JS), "output", "no output 'z', the outputs are 'ok', 'y', 's'"),
        (Comparator("s", Method.ALLCLOSE), "method", "output 's' is BYTES, ALLCLOSE is for numbers"),
    ],
)
def test_comparators_are_of_outputs_that_the_model_has(comparator: Comparator, field: str, words: str) -> None:
    good = (Comparator("s", Method.EXACT), Comparator("y", Method.ALLCLOSE))
    check_outputs(rule(comparators=good), SIGNATURE)
    with pytest.raises(ControlError) as caught:
        check_outputs(rule(comparators=(*good, comparator)), SIGNATURE)
    assert (caught.value.refusal, caught.value.field) == (Refusal.INVALID_SPEC, f"rule.comparators[2].{field}")
    assert words in caught.value.message


def test_limits_of_the_server_fill_what_is_not_said_and_refuse_more() -> None:
    filled = LIMITS.bounded(rule(queue_max=0, bytes_max=0, deadline_ns=0))
    assert (filled.queue_max, filled.bytes_max, filled.deadline_ns) == (100, 1000, 2 * 10**9)
    said = rule(queue_max=100, bytes_max=1, deadline_ns=2 * 10**9)
    assert LIMITS.bounded(said) == said
    for field, more, words in (
        ("queue_max", {"queue_max": 101}, "queue_max is 101, the server's limit is 100 (--shadow-queue-max)"),
        ("bytes_max", {"bytes_max": 1001}, "--shadow-bytes-max"),
        ("deadline", {"deadline_ns": 2 * 10**9 + 1}, "--shadow-deadline-s"),
    ):
        with pytest.raises(ControlError) as caught:
            LIMITS.bounded(replace(said, **more))
        assert caught.value.field == f"rule.{field}"
        assert words in caught.value.message


def test_a_canary_may_be_a_shadow_of_the_stable_slot() -> None:
    canary = run(TWO, SetWeights({"blue": 9_000, "green": 1_000}), SetShadow(shadow_rule("green"))).state
    assert canary.route is not None
    assert [target.slot for _, target in canary.route.copies("id", "blue")] == ["green"]
    assert canary.route.copies("id", "green") == [], "it does not shadow its own answers"


def test_copies_go_to_ready_slots_only() -> None:
    both = run(SHADOWED, *load("red", 3), SetShadow(shadow_rule("red", salt="s"))).state
    assert both.route is not None
    assert [(rule.slot, str(target.revision)) for rule, target in both.route.copies("id", "blue")] == [
        ("green", "m/2"),
        ("red", "m/3"),
    ]
    idle = run(both, Lost("green", "gone")).state
    assert idle.route is not None
    assert [target.slot for _, target in idle.route.copies("id", "blue")] == ["red"]
    assert rules(idle) == ["green", "red"], "the rule stays"


def test_a_replace_keeps_the_rule_for_the_new_revision_and_the_journal_says_so() -> None:
    loading = run(SHADOWED, replaced("green", 3))
    assert lines(loading)[1] == ("shadows/green", "sample=10000 noise=0 m/2", "sample=10000 noise=0 idle", "load")
    assert loading.state.route is not None
    assert loading.state.route.copies("id", "blue") == []
    done = run(loading.state, Loaded("green"))
    assert lines(done)[1] == ("shadows/green", "sample=10000 noise=0 idle", "sample=10000 noise=0 m/3", "load")
    assert done.state.route is not None
    assert [str(target.revision) for _, target in done.state.route.copies("id", "blue")] == ["m/3"]
    failed = run(loading.state, Lost("green", "broken"))
    assert rules(failed.state) == ["green"]
    assert [c.object for c in failed.changes] == ["slots/green"], "it was idle before"


@pytest.mark.parametrize(
    "commands",
    [
        (Swap("green", BAKE),),
        (Rollback("green"),),
        (SetWeights({"blue": 4_000, "green": 6_000}),),
    ],
    ids=["swap", "rollback", "weights"],
)
def test_a_slot_that_becomes_stable_loses_its_rule_in_the_same_step(commands: tuple[Command, ...]) -> None:
    done = run(SHADOWED, *commands)
    assert rules(done.state) == []
    assert lines(done)[-1] == ("shadows/green", "sample=10000 noise=0 m/2", "", lines(done)[0][3])
    assert [c.object for c in done.changes] == ["route", "shadows/green"]
    assert done.effects[0] == Assign(done.state.route)  # type: ignore[arg-type]


def test_a_shadow_that_inherits_the_traffic_of_a_lost_slot_loses_its_rule() -> None:
    swapped = run(TWO, Swap("green", BAKE), SetShadow(shadow_rule("blue"))).state
    assert swapped.held == "blue"
    lost = run(swapped, Lost("green", "gone")).state
    assert lost.route is not None
    assert (dict(lost.route.weights), rules(lost)) == ({"blue": 10_000}, [])


@pytest.mark.parametrize("supersede", [False, True], ids=["bake that ends", "bake that is superseded"])
def test_the_server_itself_unloads_no_shadow(supersede: bool) -> None:
    state = run(TWO, Swap("green", BAKE), SetShadow(shadow_rule("blue"))).state
    done = run(state, *load("red", 3), Swap("red", BAKE)) if supersede else run(state, EndBake(), now_ns=NOW + BAKE + 1)
    assert Empty("blue") not in done.effects
    assert done.state.slots["blue"].state is SlotState.READY
    assert run(done.state, ClearShadow("blue"), Unload("blue")).effects[-1] == Empty("blue")


def test_what_takes_over_goes_into_no_slot_with_a_rule() -> None:
    failed = run(SHADOWED, Lost("green", "gone")).state
    assert free_slot(failed, 3) == "v3"


def test_withdrawing_a_model_takes_its_rules_along() -> None:
    assert rules(run(SHADOWED, Withdraw()).state) == []
    alone = run(Traffic("m"), *load("blue", 1), SetShadow(shadow_rule("blue"))).state
    assert rules(alone) == ["blue"], "nothing is routed yet"
    withdrawn = run(alone, Withdraw())
    assert (rules(withdrawn.state), withdrawn.changes[-1].object) == ([], "shadows/blue")


@given(st.integers(1, 10_000), st.text(max_size=8))
def test_the_sample_is_the_share_that_is_asked_for(sample_bp: int, salt: str) -> None:
    asked = shadow_rule("green", sample_bp, salt=salt, noise_bp=sample_bp)
    count = 2_000
    taken = [asked.takes(f"{salt}-{number}") for number in range(count)]
    noise = [asked.repeats(f"{salt}-{number}") for number in range(count)]
    share = sample_bp / 10_000
    bound = 6 * math.sqrt(count * share * (1 - share)) + 1  # one in 10^9
    for chosen in (taken, noise):
        assert abs(sum(chosen) - count * share) <= bound
    both = sum(map(all, zip(taken, noise, strict=True)))
    assert abs(both - count * share**2) <= 6 * math.sqrt(count * share**2 * (1 - share**2)) + 1, "one tells not of two"


@given(st.integers(1, 9_999), st.text(max_size=40))
def test_a_larger_sample_takes_all_of_a_smaller_one(sample_bp: int, inference_id: str) -> None:
    small, large = shadow_rule("green", sample_bp), shadow_rule("red", sample_bp + 1)
    assert large.takes(inference_id) or not small.takes(inference_id)
    assert shadow_rule("green", 10_000).takes(inference_id)
    assert not shadow_rule("green").repeats(inference_id)


def test_a_sample_is_the_same_in_every_process_and_another_with_another_salt() -> None:
    chosen = [i for i in range(40) if shadow_rule("green", 2_000).takes(f"id-{i}")]
    assert chosen == [0, 1, 5, 7, 9, 12, 13, 22, 23, 30]
    assert chosen != [i for i in range(40) if shadow_rule("green", 2_000, salt="s").takes(f"id-{i}")]
