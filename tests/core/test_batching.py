"""The batch queue: tables for each rule, and a random walk that must keep the accounts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnout.core.batch_policy import BatchPolicy, QueuePolicy
from turnout.core.batching import BatchQueue, Decision, Entry


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
        assert not q.offer(entry(name, count))
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
    assert not q.offer(entry(rows=2))
    assert q.offer(entry(rows=2)) == "3 rows"
    assert not q.offer(entry(rows=1))
    assert q.offer(entry(rows=1)) == "3 rows"
    q = queue(queue_bytes_max=35)
    assert not q.offer(entry(size=30))
    assert q.offer(entry(size=6)) == "35 bytes"
    assert not q.offer(entry(size=5))


def test_an_empty_queue_takes_a_request_above_its_bounds() -> None:
    assert not queue(queue_rows_max=1, queue_bytes_max=1).offer(entry(rows=4, size=1000))


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
            taken = not q.offer(new)
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


# Policies


def at(name: str, enqueued_ns: int, rows: int = 1, key: object = "k", deadline_ns: int | None = None) -> Entry[str]:
    return Entry(name, rows, 10, key, deadline_ns, enqueued_ns)


def with_policy(rows_max: int = 8, **policy: object) -> BatchQueue[str]:
    return BatchQueue(rows_max, 1000, 1 << 20, BatchPolicy(**policy))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("default_ns", "override", "asked_ns", "wait_ns"),
    [
        (0, False, 0, 0),
        (0, False, 7, 7),  # with no default, what the client asks holds: Triton's issue 7512
        (5, False, 0, 5),
        (5, False, 3, 5),
        (5, True, 0, 5),
        (5, True, 3, 3),
        (5, True, 9, 5),  # never longer than the default
    ],
)
def test_queue_timeouts(default_ns: int, override: bool, asked_ns: int, wait_ns: int) -> None:
    assert QueuePolicy(timeout_ns=default_ns, override=override).wait_ns(asked_ns) == wait_ns


@pytest.mark.parametrize(("priority", "level"), [(0, 2), (1, 1), (3, 3), (4, 2), (10**9, 2)])
def test_levels(priority: int, level: int) -> None:
    assert BatchPolicy(priority_levels=3, priority_default=2).level(priority) == level
    assert BatchPolicy().level(priority) == 0


def test_a_delay_holds_a_batch_back_until_the_oldest_has_waited_for_it() -> None:
    q = with_policy(delay_ns_max=100)
    q.offer(at("a", 0))
    q.offer(at("b", 50))
    assert q.poll(60) == Decision(hold_ns=100)
    assert q.poll(99) == Decision(hold_ns=100)
    assert names(q.poll(100).batch) == "ab"
    assert q.poll(200) == Decision()


def test_a_full_batch_is_not_held_back() -> None:
    q = with_policy(rows_max=4, delay_ns_max=100)
    for name in "abcde":
        q.offer(at(name, 0))
    assert names(q.poll(1).batch) == "abcd"
    assert q.poll(1).hold_ns == 100
    q.offer(at("f", 2, rows=4))
    assert names(q.poll(3).batch) == "e", "what follows does not fit any more: nothing to wait for"
    assert names(q.poll(3).batch) == "f"


@pytest.mark.parametrize(
    ("preferred", "delay_ns", "rows", "batches"),
    [
        # Triton's rule: at a preferred size at once, beyond the largest of them never
        ((4,), 0, [1, 1, 1, 1, 1], ["abcd", "e"]),
        ((2, 4), 0, [1, 1, 1], ["ab", "c"]),
        ((4,), 100, [1, 1, 1, 1, 1], ["abcd", None]),
        ((2, 4), 100, [1, 1, 1], ["ab", None]),
        ((4,), 100, [3, 3], ["a", None]),  # together above the largest preferred size: the first goes alone
        ((4,), 0, [3, 3], ["a", "b"]),
        ((), 100, [8, 1], ["a", None]),
        ((4,), 100, [5], ["a"]),
    ],
)
def test_preferred_sizes(preferred: tuple[int, ...], delay_ns: int, rows: list[int], batches: list[str | None]) -> None:
    q = with_policy(delay_ns_max=delay_ns, preferred_rows=preferred)
    for name, count in zip("abcdefg", rows, strict=False):
        q.offer(at(name, 0, count))
    for batch in batches:
        decision = q.poll(10)
        assert (names(decision.batch) or None) == batch
        assert decision.hold_ns == (100 if batch is None else None)


def test_once_the_delay_has_passed_a_preferred_size_is_not_waited_for() -> None:
    q = with_policy(delay_ns_max=100, preferred_rows=(2,))
    for name in "abc":
        q.offer(at(name, 0))
    assert names(q.poll(100).batch) == "abc"


def test_a_lane_that_is_held_back_does_not_hold_up_one_that_is_full() -> None:
    q = with_policy(rows_max=2, delay_ns_max=100)
    q.offer(at("a", 0, key=1))
    q.offer(at("b", 1, key=2))
    q.offer(at("c", 2, key=2))
    assert names(q.poll(3).batch) == "bc"
    q.offer(at("d", 4, key=2))
    assert q.poll(5) == Decision(hold_ns=100), "the earlier of the two"
    assert names(q.poll(104).batch) == "a"
    assert names(q.poll(104).batch) == "d"


def test_nothing_is_held_back_any_more_while_flushing() -> None:
    q = with_policy(delay_ns_max=100)
    q.offer(at("a", 0))
    assert q.poll(1).hold_ns == 100
    q.flushing = True
    assert names(q.poll(1).batch) == "a"


def test_of_many_lanes_that_are_held_back_the_earliest_are_looked_at() -> None:
    q = BatchQueue[int](8, 10_000, 1 << 20, BatchPolicy(delay_ns_max=100_000))
    for number in range(5000):
        q.offer(Entry(number, 1, 1, number, None, number))
    assert q.poll(6000).hold_ns == 100_000, "the oldest's"
    taken = [q.poll(200_000).batch[0].item for _ in range(5000)]
    assert taken == list(range(5000))
    assert not len(q)


def test_what_expires_in_a_lane_that_is_held_back_is_told() -> None:
    q = with_policy(delay_ns_max=100)
    q.offer(at("a", 0, key=1, deadline_ns=5))
    q.offer(at("b", 1, key=2))
    decision = q.poll(6)
    assert (names(decision.expired), decision.batch, decision.hold_ns) == ("a", (), 101)


def test_higher_priorities_go_first_and_lower_ones_fill_up() -> None:
    q = with_policy(rows_max=3, priority_levels=3, priority_default=2)
    for name, level in [("a", 3), ("b", 2), ("c", 1), ("d", 2), ("e", 1)]:
        new = at(name, 0)
        new.level = level
        assert not q.offer(new)
    assert [names(q.poll(0).batch) for _ in range(2)] == ["ceb", "da"]


def test_a_level_has_its_own_bound() -> None:
    q = with_policy(
        priority_levels=2, priority_default=2, queue=QueuePolicy(requests_max=1), queue_by_level={1: QueuePolicy()}
    )
    low, high = at("a", 0), at("b", 0)
    low.level, high.level = 2, 1
    assert not q.offer(low)
    again = at("c", 0)
    again.level = 2
    assert q.offer(again) == "1 requests of priority 2"
    assert not q.offer(high)
    q.poll(0)
    assert not q.offer(again)
    single = with_policy(queue=QueuePolicy(requests_max=1))
    assert not single.offer(at("a", 0))
    assert single.offer(at("b", 0)) == "1 requests"


def test_who_steps_back_lets_the_others_of_its_level_go_first_and_is_not_lost() -> None:
    q = with_policy(rows_max=1, priority_levels=2, priority_default=1, queue=QueuePolicy(delays=True))
    for name, level, delay_ns in [("a", 1, 10), ("b", 1, None), ("c", 2, None), ("d", 1, 50)]:
        new = at(name, 0)
        new.level, new.delay_ns = level, delay_ns
        q.offer(new)
    assert [names(q.poll(20).batch) for _ in range(5)] == ["b", "d", "a", "c", ""]


def test_a_request_that_stepped_back_can_be_cancelled() -> None:
    q = with_policy(rows_max=1, queue=QueuePolicy(delays=True))
    first, second = at("a", 0), at("b", 0)
    first.delay_ns = 5
    q.offer(first)
    q.offer(second)
    assert names(q.poll(9).batch) == "b"
    assert q.cancel(first)
    assert (len(q), q.rows, q.bytes) == (0, 0, 0)
    assert not q.poll(9)


policies = st.builds(
    BatchPolicy,
    delay_ns_max=st.sampled_from([0, 5, 20]),
    preferred_rows=st.sampled_from([(), (2,), (2, 4), (3,)]),
    priority_levels=st.just(3),
    priority_default=st.integers(1, 3),
    queue=st.builds(QueuePolicy, delays=st.booleans(), requests_max=st.sampled_from([0, 3])),
    queue_by_level=st.dictionaries(st.integers(1, 3), st.builds(QueuePolicy, delays=st.booleans()), max_size=2),
)
offers = st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 3), st.none() | st.integers(0, 60))


@settings(max_examples=300, deadline=None)
@given(policies, st.lists(st.none() | offers, max_size=50))
def test_under_any_policy_each_request_leaves_once_and_none_is_held_beyond_the_delay(
    policy: BatchPolicy, steps: list[tuple[int, int, int, int | None] | None]
) -> None:
    q = BatchQueue[int](4, 1000, 1 << 20, policy)
    waiting: dict[int, Entry[int]] = {}
    hold_ns: int | None = None
    for now, step in enumerate([*steps, *[None] * 30]):
        if step is not None:
            rows, key, priority, wait_ns = step
            new = Entry(now, rows, 7, key, None, now, policy.level(priority))
            if policy.queue_of(new.level).delays and wait_ns is not None:
                new.delay_ns = now + wait_ns
            elif wait_ns is not None:
                new.deadline_ns = now + wait_ns
            if not q.offer(new):
                waiting[now] = new
            continue
        decision = q.poll(now)
        assert sum(e.rows for e in decision.batch) <= 4
        assert len({e.shape_key for e in decision.batch}) <= 1
        assert all(e.deadline_ns is None or e.deadline_ns > now for e in decision.batch)
        for gone in (*decision.batch, *decision.expired):
            assert waiting.pop(gone.item) is gone
        hold_ns = decision.hold_ns
        if not decision.batch:
            assert all(now < e.enqueued_ns + policy.delay_ns_max for e in waiting.values())
            assert (hold_ns is None) == (not waiting)
            assert hold_ns is None or hold_ns > now
        assert q.rows == sum(e.rows for e in waiting.values())
        assert len(q) == len(waiting)
    while q.poll(10**6):
        pass
    assert (len(q), q.rows, q.bytes) == (0, 0, 0)
