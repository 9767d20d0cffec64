"""Routes: pins, buckets, what is refused, and the route that a server starts with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.buckets import BASIS_POINTS, bucket_of, salted
from turnout.core.errors import Reason, ServingError
from turnout.core.ids import Revision
from turnout.core.routing import Interval, Route, StickyKey, Target, starting_route, starting_slots


def target(slot: str, version: int, variant: str = "") -> Target:
    return Target(slot, Revision("m", version, variant, f"digest-{version}{variant}"))


BLUE, GREEN, RED = target("blue", 2), target("green", 3), target("red", 3, "int8")


def route(*shares: tuple[Target, int], targets: tuple[Target, ...] = (BLUE, GREEN, RED)) -> Route:
    intervals, start = [], 0
    for owner, share in shares:
        intervals.append(Interval(start, start + share, owner))
        start += share
    return Route("m", 7, targets, tuple(intervals))


@pytest.mark.parametrize(
    ("coin", "slot"), [(0, "green"), (99, "green"), (100, "blue"), (9_999, "blue"), (5_000, "blue")]
)
def test_the_coin_picks_the_bucket(coin: int, slot: str) -> None:
    assert route((GREEN, 100), (BLUE, 9_900)).decide(None, None, coin).slot == slot


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_shares_are_exact_over_all_buckets(parts: list[int]) -> None:
    shares = [part * BASIS_POINTS // sum(parts) for part in parts]
    shares[-1] += BASIS_POINTS - sum(shares)
    owners = (BLUE, GREEN, RED)
    r = route(*zip(owners, shares, strict=False))
    counts = dict.fromkeys(owners, 0)
    for coin in range(BASIS_POINTS):
        counts[r.decide(None, None, coin)] += 1
    assert [counts[owner] for owner in owners][: len(shares)] == shares
    assert [r.weight_bp(owner) for owner in owners][: len(shares)] == shares


@pytest.mark.parametrize(
    ("version", "slot", "expected"),
    [
        (2, None, BLUE),
        (3, None, RED),  # both green and red hold version 3: the one with more weight
        (None, "green", GREEN),
        (3, "green", GREEN),
    ],
)
def test_pins_go_before_weights(version: int | None, slot: str | None, expected: Target) -> None:
    assert route((RED, 2_000), (BLUE, 8_000)).decide(version, slot, 5_000) == expected


@pytest.mark.parametrize(
    ("variant", "more", "expected"),
    [
        ("int8", {}, RED),
        ("none", {}, BLUE),  # both blue and green hold a version's own file
        ("none", {"version": 3}, GREEN),
        ("int8", {"version": 3, "slot": "red"}, RED),
        ("none", {"slot": "@stable"}, BLUE),
    ],
)
def test_a_variant_is_one_pin_more(variant: str, more: dict[str, Any], expected: Target) -> None:
    pins = {"version": None, "slot": None, **more}
    assert route((BLUE, BASIS_POINTS)).decide(pins["version"], pins["slot"], 5_000, "key", variant) == expected
    with pytest.raises(ServingError, match=r"no ready version 2 in variant 'int8', ready are m/2 in slot 'blue'"):
        route((BLUE, BASIS_POINTS)).decide(2, None, 0, None, "int8")


def test_of_equals_the_first_target_answers_a_version() -> None:
    assert route((BLUE, BASIS_POINTS)).decide(3, None, 0) == GREEN


@pytest.mark.parametrize(
    ("version", "slot", "words"),
    [(9, None, "version 9"), (None, "pink", "slot 'pink'"), (2, "green", "version 2 in slot 'green'")],
)
def test_a_pin_that_fits_nothing_is_not_found_and_names_what_is_ready(
    version: int | None, slot: str | None, words: str
) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        route((BLUE, BASIS_POINTS)).decide(version, slot, 0)
    assert caught.value.reason is Reason.NOT_FOUND
    assert "m/3@int8 in slot 'red'" in caught.value.message


def test_nothing_routed_is_not_ready_and_pins_still_work() -> None:
    r = route()
    with pytest.raises(ServingError) as caught:
        r.decide(None, None, 0)
    assert caught.value.reason is Reason.NOT_READY
    assert r.decide(2, None, 0) == BLUE


@pytest.mark.parametrize(
    "intervals",
    [
        (Interval(0, 5_000, BLUE),),
        (Interval(1, BASIS_POINTS, BLUE),),
        (Interval(0, 5_000, BLUE), Interval(5_001, BASIS_POINTS, GREEN)),
        (Interval(0, 6_000, BLUE), Interval(5_000, BASIS_POINTS, GREEN)),
        (Interval(0, 0, GREEN), Interval(0, BASIS_POINTS, BLUE)),
        (Interval(0, BASIS_POINTS, target("pink", 1)),),
    ],
)
def test_a_route_with_a_gap_an_overlap_or_a_stranger_cannot_be_made(intervals: tuple[Interval, ...]) -> None:
    with pytest.raises(ValueError, match="route of 'm'"):
        Route("m", 1, (BLUE, GREEN), intervals)


def test_the_newest_version_starts_in_blue_and_the_others_beside_it() -> None:
    assert starting_slots([1, 10, 2]) == {10: "blue", 2: "v2", 1: "v1"}
    assert starting_slots([]) == {}


def test_the_starting_route_gives_blue_everything() -> None:
    others = target("v1", 1)
    r = starting_route("m", [BLUE, others])
    assert r.generation == 1
    assert r.weight_bp(BLUE) == BASIS_POINTS
    assert r.decide(1, None, 0) == others


def test_without_blue_nothing_is_routed_rather_than_an_older_version() -> None:
    r = starting_route("m", [target("v1", 1)])
    assert r.intervals == ()
    assert r.decide(1, None, 0).slot == "v1"


def test_a_sticky_key_goes_before_the_coin_and_a_pin_before_both() -> None:
    r = route((GREEN, 5_000), (BLUE, 5_000))
    by_slot = {slot: next(k for k in map(str, range(50)) if bucket_of(salted("m"), k) // 5_000 == side)
               for slot, side in (("green", 0), ("blue", 1))}  # fmt: skip
    for slot, key in by_slot.items():
        assert {r.decide(None, None, coin, key).slot for coin in (0, 4_999, 5_000, 9_999)} == {slot}
        assert r.decide(None, "red", 0, key) == RED


def test_the_salt_is_the_models_name_unless_the_route_has_its_own() -> None:
    shares = ((GREEN, 5_000), (BLUE, 5_000))
    plain = route(*shares)
    own = Route("m", 7, plain.targets, plain.intervals, StickyKey(salt="again"))
    named = Route("m", 7, plain.targets, plain.intervals, StickyKey(salt="m"))
    answers = [[r.decide(None, None, 0, str(key)).slot for key in range(100)] for r in (plain, own, named)]
    assert answers[0] == answers[2] != answers[1]


@pytest.mark.parametrize(
    ("shares", "stable", "candidate"),
    [
        (((GREEN, 100), (BLUE, 9_900)), BLUE, GREEN),
        (((GREEN, 9_900), (BLUE, 100)), GREEN, BLUE),
        (((RED, 200), (GREEN, 300), (BLUE, 9_500)), BLUE, GREEN),
        (((GREEN, 5_000), (BLUE, 5_000)), BLUE, GREEN),  # of equals the first
    ],
)
def test_roles_follow_traffic(shares: tuple[tuple[Target, int], ...], stable: Target, candidate: Target) -> None:
    r = route(*shares)
    assert (r.stable, r.candidate) == (stable, candidate)
    assert r.decide(None, "@stable", 0) == stable
    assert r.decide(None, "@candidate", 0) == candidate


def test_without_traffic_the_only_other_target_is_the_candidate() -> None:
    assert route((BLUE, BASIS_POINTS), targets=(BLUE, GREEN)).decide(None, "@candidate", 0) == GREEN
    assert route((BLUE, BASIS_POINTS)).candidate is None, "it cannot be told which of two"
    with pytest.raises(ServingError, match="slot '@candidate'"):
        route((BLUE, BASIS_POINTS)).decide(None, "@candidate", 0)


def test_with_nothing_routed_there_are_no_roles() -> None:
    assert (route().stable, route(targets=(BLUE,)).candidate) == (None, None)


def test_an_unknown_role_names_those_that_there_are() -> None:
    with pytest.raises(ServingError, match="no role '@canary', roles are @stable and @candidate"):
        route((BLUE, BASIS_POINTS)).decide(None, "@canary", 0)


def test_weights_by_slot() -> None:
    assert route((GREEN, 100), (BLUE, 9_800), (GREEN, 100)).weights == {"green": 200, "blue": 9_800}
