"""What a file declares: shares, revisions, and the way from a model to a file and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout_client.desired import (
    DesiredModel,
    PinSpec,
    RevisionSpec,
    Sticky,
    exported,
    parse,
    revision,
    shares,
)
from turnout_client.shadows import METHODS, CompareSpec, ShadowSpec, comparator, rule_message
from turnout_client.written import BASIS_POINTS, SpecError, duration, duration_ns, percent
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


NUMBERS = st.none() | st.floats(0, 1e9)
COMPARATORS = st.builds(
    CompareSpec, TEXTS, st.sampled_from(METHODS), NUMBERS, NUMBERS, NUMBERS, st.none() | st.integers(1, 1000), NUMBERS
)
SHARES = st.integers(0, BASIS_POINTS)
COUNTS = st.integers(1, 2**31 - 1)
RULES = st.lists(
    st.builds(
        ShadowSpec,
        NAMES,
        SHARES,
        SHARES,
        st.just("") | TEXTS,
        st.lists(COMPARATORS, max_size=3).map(tuple),
        COUNTS,
        COUNTS,
        st.integers(1, 3600 * 10**9),
    ),
    max_size=3,
    unique_by=lambda rule: rule.slot,
).map(tuple)


@given(
    st.dictionaries(NAMES, st.tuples(st.integers(1, 10**12), st.sampled_from(["", "int8", "fp16"])), max_size=4),
    st.sampled_from([Sticky(), Sticky("x-user"), Sticky("", "user", "1"), Sticky("", "", "null")]),
    st.lists(st.builds(PinSpec, NAMES, TEXTS, NAMES), max_size=3).map(tuple),
    RULES,
)
def test_what_export_writes_is_read_back(
    held: dict[str, tuple[int, str]], sticky: Sticky, pins: tuple[PinSpec, ...], rules: tuple[ShadowSpec, ...]
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
    model.route.shadows.extend(rule_message(rule) for rule in rules)
    for digests in (False, True):
        digest = "ab" * 32 if digests else ""
        slots = {slot: RevisionSpec(*each, digest) for slot, each in held.items()}
        weights = dict.fromkeys(list(held)[:1], BASIS_POINTS) or None
        assert parse(exported([model], digests)) == [DesiredModel("digits", slots, weights, sticky, pins, rules)]


@pytest.mark.parametrize("method", METHODS)
def test_a_comparator(method: str) -> None:
    assert comparator(f"probabilities={method}") == CompareSpec("probabilities", method)
    said = f"a={method},atol=1e-05,rtol=0.1,threshold=0.5,k=3,near_tie=0.0"
    assert comparator(said) == CompareSpec("a", method, 1e-5, 0.1, 0.5, 3, 0.0)
    assert str(comparator(said)) == said


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("y", "is no OUTPUT=METHOD"),
        ("y=near", "methods are exact, allclose, argmax, topk, cosine, js"),
        ("=js", "is no OUTPUT=METHOD"),
        ("y=js,", "is no OUTPUT=METHOD"),
        ("y=js,tol=1", "'tol' in 'y=js,tol=1': known are atol"),
        ("y=js,k=1,k=2", "each once"),
        ("y=js,k=1.5", "'k=1.5' in 'y=js,k=1.5' has no number"),
        ("y=js,k=9999999999", "out of bounds"),
        ("y=js,atol=", "has no number"),
    ],
)
def test_what_is_no_comparator(said: str, words: str) -> None:
    with pytest.raises(SpecError, match="compare: ") as caught:
        comparator(said)
    assert words in str(caught.value)


@given(st.integers(0, 10**18))
def test_durations_are_read_back(ns: int) -> None:
    assert duration_ns(duration(ns)) == ns


def test_durations() -> None:
    said = {"90": 90 * 10**9, "250ms": 25 * 10**7, "1.5s": 15 * 10**8, "15m": 9 * 10**11, "2h": 72 * 10**11}
    assert {text: duration_ns(text) for text in said} == said
    for text in ("", "1w", "-1s", "s", True, 1.5):
        with pytest.raises(SpecError, match="is no duration"):
            duration_ns(text)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{}", "models: digits: shadows: green: it has no sample"),
        ("10 %", "models: digits: shadows: green: expected a mapping"),
        ("{sample: much}", "green: sample: 'much' is no share"),
        ("{sample: 1 %, compare: y=js}", "green: compare: expected a list"),
        ("{sample: 1 %, compare: [y]}", "green: compare[0]: 'y' is no OUTPUT=METHOD"),
        ("{sample: 1 %, queue_max: -1}", "green: queue_max: expected a number from 0"),
        ("{sample: 1 %, bytes_max: true}", "green: bytes_max: expected a number"),
        ("{sample: 1 %, deadline: soon}", "green: deadline: 'soon' is no duration"),
        ("{sample: 1 %, dead_line: 1s}", "green: unknown 'dead_line', known are bytes_max, compare"),
    ],
)
def test_a_shadow_rule_that_cannot_be_meant_names_its_place(rule: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(f"models: {{digits: {{shadows: {{green: {rule}}}}}}}")
    assert words in str(caught.value)


PARTS = ["slots", "weights", "sticky_key", "pins", "shadows"]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*PARTS, "blue", "salt", "sample", "compare"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_any_yaml_is_read_or_refused_by_name(raw: object) -> None:
    import yaml

    try:
        parse(yaml.safe_dump({"models": {"digits": raw}}))
    except SpecError as error:
        assert "digits" in str(error)
