"""What is counted of loads: sums that only grow, and the last traced request of each bucket."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.ids import Revision
from turnout.core.sketch import Sketch
from turnout.core.tensors import Timings
from turnout.core.tracing import TraceContext
from turnout.runtime.account import BOUNDS_NS, Account, Accounts, Exemplar, Outcome

MS = 1_000_000


def revision(version: int, digest: str = "d") -> Revision:
    return Revision("m", version, "", digest)


def requests(accounts: Accounts) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for load in accounts:
        key = (load.slot, str(load.revision))
        found[key] = found.get(key, 0) + load.account.tally(Outcome.SUCCESS).requests
    return found


def test_what_is_loaded_again_goes_on_counting() -> None:
    accounts = Accounts()
    for version, count in [(1, 3), (2, 1), (1, 4), (2, 0), (1, 0)]:
        account = accounts.open("blue", revision(version))
        for _ in range(count):
            account.record_request(Outcome.SUCCESS, 1, MS)
    assert requests(accounts) == {("blue", "m/1"): 7, ("blue", "m/2"): 1}


@given(st.lists(st.tuples(st.sampled_from(["blue", "green"]), st.integers(1, 5)), max_size=30), st.integers(1, 4))
def test_a_sum_only_grows_until_it_goes_as_a_whole(loads: Sequence[tuple[str, int]], closed_max: int) -> None:
    accounts, before = Accounts(closed_max), dict[tuple[str, str], int]()
    for slot, version in loads:
        accounts.open(slot, revision(version)).record_request(Outcome.SUCCESS, 1, MS)
        now = requests(accounts)
        for key, count in now.items():
            assert count >= before.get(key, 0)
        assert len(now) <= closed_max + 2
        before = now


def test_what_ended_first_is_forgotten_first_and_never_what_is_loaded() -> None:
    accounts = Accounts(closed_max=2)
    for version in (1, 2, 3, 1, 4):  # 1 is loaded again, so it ended last of the first three
        accounts.open("blue", revision(version)).record_request(Outcome.SUCCESS, 1, MS)
    assert requests(accounts) == {("blue", "m/3"): 1, ("blue", "m/1"): 2, ("blue", "m/4"): 1}


def test_what_was_emptied_is_forgotten_too() -> None:
    accounts = Accounts(closed_max=2)
    for name in ("a", "b", "c", "b"):
        accounts.open(name, revision(1)).record_request(Outcome.SUCCESS, 1, MS)
        accounts.close("m", name)
    accounts.close("m", "b")  # there is nothing any more
    assert requests(accounts) == {("c", "m/1"): 1, ("b", "m/1"): 2}


def test_accounts_add_up() -> None:
    one, other = Account(), Account()
    timings = Timings(queue_ns=1, compute_input_ns=2, compute_infer_ns=3, compute_output_ns=4, batch_rows=2)
    for account, pinned in ((one, False), (other, True)):
        account.record_request(Outcome.SUCCESS, 2, 10, timings, pinned)
        account.record_run(timings)
    one.last_success_ns = 5
    both = one.plus(other)
    tally = both.tally(Outcome.SUCCESS)
    assert (tally.requests, tally.rows, tally.duration_ns, tally.queue_ns, tally.compute_output_ns) == (2, 4, 20, 2, 8)
    assert both.routed[Outcome.SUCCESS].requests == both.pinned[Outcome.SUCCESS].requests == 1
    assert (both.batches[2].runs, both.batches[2].compute_infer_ns, both.runs.count) == (2, 6, 2)
    assert both.last_success_ns == 5
    assert one.batches[2].runs == 1, "the parts stay as they are"


@pytest.mark.parametrize("duration_ns", [1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[-1] + 1])
def test_the_last_traced_request_of_a_bucket_is_kept(duration_ns: int) -> None:
    account = Account()
    traces = [TraceContext(number, 7) for number in (1, 2)]
    for number, trace in enumerate(traces):
        account.record_request(Outcome.SUCCESS, 1, duration_ns, trace=trace, ended_ns=number)
    account.record_request(Outcome.SUCCESS, 1, duration_ns, ended_ns=9)
    kept = list(account.tally(Outcome.SUCCESS).exemplars.values())
    assert kept == [Exemplar(duration_ns, traces[1], 1)]


def test_of_two_sums_the_later_exemplar_stays() -> None:
    early, late = Account(), Account()
    early.record_request(Outcome.SUCCESS, 1, MS, trace=TraceContext(1, 1), ended_ns=1)
    late.record_request(Outcome.SUCCESS, 1, MS, trace=TraceContext(2, 2), ended_ns=2)
    for both in (early.plus(late), late.plus(early)):
        (kept,) = both.tally(Outcome.SUCCESS).exemplars.values()
        assert kept.trace.trace_id == 2


def test_a_sum_does_not_follow_its_parts() -> None:
    one = Account()
    both = one.plus(Account())
    one.record_request(Outcome.SUCCESS, 1, MS)
    assert both.tally(Outcome.SUCCESS).durations.bins == Sketch().bins
