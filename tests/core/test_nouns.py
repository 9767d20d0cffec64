"""Names, versions, slots, buckets, placements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import LoadError
from turnout.core.ids import Revision, is_name, parse_version, printable
from turnout.core.model import Placement, Provider, buckets
from turnout.core.slots import NEXT, SlotState


def test_a_revision_is_written_as_model_version_and_variant() -> None:
    assert str(Revision("digits", 2, "int8", "d")) == "digits/2@int8"
    assert str(Revision("digits", 2, "", "d")) == "digits/2"


@pytest.mark.parametrize("good", ["a", "A.b-c_d", "_x", "9lives", "x" * 128])
def test_names(good: str) -> None:
    assert is_name(good)


@pytest.mark.parametrize(
    "bad", ["", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "x" * 129, "ä", "a\0", "..\t", "%2e", "C:"]
)
def test_what_no_name_may_be(bad: str) -> None:
    assert not is_name(bad)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ü 模型 'quoted' \\", "plain, ü 模型 'quoted' \\"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x1b[31m\x7f\x9b", r"\x1b[31m\x7f\x9b"),
        ("right\u202eto left\u2028line\ufeff", r"right\u202eto left\u2028line\ufeff"),
        ("\udcff", r"\udcff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_shown_is_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(LoadError(text)) == shown


@pytest.mark.parametrize("character", ["x", "\0"])
def test_a_reason_is_no_flood(character: str) -> None:
    assert str(LoadError(character * 375)) == printable(character) * 375
    assert len(str(LoadError(character * 10**6))) == 1504
    assert str(LoadError(character * 1501)).endswith(" ...")


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(("text", "version"), [("1", 1), ("20", 20), ("9" * 18, int("9" * 18))])
def test_versions(text: str, version: int) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "0", "01", "+1", "-1", "1 ", "1x", "x", "9" * 19, "1.0", "\u0661", "1\n"])
def test_what_no_version_may_be(text: str) -> None:
    assert parse_version(text) is None


@given(st.text())
def test_any_text_is_a_version_only_if_it_is_its_own_decimal(text: str) -> None:
    version = parse_version(text)
    assert version is None or str(version) == text


@pytest.mark.parametrize(
    ("rows_max", "sizes"), [(0, (1,)), (1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_buckets(rows_max: int, sizes: tuple[int, ...]) -> None:
    assert buckets(rows_max) == sizes


@pytest.mark.parametrize(
    ("text", "placement"),
    [
        ("auto", Placement(Provider.AUTO)),
        ("cpu", Placement(Provider.CPU)),
        ("cuda", Placement(Provider.CUDA, (0,))),
        ("cuda:1,3", Placement(Provider.CUDA, (1, 3))),
        ("tensorrt:2", Placement(Provider.TENSORRT, (2,))),
    ],
)
def test_placements(text: str, placement: Placement) -> None:
    assert Placement.parse(text) == placement


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1,1", "cpu:0", "auto:1", "CUDA"])
def test_what_no_placement_may_be(text: str) -> None:
    with pytest.raises(ValueError, match="is none of auto, cpu, cuda"):
        Placement.parse(text)


def test_every_state_has_a_way_on_and_only_warming_leads_to_ready() -> None:
    assert set(NEXT) == set(SlotState)
    assert all(NEXT.values())
    assert [state for state, following in NEXT.items() if SlotState.READY in following] == [SlotState.WARMING]
