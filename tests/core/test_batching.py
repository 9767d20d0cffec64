"""The batch queue: tables for each rule, and a random walk that must keep the accounts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.batching import BatchQueue, Entry


def entry(
    name: str = "e", rows: int = 1, key: object = "k", deadline_ns: int | None = None, size: int = 10
) -> Entry[str]:
    return Entry(name, rows, size, key, deadline_ns, 0)


def queue(rows_max: int = 4, queue_rows_max: int = 100, queue_bytes_max: int = 10_000) -> BatchQueue[str]:
    return BatchQueue(rows_max, queue_rows_max, queue_bytes_max)


def names(entries: tuple[Entry[str], ...]) -> str:
    return "".join(e.item for e in entries)


def test_empty_queue_decides_nothing() -> None:
    assert not queue().poll(0)


def test_eager_takes_what_waits_without_waiting_for_more() -> None:
    q = queue()
    q.offer(entry("a"))
    assert names(q.poll(0).batch) == "a"
    assert len(q) == q.rows == q.bytes == 0


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        ([1, 1, 1, 1, 1], ["abcd", "e"]),
        ([3, 2, 1], ["a", "bc"]),  # a request is never split, and none overtakes
        ([4, 4], ["a", "b"]),
        ([2, 2, 2], ["ab", "c"]),
        ([1, 4, 1], ["a", "b", "c"]),
    ],
)
def test_batches_in_order_of_arrival_up_to_rows_max(rows: list[int], batches: list[str]) -> None:
    q = queue(rows_max=4)
    for name, count in zip("abcdefg", rows, strict=False):
        assert q.offer(entry(name, count))
    formed = []
    while decision := q.poll(0):
        formed.append(names(decision.batch))
    assert formed == batches


def test_only_equal_shapes_share_a_batch_and_the_oldest_goes_first() -> None:
    q = queue()
    for name, key in [("a", 1), ("b", 2), ("c", 1), ("d", 2)]:
        q.offer(entry(name, key=key))
    assert names(q.poll(0).batch) == "ac"
    assert names(q.poll(0).batch) == "bd"


def test_expired_requests_are_dropped_when_the_batch_is_formed() -> None:
    q = queue()
    q.offer(entry("a", deadline_ns=100))
    q.offer(entry("b", deadline_ns=101))
    q.offer(entry("c"))
    decision = q.poll(100)
    assert names(decision.expired) == "a"
    assert names(decision.batch) == "bc"


def test_expired_requests_behind_a_full_batch_stay_for_the_next() -> None:
    q = queue(rows_max=1)
    q.offer(entry("a"))
    q.offer(entry("b", deadline_ns=1))
    assert names(q.poll(5).batch) == "a"
    decision = q.poll(5)
    assert (names(decision.batch), names(decision.expired)) == ("", "b")


def test_a_lane_of_expired_requests_does_not_hide_the_next_lane() -> None:
    q = queue()
    q.offer(entry("a", key=1, deadline_ns=1))
    q.offer(entry("b", key=2))
    decision = q.poll(5)
    assert (names(decision.batch), names(decision.expired)) == ("b", "a")


def test_bounds_in_rows_and_bytes() -> None:
    q = queue(queue_rows_max=3, queue_bytes_max=35)
    assert q.offer(entry(rows=2))
    assert not q.offer(entry(rows=2)), "4 rows are over 3"
    assert q.offer(entry(rows=1))
    assert not q.offer(entry(rows=1))
    q = queue(queue_bytes_max=35)
    assert q.offer(entry(size=30))
    assert not q.offer(entry(size=6))
    assert q.offer(entry(size=5))


def test_an_empty_queue_takes_a_request_above_its_bounds() -> None:
    assert queue(queue_rows_max=1, queue_bytes_max=1).offer(entry(rows=4, size=1000))


def test_cancel_drops_a_waiting_request_once() -> None:
    q = queue()
    a, b = entry("a"), entry("b")
    q.offer(a)
    q.offer(b)
    assert q.cancel(a)
    assert not q.cancel(a)
    assert (len(q), q.rows, q.bytes) == (1, 1, 10)
    assert names(q.poll(0).batch) == "b"
    assert not q.cancel(b), "it runs already"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.integers(1, 4), st.integers(0, 2), st.none() | st.integers(0, 60)),
            st.tuples(st.just("poll"), st.just(0), st.just(0), st.none()),
            st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0), st.none()),
        ),
        max_size=60,
    )
)
def test_each_request_leaves_once_in_order_and_the_accounts_hold(steps: list[tuple[str, int, int, int | None]]) -> None:
    q = BatchQueue[int](4, 12, 10_000)
    waiting: list[Entry[int]] = []
    left: list[Entry[int]] = []
    for now, (what, number, key, deadline) in enumerate(steps):
        if what == "offer":
            new = Entry(now, number, 7, key, deadline, now)
            taken = q.offer(new)
            assert taken == (not waiting or sum(e.rows for e in waiting) + number <= 12)
            if taken:
                waiting.append(new)
        elif what == "cancel":
            if number < len(waiting):
                gone = waiting.pop(number)
                assert q.cancel(gone)
                left.append(gone)
        else:
            decision = q.poll(now)
            gone_now = (*decision.batch, *decision.expired)
            assert all(e in waiting for e in gone_now)
            assert sum(e.rows for e in decision.batch) <= 4
            assert len({e.shape_key for e in decision.batch}) <= 1
            assert all(e.deadline_ns is None or e.deadline_ns > now for e in decision.batch)
            assert all(e.deadline_ns is not None and e.deadline_ns <= now for e in decision.expired)
            assert [e.item for e in decision.batch] == sorted(e.item for e in decision.batch)
            live = [e for e in waiting if e.deadline_ns is None or e.deadline_ns > now]
            assert bool(decision.batch) == bool(live), "work-conserving: what can run is never left waiting"
            left += gone_now
            waiting = [e for e in waiting if e not in gone_now]
        assert q.rows == sum(e.rows for e in waiting)
        assert q.bytes == 7 * len(waiting)
        assert len(q) == len(waiting)
    assert len(set(map(id, left))) == len(left)
