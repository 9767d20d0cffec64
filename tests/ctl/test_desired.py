"""What a file declares: shares, revisions, and the way from a model to a file and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout_client.desired import (
    BASIS_POINTS,
    DesiredModel,
    PinSpec,
    RevisionSpec,
    SpecError,
    Sticky,
    exported,
    parse,
    percent,
    revision,
    shares,
)
from turnout_wire.gen import slots_pb2 as pb

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True)
TEXTS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("C",)), min_size=1, max_size=9
)


@given(st.dictionaries(NAMES, st.integers(1, 100), min_size=1, max_size=5))
def test_shares_written_as_percent_or_basis_points_are_read_back(parts: dict[str, int]) -> None:
    unit = BASIS_POINTS // sum(parts.values())
    weights = {slot: part * unit for slot, part in parts.items()}
    first = next(iter(weights))
    weights[first] += BASIS_POINTS - sum(weights.values())
    assert shares({slot: percent(weight) for slot, weight in weights.items()}) == weights
    assert shares({slot: f"{weight}bp" for slot, weight in weights.items()}) == weights
    assert shares({slot: "rest" if slot == first else weight for slot, weight in weights.items()}) == weights


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "0x10", "digits/", "digits/2@", "2@a@b", None, True, 2.0])
def test_what_is_no_revision(text: object) -> None:
    with pytest.raises(SpecError):
        revision(text, "digits")


@pytest.mark.parametrize("text", ["2", 2, "digits/2"])
def test_a_revision(text: object) -> None:
    assert revision(text, "digits") == RevisionSpec(2) and revision(f"{text}@int8", "digits") == RevisionSpec(2, "int8")


@given(
    st.dictionaries(NAMES, st.tuples(st.integers(1, 10**12), st.sampled_from(["", "int8", "fp16"])), max_size=4),
    st.sampled_from([Sticky(), Sticky("x-user"), Sticky("", "user", "1"), Sticky("", "", "null")]),
    st.lists(st.builds(PinSpec, NAMES, TEXTS, NAMES), max_size=3).map(tuple),
)
def test_what_export_writes_is_read_back(
    held: dict[str, tuple[int, str]], sticky: Sticky, pins: tuple[PinSpec, ...]
) -> None:
    model = pb.Model(name="digits")
    model.route.generation = 1
    for slot, (version, variant) in held.items():
        found = model.slots.add(name=slot, state=pb.SLOT_STATE_READY, digest="ab" * 32)
        found.revision.CopyFrom(pb.Revision(model="digits", version=version, variant=variant))
    for slot in list(held)[:1]:
        model.route.weights.add(slot=slot, weight_bp=BASIS_POINTS)
    model.route.sticky_key.salt = sticky.salt
    if sticky.metadata_key:
        model.route.sticky_key.metadata_key = sticky.metadata_key
    elif sticky.request_parameter:
        model.route.sticky_key.request_parameter = sticky.request_parameter
    for pin in pins:
        model.route.pins.add(metadata_key=pin.metadata_key, value=pin.value, slot=pin.slot)
    for digests in (False, True):
        digest = "ab" * 32 if digests else ""
        slots = {slot: RevisionSpec(*each, digest) for slot, each in held.items()}
        weights = dict.fromkeys(list(held)[:1], BASIS_POINTS) or None
        assert parse(exported([model], digests)) == [DesiredModel("digits", slots, weights, sticky, pins)]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["slots", "weights", "sticky_key", "pins", "blue", "salt"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_yaml_is_read_or_refused_by_name(raw: object) -> None:
    import yaml

    try:
        parse(yaml.safe_dump({"models": {"digits": raw}}))
    except SpecError as error:
        assert "digits" in str(error)
