"""A model's state as text: it survives the way there and back, and what is no such text is refused."""

from __future__ import annotations

import pytest

from support.shadows import shadow_rule
from turnout.core.commands import ClearShadow, Load, Loaded, Lost, SetShadow, SetWeights, Swap
from turnout.core.comparators import Comparator, Method
from turnout.core.control import step
from turnout.core.ids import Revision
from turnout.core.routing import Pin, StickyKey
from turnout.core.snapshot import FORM, dump, load
from turnout.core.traffic import Traffic

COMPARATORS = (
    Comparator("y", Method.ALLCLOSE, atol=1e-5, rtol=0.1),
    Comparator("z", Method.TOPK, k=5, threshold=0.5),
    Comparator("z", Method.ARGMAX, near_tie=0.01),
)
COMMANDS = [
    Load("blue", Revision("m", 1, "", "a")),
    Loaded("blue"),
    Swap("blue", 0),
    Load("green", Revision("m", 2, "int8", "b"), forced="it has no report"),
    Loaded("green"),
    Load("red", Revision("m", 3, "", "c"), allow_signature_change=True),
    Swap("green", 10**12),
    SetWeights({"green": 9_000, "blue": 1_000}, StickyKey("x-user", "", "salt"), (Pin("a", "b\u00fc", "blue"),)),
    SetShadow(shadow_rule("blue", 100, salt="s\u00fc", comparators=COMPARATORS, noise_bp=3)),
    Lost("blue", 'it\'s "gone"'),
]


@pytest.mark.parametrize("steps", range(len(COMMANDS) + 1))
def test_every_state_survives_as_text(steps: int) -> None:
    state = Traffic("m")
    for command in COMMANDS[:steps]:
        state = step(state, command, 10**18).state
    assert load(dump(state)) == state
    assert dump(load(dump(state))) == dump(state)


def test_what_was_written_before_a_load_could_be_allowed_another_signature_is_read() -> None:
    state = step(Traffic("m"), COMMANDS[0], 10**18).state
    assert "allow_signature_change" not in dump(state)
    assert not load(dump(state)).slots["blue"].allow_signature_change


def test_a_route_without_shadow_rules_reads_as_before_there_were_any() -> None:
    state = Traffic("m")
    for command in COMMANDS[:9]:
        state = step(state, command, 10**18).state
    assert '"shadows":[{"slot":"blue"' in dump(state)
    cleared = step(state, ClearShadow("blue"), 10**18).state
    assert "shadow" not in dump(cleared)
    assert load(dump(cleared)) == cleared


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (dump(Traffic("m")).replace(f'"form":{FORM}', f'"form":{FORM + 1}'), f"form {FORM + 1}, this server reads"),
        ("{}", "no snapshot"),
        ("[]", "no snapshot"),
        ('{"form":1,"model":"m"}', "no snapshot"),
        ("{", "Expecting"),
    ],
)
def test_what_is_no_state_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(text)
