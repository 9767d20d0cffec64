"""What the load test holds answers against, the rules of its phases, its account. Each fault is put in and found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from turnout_locust.account import Account, total
from turnout_locust.expected import Answer, Outputs, Sample, read_samples, request_of, revision_of
from turnout_locust.oversized import oversized
from turnout_locust.references import write_references
from turnout_locust.rules import Rule, Rules
from turnout_locust.scenarios import SCENARIOS, Action, LoadTestError, ramp, scenario_named, spike
from turnout_locust.served import chosen_versions
from turnout_wire.tensors import Array, DataType, to_bytes
from zoo.samples import DIGITS

X = np.ones((1, 2), np.float32)
LABELS = np.array([[3, 4]])
SAMPLE = Sample(
    7,
    request_of("m", {"x": X}),
    {f"m/{version}": Outputs({"y": X * version, "label": LABELS * version}) for version in (1, 2)},
)


def answer(version: int = 2, **outputs: Array) -> Answer:
    """What version `version` says, with these outputs in place of its own."""
    message = Answer(model_name="m", model_version=str(version))
    message.parameters["turnout_revision"].string_param = f"m/{version}"
    for name, array in {"y": X * version, "label": LABELS * version, **outputs}.items():
        datatype = DataType.from_numpy(array.dtype)
        message.outputs.add(name=name, datatype=datatype.value, shape=array.shape)
        message.raw_output_contents.append(to_bytes(array, datatype))
    return message


def without_label() -> Answer:
    message = answer()
    del message.outputs[1], message.raw_output_contents[1]
    return message


def with_half_of_y() -> Answer:
    message = answer()
    message.raw_output_contents[0] = message.raw_output_contents[0][:4]
    return message


@pytest.mark.parametrize("version", [1, 2])
def test_a_right_answer_has_no_fault(version: int) -> None:
    assert SAMPLE.fault(answer(version)) == ""
    assert SAMPLE.fault(answer(version, y=X * version * (1 + 5e-4))) == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (answer(y=X), "wrong answer: revision m/2, sample 7, output 'y' differs by 1, 1e-05 + 0.001 of the expected"),
        (answer(label=LABELS), "wrong answer: revision m/2, sample 7, output 'label' has 2 other elements of 2"),
        (answer(y=np.full((1, 2), np.nan, np.float32)), "output 'y' differs by nan"),
        (answer(y=np.full((1, 2), np.inf, np.float32)), "output 'y' differs by inf"),
        (answer(y=np.ones((1, 3), np.float32)), "output 'y' is FP32 [1, 3], and not FP32 [1, 2]"),
        (answer(label=(LABELS * 2).astype(np.uint64)), "output 'label' is UINT64 [1, 2], and not INT64 [1, 2]"),
        (with_half_of_y(), "output 'y' has another size"),
        (without_label(), "output 'label' is missing"),
        (answer(3), "revision m/3 answered, and expected outputs are known of m/1, m/2 only"),
    ],
)
def test_a_wrong_answer_says_what_is_wrong(wrong: Answer, said: str) -> None:
    assert said in SAMPLE.fault(wrong)


def test_an_infinity_is_right_where_it_is_expected_and_nothing_else_is() -> None:
    sample = Sample(0, request_of("m", {"x": X}), {"m/2": Outputs({"y": np.array([[np.inf, -np.inf, np.nan]])})})
    right = [np.inf, -np.inf, np.nan]
    wrong = [[1.0, *right[1:]], [-np.inf, *right[1:]], [*right[:2], np.inf]]
    assert sample.fault(answer(y=np.array([right]))) == ""
    assert all("output 'y' differs by" in sample.fault(answer(y=np.array([each]))) for each in wrong)


def test_a_shape_is_compared_but_for_what_a_configuration_may_change() -> None:
    y = np.arange(6, dtype=np.float32)
    sample = Sample(0, request_of("m", {"x": X}), {"m/2": Outputs({"y": y.reshape(2, 3)})})
    assert sample.fault(answer(y=y.reshape(1, 2, 3, 1))) == ""
    assert sample.fault(answer(y=y.reshape(3, 2))).endswith("output 'y' is FP32 [3, 2], and not FP32 [2, 3]")


def test_a_revision_must_be_that_of_the_version() -> None:
    message = answer()
    message.model_version = "1"
    assert revision_of(message) == ""
    assert "(none)" in SAMPLE.fault(message)
    del message.parameters["turnout_revision"]
    assert revision_of(message) == "m/1", "a server that does not name revisions"


def test_strings_are_compared() -> None:
    sample = Sample(0, request_of("m", {"x": X}), {"m/2": Outputs({"s": np.array(["é", "b"])})})
    message = answer(s=np.array(["é", "b"]))
    assert sample.fault(message) == ""
    assert sample.fault(answer(s=np.array(["é", "c"]))).endswith("output 's' has other strings")


def test_golden_files_become_samples() -> None:
    samples = read_samples(DIGITS, "digits", batched=True, versions=["1", "2"])
    assert len(samples) == 64
    assert list(samples[3].by_revision) == ["digits/1", "digits/2"]
    assert list(samples[3].request.inputs[0].shape) == [1, 64]
    (whole,) = read_samples(DIGITS, "digits", batched=False)
    assert list(whole.request.inputs[0].shape) == [64, 64]
    with pytest.raises(LoadTestError, match=r"has no golden\.npz of version 9"):
        read_samples(DIGITS, "digits", batched=True, versions=["9"])


def test_own_samples_get_expected_outputs(tmp_path: Path) -> None:
    with np.load(DIGITS / "1" / "golden.npz") as archive:
        np.savez(tmp_path / "own.npz", **{"input.image": archive["input.image"][:5]})
    made = write_references(tmp_path / "own.npz", DIGITS, [1, 2], tmp_path / "made")
    own, golden = (read_samples(folder, "digits", True, ["1", "2"]) for folder in (made, DIGITS))
    assert len(own) == 5
    for revision in ("digits/1", "digits/2"):
        for name, array in own[4].by_revision[revision].arrays.items():
            np.testing.assert_allclose(array, golden[4].by_revision[revision].arrays[name], rtol=1e-4)
    np.savez(tmp_path / "bad.npz", image=X)
    with pytest.raises(LoadTestError, match=r"needs an array input\.NAME"):
        write_references(tmp_path / "bad.npz", DIGITS, [1], tmp_path / "made")
    np.savez(tmp_path / "bad.npz", **{"input.image": X})
    with pytest.raises(LoadTestError, match=r"version 1 of 'digits' does not run 'bad.npz'"):
        write_references(tmp_path / "bad.npz", DIGITS, [1], tmp_path / "made")


def test_rules_allow_what_was_routed_while_a_request_was_under_way() -> None:
    rules = Rules()
    before, during, after = (
        Rule(1, "before", ("m/1",), sticky=True),
        Rule(2, "during swap", ("m/1", "m/2")),
        Rule(3, "after swap", ("m/2",), sticky=True),
    )
    assert rules.fault(rules.now, "", "m/9") == "", "nothing is known yet"
    rules.hear(before)
    assert rules.fault(before, "", "m/1") == ""
    assert rules.fault(before, "", "m/2") == "revision m/2 answered in 'before', where only m/1 may"
    rules.hear(during)
    rules.hear(after)
    assert rules.fault(before, "", "m/2") == "", "it was under way for long"
    assert rules.fault(after, "", "m/1") == "revision m/1 answered in 'after swap', where only m/2 may"
    assert Rule.of_message(before.as_message()) == before


def test_a_sticky_key_stays_where_nothing_moves() -> None:
    rules = Rules()
    canary = Rule(1, "after weights", ("m/1", "m/2"), sticky=True)
    rules.hear(canary)
    assert [rules.fault(canary, "anna", "m/1"), rules.fault(canary, "ben", "m/2")] == ["", ""]
    assert "moved from m/1 to m/2" in rules.fault(canary, "anna", "m/2")
    more = Rule(2, "after more weights", ("m/1", "m/2"), sticky=True)
    rules.hear(more)
    assert rules.fault(more, "anna", "m/2") == "", "a new split may move it"
    assert "moved from m/2 to m/1" in rules.fault(more, "anna", "m/1")
    rules.forget()
    rules.hear(canary)
    assert rules.fault(canary, "ben", "m/1") == "", "a new run knows nothing of the last one"


def test_accounts_of_processes_add_up() -> None:
    one, other = Account(), Account()
    for account in (one, other):
        for _ in range(4):
            account.begin()
        account.answered(1, "m/1", 3.14159, wrong=False)
        account.answered(1, "m/1", 250.0, wrong=True)
        account.refused(2, "too many rows")
    other.failed(2, "lost")
    both = total([one.as_message(), other.as_message()])
    assert (both.begun, both.settled, both.under_way) == (8, 7, 1)
    assert both.phases[1].answers == {"m/1": 2}
    assert both.phases[1].failures == {"wrong": 2}
    assert both.phases[1].percentile_ms(50) == 3.1
    assert both.phases[1].percentile_ms(99) == 250.0
    assert both.phases[2].failures == {"lost": 1}
    assert both.phases[2].refused == {"too many rows": 2}
    assert both.phases[2].percentile_ms(50) is None


def test_what_is_oversized() -> None:
    rows, message = oversized(SAMPLE, 32, 1000)
    assert list(rows.request.inputs[0].shape) == [33, 2]
    assert len(rows.request.raw_input_contents[0]) == 33 * X.nbytes
    assert message.request.ByteSize() > 1000
    assert oversized(SAMPLE, 0, 0) == []


def test_scenarios_are_in_order_and_listed() -> None:
    with pytest.raises(LoadTestError, match="no scenario is called 'swop'") as refused:
        scenario_named("swop")
    for name, scenario in SCENARIOS.items():
        assert scenario_named(name) is scenario
        assert f"  {name} " in str(refused.value)
        assert [step.at for step in scenario.steps] == sorted(step.at for step in scenario.steps)
        assert not scenario.moves or scenario.steps[0].action is Action.LOAD
        assert all(0 < scenario.users(at / 100) <= 1 for at in range(101))
    assert [ramp(at) for at in (0, 0.5, 1)] == [0.1, 0.6, 1]
    assert [spike(at) for at in (0, 0.5, 1)] == [0.2, 1, 0.2]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [((None, None, True), (1, 2)), ((None, None, False), (1, None)), ((2, None, True), (2, 3)), ((3, 1, True), (3, 1))],
)
def test_versions_are_chosen(asked: tuple[int | None, int | None, bool], chosen: tuple[int, int | None]) -> None:
    assert chosen_versions(DIGITS, *asked) == chosen


def test_gevent_stays_out_of_this_process() -> None:
    """It would patch the interpreter under every test that follows."""
    assert "gevent" not in sys.modules
