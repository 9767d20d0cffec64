"""The plan of an apply: a table of cases, and properties against the server's own decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fake_admin import FakeAdmin, revision
from turnout.core import commands
from turnout.core.errors import ControlError
from turnout.core.routing import Pin, StickyKey
from turnout.core.shadow_rules import ShadowLimits
from turnout.core.traffic import Traffic
from turnout.transport.shadow_codec import read_rule
from turnout_client.desired import DesiredModel, PinSpec, RevisionSpec, Sticky, pins_of, sticky_of, weights_of
from turnout_client.plan import ClearShadow, Load, Options, Plan, Route, SetShadow, Unload, Wait, plan
from turnout_client.shadows import CompareSpec, ShadowSpec, rule_message, shadows_of
from turnout_wire.gen import slots_pb2 as pb

V1, V2, V3 = (RevisionSpec(version) for version in (1, 2, 3))
EVERYTHING = Options(prune=True, accept_outage=True, end_bake=True)


def model(weights: dict[str, int], **slots: tuple[pb.SlotState, int]) -> pb.Model:
    found = pb.Model(name="digits")
    for name, (state, version) in slots.items():
        slot = found.slots.add(name=name, state=state, etag=f"{name}-etag", digest=f"{version:064x}")
        if version:
            slot.revision.CopyFrom(pb.Revision(model="digits", version=version))
    for name, weight in weights.items():
        found.route.weights.add(slot=name, weight_bp=weight)
    return found


READY, EMPTY, LOADING, FAILED, DRAINING = (
    pb.SLOT_STATE_READY, pb.SLOT_STATE_EMPTY, pb.SLOT_STATE_LOADING, pb.SLOT_STATE_FAILED, pb.SLOT_STATE_DRAINING,
)  # fmt: skip
BLUE = {"blue": 10000}
WHOLE = {"blue": V1}


@pytest.mark.parametrize(
    ("now", "slots", "weights", "steps"),
    [
        (model(BLUE, blue=(READY, 1)), WHOLE, BLUE, ()),
        (model(BLUE, blue=(READY, 1)), WHOLE, None, ()),
        (None, WHOLE, BLUE, (Load("blue", V1, False, "0"), Route(BLUE, None, None))),
        (model(BLUE, blue=(READY, 1)), {**WHOLE, "green": V2}, None, (Load("green", V2, False, "0"),)),
        (
            model(BLUE, blue=(READY, 1), green=(EMPTY, 0)),
            {**WHOLE, "green": V2},
            {"blue": 9000, "green": 1000},
            (Load("green", V2, False, "green-etag"), Route({"blue": 9000, "green": 1000}, None, None)),
        ),
        (model(BLUE, blue=(READY, 1), green=(READY, 2)), {"green": V3}, None, (Load("green", V3, True, "green-etag"),)),
        (model(BLUE, blue=(READY, 1), green=(LOADING, 2)), {"green": V2}, None, (Wait("green"),)),
        (model(BLUE, green=(FAILED, 2)), {"green": V2}, None, (Load("green", V2, False, "green-etag"),)),
    ],
)  # fmt: skip
def test_steps(
    now: pb.Model | None, slots: dict[str, RevisionSpec], weights: dict[str, int] | None, steps: tuple[object, ...]
) -> None:
    found = plan(now, DesiredModel("digits", slots, weights))
    assert found.steps == steps and not found.problems
    assert bool(found.differences) == bool(steps)


def test_a_slot_that_pins_lead_to_is_not_replaced_unless_the_outage_is_accepted() -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2))
    now.route.pins.add(metadata_key="x-team", value="qa", slot="green")
    desired = DesiredModel("digits", {"green": V3}, None, None, None)
    found = plan(now, desired)
    assert not found.steps
    assert "slot green has the requests of pins" in found.problems[0]
    load = Load("green", V3, True, "green-etag", accept_outage=True)
    assert plan(now, desired, Options(accept_outage=True)).steps == (load,)


@pytest.mark.parametrize(
    ("now", "slots", "weights", "said"),
    [
        (model(BLUE, blue=(READY, 1)), {"blue": V2}, None, "--accept-outage"),
        (model(BLUE, blue=(READY, 1), green=(LOADING, 2)), {"green": V3}, None, "another load is under way"),
        (model(BLUE, blue=(READY, 1), green=(DRAINING, 2)), {"green": V2}, None, "being emptied"),
        (model(BLUE, blue=(READY, 1)), {}, {"green": 10000}, "is not there"),
        (model(BLUE, blue=(READY, 1), green=(EMPTY, 0)), {}, {"green": 10000}, "is EMPTY"),
    ],
)
def test_problems(now: pb.Model, slots: dict[str, RevisionSpec], weights: dict[str, int] | None, said: str) -> None:
    (problem,) = plan(now, DesiredModel("digits", slots, weights)).problems
    assert said in problem


def test_a_digest_that_differs_is_another_revision() -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2))
    wanted = {"green": RevisionSpec(2, "", "ab" * 32)}
    assert plan(now, DesiredModel("digits", wanted)).steps == (Load("green", wanted["green"], True, "green-etag"),)


def test_a_pin_to_nowhere_and_a_slot_kept_for_a_rollback() -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2))
    now.slots[1].held = True
    assert "a pin leads to" in plan(now, DesiredModel("digits", {}, pins=(PinSpec("a", "b", "red"),))).problems[0]
    assert "--end-bake" in plan(now, DesiredModel("digits", {"green": V3})).problems[0]
    assert plan(now, DesiredModel("digits", {"green": V3}), Options(end_bake=True)).steps


def test_only_prune_unloads_and_never_what_has_traffic_or_a_pin() -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2), red=(READY, 3))
    now.route.pins.add(metadata_key="a", value="b", slot="red")
    assert "--prune" in plan(now, DesiredModel("digits", WHOLE)).notes[0]
    found = plan(now, DesiredModel("digits", {}), Options(prune=True))
    assert found.steps == (Unload("green", "green-etag"),)
    assert [note.split()[1] for note in found.notes] == ["blue", "red"]


def test_shadow_rules_are_cleared_before_traffic_moves_and_set_after() -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2), red=(READY, 3))
    now.stable_slot = "blue"
    old = ShadowSpec("green", 100, queue_max=7, bytes_max=8, deadline_ns=9)
    now.route.shadows.append(rule_message(old))
    wanted = DesiredModel("digits", {"red": V3}, {"green": 10000}, shadows=(ShadowSpec("blue", 500),))
    found = plan(now, wanted)
    assert [type(step) for step in found.steps] == [ClearShadow, Route, SetShadow] and not found.problems
    assert [(each.sign, each.object, each.before, each.after) for each in found.differences[1:]] == [
        ("-", "shadows/green", "1 % of requests, queue_max 7, bytes_max 8, deadline 0.000000009s", "none"),
        ("+", "shadows/blue", "none", "5 % of requests"),
    ]
    kept = plan(now, DesiredModel("digits", shadows=(ShadowSpec("green", 100),)))
    assert not kept.steps, "bounds that are not named stay as they are"
    changed = plan(now, DesiredModel("digits", shadows=(ShadowSpec("green", 200, queue_max=1),)))
    assert changed.steps == (SetShadow(ShadowSpec("green", 200, 0, "", (), 1, 8, 9)),)
    assert plan(now, DesiredModel("digits")).steps == (), "rules that are not declared stay"


@pytest.mark.parametrize(
    ("weights", "slot", "said"),
    [
        (None, "blue", "slot blue should get copies and the most traffic"),
        ({"green": 10000}, "green", "slot green should get copies and the most traffic"),
        ({"green": 5000, "blue": 5000}, "green", "slot green should get copies and the most traffic"),
        (None, "red", "slot red should get copies and is EMPTY"),
        (None, "pink", "slot pink should get copies and is not there"),
    ],
)
def test_what_cannot_be_a_shadow(weights: dict[str, int] | None, slot: str, said: str) -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2), red=(EMPTY, 0))
    now.stable_slot = "blue"
    (problem,) = plan(now, DesiredModel("digits", {}, weights, shadows=(ShadowSpec(slot, 100),))).problems
    assert said in problem


def test_a_shadow_is_pruned_only_where_its_rule_goes_first() -> None:
    now = model(BLUE, blue=(READY, 1), green=(READY, 2))
    now.stable_slot = "blue"
    now.route.shadows.append(rule_message(ShadowSpec("green", 100)))
    stays = plan(now, DesiredModel("digits", WHOLE), Options(prune=True))
    assert not stays.steps and "a shadow rule" in stays.notes[0]
    goes = plan(now, DesiredModel("digits", WHOLE, shadows=()), Options(prune=True))
    assert goes.steps == (ClearShadow("green"), Unload("green", "green-etag"))


SLOTS = ("blue", "green", "red", "v3")
SPECS = st.dictionaries(st.sampled_from(SLOTS), st.sampled_from([V1, V2, V3, RevisionSpec(2, "int8")]), max_size=4)
COMPARE = st.sampled_from([(), (CompareSpec("y", "js", threshold=0.1), CompareSpec("y", "topk", k=3))])
STICKY = st.sampled_from([None, Sticky(), Sticky("x-user"), Sticky("", "user", "s"), Sticky("", "", "digits")])


@st.composite
def weights(draw: st.DrawFn, names: tuple[str, ...]) -> dict[str, int] | None:
    if not names or draw(st.booleans()):
        return None
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    cuts = sorted(draw(st.lists(st.integers(1, 9999), min_size=len(chosen) - 1, max_size=len(chosen) - 1, unique=True)))
    bounds = [0, *cuts, 10000]
    return {slot: bounds[i + 1] - bounds[i] for i, slot in enumerate(chosen)}


@st.composite
def desired(draw: st.DrawFn) -> DesiredModel:
    slots = draw(SPECS)
    pins = st.lists(st.builds(PinSpec, st.just("x-team"), st.sampled_from("ab"), st.sampled_from(SLOTS)), max_size=2)
    unique = pins.map(lambda found: tuple({pin.value: pin for pin in found}.values()))
    rules = st.lists(
        st.builds(ShadowSpec, st.sampled_from(SLOTS), st.integers(1, 3), compare=COMPARE),
        max_size=2,
        unique_by=lambda rule: rule.slot,
    ).map(tuple)
    return DesiredModel(
        "digits", slots, draw(weights(SLOTS)), draw(STICKY), draw(st.none() | unique), draw(st.none() | rules)
    )


def carry_out(fake: FakeAdmin, made: Plan, options: Options) -> None:
    """Each step as the server decides it; ControlError: it refuses."""
    for each in made.steps:
        match each:
            case Load(slot, wanted, replaces, _, outage):
                held = revision("digits", wanted.version, wanted.variant)
                fake.do("digits", commands.Load(slot, held, replaces, outage, options.end_bake))
            case Route(split, sticky, pins):
                key = None
                if sticky is not None:
                    key = StickyKey(salt=sticky.salt)
                    if sticky.metadata_key or sticky.request_parameter:
                        key = StickyKey(sticky.metadata_key, sticky.request_parameter, sticky.salt)
                leads = None if pins is None else tuple(Pin(p.metadata_key, p.value, p.slot) for p in pins)
                fake.do("digits", commands.SetWeights(split, key, leads))
            case ClearShadow(slot):
                fake.do("digits", commands.ClearShadow(slot))
            case SetShadow(rule):
                bounded = ShadowLimits().bounded(read_rule(pb.SetShadowRequest(rule=rule_message(rule))))
                fake.do("digits", commands.SetShadow(bounded))
            case Unload(slot):
                fake.do("digits", commands.Unload(slot, options.end_bake))
            case Wait():
                raise AssertionError("the fake loads at once")


def start(first: DesiredModel, swapped: bool) -> FakeAdmin:
    """A server in some state that a first apply has brought about, as far as it went."""
    fake = FakeAdmin.digits()
    try:
        carry_out(fake, plan(fake.model("digits"), first, EVERYTHING), EVERYTHING)
        if swapped:
            fake.do("digits", commands.Swap("green", 10**12))
    except ControlError:
        pass
    return fake


@given(desired(), st.booleans(), desired(), st.builds(Options, st.booleans(), st.booleans(), st.booleans()))
def test_a_plan_without_problems_is_never_refused_and_a_second_one_is_empty(
    first: DesiredModel, swapped: bool, wanted: DesiredModel, options: Options
) -> None:
    fake = start(first, swapped)
    made = plan(fake.model("digits"), wanted, options)
    if made.problems:
        return
    carry_out(fake, made, options)
    now = fake.model("digits")
    again = plan(now, wanted, options)
    assert not again.problems and [step for step in again.steps if not isinstance(step, Unload)] == []
    held = {slot.name: (slot.revision.version, slot.revision.variant) for slot in now.slots if slot.state == READY}
    assert {name: (spec.version, spec.variant) for name, spec in wanted.slots.items()}.items() <= held.items()
    if wanted.weights is not None:
        assert weights_of(now) == wanted.weights
    if wanted.pins is not None:
        assert pins_of(now) == wanted.pins
    if wanted.shadows is not None:
        assert {rule.slot: rule.sample_bp for rule in wanted.shadows} == {
            slot: rule.sample_bp for slot, rule in shadows_of(now).items()
        }
    if wanted.sticky is not None and wanted.sticky != Sticky("", "", "digits"):
        assert sticky_of(now) == wanted.sticky


@given(desired(), st.booleans(), desired())
def test_without_options_nothing_that_serves_is_taken_away(
    first: DesiredModel, swapped: bool, wanted: DesiredModel
) -> None:
    fake = start(first, swapped)
    before: Traffic = fake.states["digits"]
    made = plan(fake.model("digits"), wanted)
    assert not [step for step in made.steps if isinstance(step, Unload)]
    for each in made.steps:
        if isinstance(each, Load):
            assert before.weight_bp(each.slot) == 0 and before.held != each.slot
    kinds = [type(each) for each in made.steps]
    assert kinds == sorted(kinds, key=[Load, Wait, ClearShadow, Route, SetShadow, Unload].index)
    assert len({kind for kind in kinds if kind is Route}) == kinds.count(Route) <= 1
