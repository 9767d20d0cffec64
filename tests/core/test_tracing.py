"""Which requests are traced: traceparent against a strict oracle, samplers, and what is kept of a storm."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnout.core.tracing import Allowance, Sampling, TraceContext, captured, child, read_traceparent, root

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Draws:
    """Chance as a list; what is drawn must be there."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def __call__(self, bits: int) -> int:
        number = self.numbers.pop(0)
        assert number < 1 << bits
        return number


def oracle(text: str) -> tuple[int, int, bool] | None:
    """W3C's rules one by one, written without the pattern that is tested."""
    fields = text.split("-")
    if len(fields) < 4 or [len(field) for field in fields[:4]] != [2, 32, 16, 2]:
        return None
    if any(c not in "0123456789abcdef" for field in fields[:4] for c in field):
        return None
    if fields[0] == "ff" or (fields[0] == "00" and len(fields) > 4):
        return None
    if set(fields[1]) == {"0"} or set(fields[2]) == {"0"}:
        return None
    return int(fields[1], 16), int(fields[2], 16), int(fields[3], 16) % 2 == 1


_HEX = st.text("0123456789abcdef", min_size=0, max_size=33) | st.text("0123456789abcdefABg\n ٣", max_size=33)


def _of(length: int) -> st.SearchStrategy[str]:
    usual = st.text("0123456789abcdef", min_size=length, max_size=length)
    return usual | st.just("0" * length) | st.just("f" * length) | _HEX


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1))
@example(0xA, 0xB)
def test_ids_are_written_as_headers_have_them(trace_id: int, span_id: int) -> None:
    context = TraceContext(trace_id, span_id)
    assert read_traceparent(f"00-{'-'.join(context.ids)}-01") == context


@given(st.lists(st.one_of(_of(2), _of(32), _of(16), st.text(max_size=4)), max_size=6).map("-".join) | st.text())
@example(PARENT)
@example(PARENT + "\n")
@example(PARENT + "-")
@example("01" + PARENT[2:] + "-more\nof it")
@example("01" + PARENT[2:] + "more")
@example("ff" + PARENT[2:])
@example(PARENT.upper())
@example(f"00-{'0' * 32}-{SPAN}-01")
@example(f"00-{TRACE}-{'0' * 16}-01")
def test_a_traceparent_is_read_as_w3c_says(text: str) -> None:
    read = read_traceparent(text)
    assert (None if read is None else (read.trace_id, read.span_id, read.sampled)) == oracle(text)


@given(_of(2), _of(32), _of(16), _of(2))
def test_every_combination_of_fields(version: str, trace: str, span: str, flags: str) -> None:
    text = f"{version}-{trace}-{span}-{flags}"
    read = read_traceparent(text)
    assert (None if read is None else (read.trace_id, read.span_id, read.sampled)) == oracle(text)


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("fe", False)]
)
def test_one_bit_of_the_flags_is_the_decision(flags: str, sampled: bool) -> None:
    read = read_traceparent(f"00-{TRACE}-{SPAN}-{flags}", "a=1")
    assert read == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled, state="a=1")


def test_a_trace_state_that_is_too_long_is_dropped_whole() -> None:
    assert read_traceparent(PARENT, "k=" + "v" * 510).state != ""  # type: ignore[union-attr]
    assert read_traceparent(PARENT, "k=" + "v" * 511).state == ""  # type: ignore[union-attr]


def test_a_sampled_parent_is_always_traced_as_its_child() -> None:
    trace = Sampling(0.0).begin(PARENT, "vendor=x", Draws(2**64 - 1, 77))
    assert trace == TraceContext(int(TRACE, 16), 77, True, int(SPAN, 16), "vendor=x")


def test_a_parent_that_is_not_sampled_decides_too() -> None:
    assert Sampling(1.0).begin(PARENT[:-1] + "0", "", Draws(0)) is None


def test_a_parent_that_is_not_valid_is_none() -> None:
    broken = "00-" + PARENT
    assert Sampling(1.0).begin(broken, "a=1", Draws(5, 3, 9)) == TraceContext(3 << 64 | 5, 9)
    assert Sampling(0.0).begin(broken, "a=1", Draws(0)) is None


def test_the_coin_decides_and_ends_up_in_the_trace_id() -> None:
    bound = round(0.01 * 2**64)
    assert Sampling(0.01).begin(None, "", Draws(bound)) is None
    trace = Sampling(0.01).begin(None, "", Draws(bound - 1, 1, 2))
    assert trace == TraceContext(1 << 64 | (bound - 1), 2)


def test_without_parents_the_trace_id_decides_alike_everywhere() -> None:
    low = int(TRACE, 16) & (2**64 - 1)
    just = (low + 2**40) / 2**64
    under = (low - 2**40) / 2**64
    for flags in ("00", "01"):
        text = PARENT[:-2] + flags
        trace = Sampling(just, parent_decides=False).begin(text, "", Draws(2**64 - 1, 4))
        assert trace is not None and trace.parent_id == int(SPAN, 16)
        assert Sampling(under, parent_decides=False).begin(text, "", Draws(0)) is None


@given(st.floats(0, 1), st.integers(0))
def test_the_share_that_is_traced_is_the_ratio(ratio: float, seed: int) -> None:
    draw = random.Random(seed).getrandbits
    share = sum(Sampling(ratio).begin(None, "", draw) is not None for _ in range(400)) / 400
    assert abs(share - ratio) < 0.15


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(ValueError, match=re.escape(str(ratio))):
        Sampling(ratio)


def test_no_id_is_zero() -> None:
    assert root(0, Draws(0, 0)) == TraceContext(1 << 64, 1)
    assert child(TraceContext(5, 6), Draws(0)).span_id == 1


def test_what_is_captured_joins_the_callers_trace() -> None:
    unsampled = PARENT[:-1] + "0"
    assert captured(unsampled, "a=1", Draws(8)) == TraceContext(int(TRACE, 16), 8, True, int(SPAN, 16), "a=1")
    assert captured("nonsense", "a=1", Draws(1, 2, 3)) == TraceContext(2 << 64 | 1, 3)
    assert captured(None, "", Draws(1, 2, 3)) == TraceContext(2 << 64 | 1, 3)


def test_an_allowance_is_a_burst_and_then_a_rate() -> None:
    allowance = Allowance(2.0, 1_000)
    assert [allowance.take(1_000) for _ in range(4)] == [True, True, False, False]
    assert allowance.refused == 2
    assert not allowance.take(1_000 + 499_999_999)
    assert allowance.take(1_000 + 500_000_001)
    assert [allowance.take(10**12) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(("per_s", "first"), [(0.0, False), (0.5, True)])
def test_a_small_allowance(per_s: float, first: bool) -> None:
    allowance = Allowance(per_s, 0)
    assert allowance.take(0) is first
    assert not allowance.take(10**9)
    assert allowance.take(3 * 10**9) is first


@given(st.lists(st.integers(0, 10**9), max_size=200), st.floats(0.5, 50))
def test_no_more_than_allowed(steps: list[int], per_s: float) -> None:
    allowance, now_ns, taken = Allowance(per_s, 0), 0, 0
    for step_ns in steps:
        now_ns += step_ns
        taken += allowance.take(now_ns)
    assert taken <= max(per_s, 1) + now_ns / 1e9 * per_s + 1e-6
