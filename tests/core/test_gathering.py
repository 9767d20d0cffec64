"""When a batch is held back, for how long, and which hold the trials settle on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from turnout.core.batch_policy import BatchPolicy
from turnout.core.batching import BatchQueue, Entry
from turnout.core.gathering import KAPPAS, Gather, Trials
from turnout.core.profile import CostProfile

US = 1000
COST = {1: 3000 * US, 4: 4000 * US, 8: 5200 * US}


def closed_loop(gather: Gather, now_ns: int, rows: int, cycles: int) -> int:
    """So many runs of `rows`, each followed by as many arrivals, 100 us apart. Returns the time after."""
    for _ in range(cycles):
        gather.started(0, rows, 0, now_ns)
        now_ns += COST[4]
        gather.free(0, 0, now_ns)
        for _ in range(rows):
            now_ns += 100 * US
            gather.arrived(1, now_ns)
    return now_ns


def always(kappa: float, rows_max: int = 8) -> Gather:
    return Gather(CostProfile(COST), rows_max, 1, (kappa, kappa))


def test_nothing_is_held_before_anybody_returned() -> None:
    gather = always(0.25)
    gather.started(0, 4, 0, 0)
    gather.free(0, 0, COST[4])
    gather.arrived(1, COST[4] + US)
    assert gather.missing(1) == 0


def test_those_who_are_expected_back_are_waited_for() -> None:
    gather = always(0.25)
    now_ns = closed_loop(gather, 0, 4, 100)
    gather.started(0, 4, 0, now_ns)
    ended_ns = now_ns + COST[4]
    gather.free(0, 0, ended_ns)
    gather.arrived(1, ended_ns + 100 * US)
    assert gather.missing(1) == 3
    release_ns = gather.release_ns(1, ended_ns + 100 * US, None)
    assert release_ns == pytest.approx(ended_ns + 100 * US + 3 * 100 * US, abs=US), "three times the usual pause"
    for _ in range(3):
        gather.arrived(1, ended_ns + 400 * US)
    assert gather.missing(4) == 0, "all are back"


def test_no_hold_is_longer_than_its_share_of_the_run() -> None:
    gather = always(0.05)
    now_ns = closed_loop(gather, 0, 4, 100)
    gather.started(0, 4, 0, now_ns)
    ended_ns = now_ns + COST[4]
    gather.free(0, 0, ended_ns)
    gather.arrived(1, ended_ns + 10 * US)
    mean_ns = gather.profile.mean_ns(1)
    assert gather.release_ns(1, ended_ns + 10 * US, None) <= ended_ns + 10 * US + 0.05 * mean_ns + 1


def test_a_deadline_ends_the_hold_in_time_for_the_run() -> None:
    gather = always(0.25)
    now_ns = closed_loop(gather, 0, 4, 100)
    gather.started(0, 4, 0, now_ns)
    gather.free(0, 0, now_ns + COST[4])
    gather.arrived(1, now_ns + COST[4])
    deadline_ns = now_ns + COST[4] + 10_000 * US
    assert gather.release_ns(1, now_ns + COST[4], deadline_ns) <= deadline_ns - gather.notice_ns(1)
    assert gather.notice_ns(1) > gather.profile.high_ns(1)


def test_nobody_is_waited_for_where_a_joint_run_saves_nothing() -> None:
    gather = Gather(CostProfile({1: 100 * US, 8: 800 * US}), 8, 1, (1.0, 1.0))
    now_ns = 0
    for _ in range(100):
        gather.started(0, 4, 0, now_ns)
        now_ns += 400 * US
        gather.free(0, 0, now_ns)
        for _ in range(4):
            now_ns += 10 * US
            gather.arrived(1, now_ns)
    gather.started(0, 4, 0, now_ns)
    gather.free(0, 0, now_ns + 400 * US)
    gather.arrived(1, now_ns + 410 * US)
    assert gather.missing(1) == 0


def waiting_for(present: Callable[[int], int]) -> int:
    """How many are waited for, where at the end of each run so many rows are in the server."""
    gather = always(1.0)
    now_ns = 0
    for number in range(300):
        gather.started(0, 4, 0, now_ns)
        now_ns += COST[4]
        gather.free(0, present(number) - 4, now_ns)
        for _ in range(4):
            now_ns += 100 * US
            gather.arrived(1, now_ns)
    gather.started(0, 4, 0, now_ns)
    gather.free(0, present(300) - 4, now_ns + COST[4])
    return gather.missing(1)


def test_clients_return_where_the_number_of_rows_in_the_server_hardly_varies() -> None:
    assert waiting_for(lambda number: 8 + number % 2) == 4
    assert waiting_for(lambda number: 4 + 8 * (number % 2)) == 0, "as in an open loop"


def test_another_load_is_seen_soon() -> None:
    """32 clients, then 4. What was seen of the many would spread the variance for long."""
    gather = always(1.0, rows_max=32)
    now_ns = closed_loop(gather, 0, 32, 100)
    now_ns = closed_loop(gather, now_ns, 4, 30)
    gather.started(0, 4, 0, now_ns)
    gather.free(0, 0, now_ns + COST[4])
    gather.arrived(1, now_ns + COST[4])
    assert gather.missing(1) == 3


@pytest.mark.parametrize(("every", "missing"), [(10, 31), (4, 0)])
def test_a_few_runs_that_a_pause_of_the_machine_made_small_are_no_open_loop(every: int, missing: int) -> None:
    gather = always(1.0, rows_max=64)
    now_ns = 0
    for number in range(300):
        rows = 1 if number % every == 0 else 32
        gather.started(0, rows, 0, now_ns)
        now_ns += COST[8]
        gather.free(0, 0, now_ns)
        for _ in range(rows):
            now_ns += 10 * US
            gather.arrived(1, now_ns)
    gather.started(0, 32, 0, now_ns)
    gather.free(0, 0, now_ns + COST[8])
    gather.arrived(1, now_ns + COST[8])
    assert gather.missing(1) == missing


def test_a_hold_outlasts_the_usual_pause_between_two_bunches() -> None:
    """Those who return come eight at a time, 1.5 ms apart: in the mean they are 0.2 ms apart."""
    gather = always(1.0, rows_max=32)
    now_ns = 0
    for _ in range(100):
        gather.started(0, 32, 0, now_ns)
        now_ns += 20_000 * US
        gather.free(0, 0, now_ns)
        for _ in range(4):
            now_ns += 1500 * US
            for _ in range(8):
                gather.arrived(1, now_ns)
    gather.started(0, 32, 0, now_ns)
    ended_ns = now_ns + 20_000 * US
    gather.free(0, 0, ended_ns)
    gather.arrived(8, ended_ns + 1500 * US)
    assert gather.release_ns(8, ended_ns + 1500 * US, None) > ended_ns + 3000 * US


def test_who_comes_after_the_time_of_a_run_did_not_return() -> None:
    gather = always(1.0)
    now_ns = 0
    for _ in range(100):
        gather.started(0, 4, 0, now_ns)
        now_ns += COST[4]
        gather.free(0, 4, now_ns)
        now_ns += 2 * COST[4]
        gather.arrived(4, now_ns)
    gather.started(0, 4, 0, now_ns)
    gather.free(0, 4, now_ns + COST[4])
    assert gather.missing(1) == 0


def test_all_executors_count_as_in_the_server() -> None:
    gather = Gather(CostProfile(COST), 8, 2, (1.0, 1.0))
    now_ns = 0
    for number in range(300):
        gather.started(0, 4, 0, now_ns)
        gather.started(1, 1 + 6 * (number % 2), 0, now_ns)
        now_ns += COST[4]
        gather.free(0, 7 - 6 * (number % 2), now_ns)
        for _ in range(8):
            now_ns += 50 * US
            gather.arrived(1, now_ns)
        gather.free(1, 8, now_ns)
    gather.arrived(1, now_ns)
    assert gather.missing(1) > 0, "what one has less the other has more"


def test_the_wait_is_what_runs_and_what_is_queued() -> None:
    gather = Gather(CostProfile(COST), 8, 2)
    assert gather.wait_ns(100, 0) == 0, "an executor is free"
    gather.started(0, 4, 0, 0)
    assert gather.wait_ns(100, 0) == 0
    gather.started(1, 1, 0, 0)
    assert gather.wait_ns(0, 1000 * US) == 2000 * US, "the shorter run has 2 ms left"
    assert gather.wait_ns(17, 1000 * US) == 2000 * US + 5200 * US, "two full batches over two executors"
    assert gather.wait_ns(0, 10_000 * US) == 0, "both are overdue"


def run_trials(trials: Trials, batches: int, cycle_ns: dict[float, int], rows: int = 4, now_ns: int = 0) -> int:
    for _ in range(batches):
        now_ns += cycle_ns[trials.kappa]
        trials.count(rows, rows * cycle_ns[trials.kappa], now_ns, closed=True)
    return now_ns


@pytest.mark.parametrize("best", KAPPAS)
def test_trials_settle_on_what_is_quickest(best: float) -> None:
    trials = Trials(KAPPAS)
    run_trials(trials, 110, {kappa: 1000 if kappa == best else 1200 for kappa in KAPPAS})
    assert trials.kappa == best


def test_of_two_that_are_as_good_the_first_one_found_stays() -> None:
    trials = Trials(KAPPAS)
    cycle_ns = {0.0: 1200, 0.25: 1000, 1.0: 1200}
    now_ns = run_trials(trials, 110, cycle_ns)
    cycle_ns[1.0] = 995
    run_trials(trials, 500, cycle_ns, now_ns=now_ns)
    assert trials.kappa == 0.25


def test_a_hold_that_gains_nothing_is_not_taken() -> None:
    trials = Trials(KAPPAS)
    run_trials(trials, 110, {0.0: 1000, 0.25: 995, 1.0: 1000})
    assert trials.kappa == 0


def test_a_changed_load_is_tried_anew() -> None:
    trials = Trials(KAPPAS)
    quick, slow = {0.0: 1200, 0.25: 1000, 1.0: 1200}, {0.0: 1000, 0.25: 1200, 1.0: 1200}
    now_ns = run_trials(trials, 1000, quick)
    assert trials.kappa == 0.25
    run_trials(trials, 150, slow, rows=32, now_ns=now_ns)
    assert trials.kappa == 0


def test_trials_become_rare_while_nothing_changes() -> None:
    trials = Trials(KAPPAS)
    tried = 0
    for _ in range(50_000):
        run_trials(trials, 1, {0.0: 1000, 0.25: 1200, 1.0: 1200})
        tried += trials.kappa != 0
    assert tried < 0.02 * 50_000


def test_trials_become_rare_where_two_holds_take_turns_in_being_the_best() -> None:
    """Chance decides between them; that one pays is certain."""
    trials = Trials(KAPPAS)
    cycle_ns = {0.0: 1500, 0.25: 1000, 1.0: 1100}
    now_ns = eager = 0
    for _ in range(100):
        best = trials.kappa
        for _ in range(200):
            now_ns = run_trials(trials, 1, cycle_ns, now_ns=now_ns)
            eager += trials.kappa == 0
        if best == trials.kappa:
            cycle_ns[0.25], cycle_ns[1.0] = cycle_ns[1.0], cycle_ns[0.25]
    assert 0 < eager < 0.02 * 20_000


def test_a_pause_of_the_machine_decides_no_trial() -> None:
    """A block of ten runs that take 1000 each is 12,000 longer."""
    trials = Trials(KAPPAS)
    cycle_ns = {0.0: 1300, 0.25: 1300, 1.0: 1000}
    now_ns = run_trials(trials, 20, cycle_ns)  # the trial has begun, with the longest hold
    assert trials.kappa == 1.0
    run_trials(trials, 110, cycle_ns, now_ns=now_ns + 12_000)
    assert trials.kappa == 1.0


def test_without_clients_that_return_there_is_no_trial() -> None:
    trials = Trials(KAPPAS)
    for number in range(1000):
        trials.count(4, 4000, 1000 * number, closed=False)
        assert trials.kappa == 0


# The queue with a Gather that has learned that four clients come back.


def entry(number: int, now_ns: int, shape: str = "", deadline_ns: int | None = None) -> Entry[int]:
    return Entry(number, 1, 4, shape, deadline_ns, now_ns)


def learned_queue(kappa: float = 0.25) -> tuple[BatchQueue[int], int]:
    gather = always(kappa)
    queue: BatchQueue[int] = BatchQueue(8, 100, 10**6, BatchPolicy(), gather)
    now_ns = closed_loop(gather, 0, 4, 100)
    gather.started(0, 4, 0, now_ns)
    return queue, now_ns + COST[4]


def test_the_queue_holds_until_all_are_back() -> None:
    queue, now_ns = learned_queue()
    assert not queue.poll(now_ns)
    entries = [entry(number, now_ns + 100 * US * (number + 1)) for number in range(4)]
    queue.offer(entries[0])
    assert not queue.awaits(entries[0]), "nobody holds yet: an executor must look"
    decision = queue.poll(now_ns + 100 * US)
    assert not decision
    assert decision.hold_ns is not None
    assert now_ns + 100 * US < decision.hold_ns <= now_ns + 100 * US + 0.25 * COST[1] + US
    for one in entries[1:3]:
        queue.offer(one)
        assert queue.awaits(one)
    queue.offer(entries[3])
    assert not queue.awaits(entries[3]), "with the last one it goes"
    assert len(queue.poll(now_ns + 400 * US).batch) == 4


def test_a_hold_that_is_over_sends_what_is_there() -> None:
    queue, now_ns = learned_queue()
    queue.poll(now_ns)
    queue.offer(entry(0, now_ns + 100 * US))
    hold_ns = queue.poll(now_ns + 100 * US).hold_ns
    assert hold_ns is not None
    assert len(queue.poll(hold_ns).batch) == 1


def test_a_hold_is_no_reason_to_wait_once_the_queue_is_flushed() -> None:
    queue, now_ns = learned_queue()
    queue.poll(now_ns)
    queue.offer(entry(0, now_ns + 100 * US))
    queue.flushing = True
    assert len(queue.poll(now_ns + 100 * US).batch) == 1


def test_a_tight_deadline_ends_the_wait_of_all() -> None:
    queue, now_ns = learned_queue()
    queue.poll(now_ns)
    queue.offer(entry(0, now_ns + 100 * US))
    queue.poll(now_ns + 100 * US)
    relaxed = entry(1, now_ns + 110 * US, deadline_ns=now_ns + 10**9)
    queue.offer(relaxed)
    assert queue.awaits(relaxed)
    tight = entry(2, now_ns + 120 * US, deadline_ns=now_ns + COST[8])
    queue.offer(tight)
    assert not queue.awaits(tight)
    assert len(queue.poll(now_ns + 120 * US).batch) == 3


def test_another_shape_goes_by_its_own_hold() -> None:
    queue, now_ns = learned_queue()
    queue.poll(now_ns)
    queue.offer(entry(0, now_ns + 100 * US, "a"))
    queue.offer(entry(1, now_ns + 150 * US, "b"))
    hold_ns = queue.poll(now_ns + 150 * US).hold_ns
    assert hold_ns is not None
    assert [one.item for one in queue.poll(hold_ns).batch] == [0]
    second = queue.poll(hold_ns + COST[1])
    assert second.hold_ns is not None, "the one that was just answered may come back"
    assert [one.item for one in queue.poll(second.hold_ns).batch] == [1]


def test_a_lane_that_is_held_goes_before_a_full_one() -> None:
    """Otherwise a shape with many clients would pass one with few for ever: each end of a run begins the hold anew."""
    queue, now_ns = learned_queue()
    queue.offer(entry(0, now_ns - 200 * US, "a"))
    for number in range(1, 9):
        queue.offer(entry(number, now_ns - 100 * US, "b"))
    assert [one.item for one in queue.poll(now_ns).batch] == [0]
    assert len(queue.poll(now_ns + COST[1]).batch) == 8


def test_a_lane_alone_is_held() -> None:
    """The control of the test above."""
    queue, now_ns = learned_queue()
    queue.offer(entry(0, now_ns - 200 * US, "a"))
    assert queue.poll(now_ns).hold_ns is not None


def test_the_oldest_request_has_its_turn_among_any_number_of_shapes() -> None:
    queue: BatchQueue[int] = BatchQueue(2, 10_000, 10**9, BatchPolicy(), always(0.25))
    for number in range(64):
        for _ in range(6):
            queue.offer(entry(number, 0, str(number)))
    queue.offer(entry(-1, 1, "rare"))
    for now_ns in range(64 * 6):  # more than enough, were the others not to go on
        batch = queue.poll(now_ns).batch
        if batch[0].item == -1:
            return
        for one in batch:
            queue.offer(entry(one.item, now_ns, str(one.item)))
    pytest.fail("a shape that came late never had its turn")


def test_padding_is_nobody_who_returns() -> None:
    gather = always(1.0)
    now_ns = 0
    for _ in range(100):
        gather.started(0, 3, 0, now_ns, 4)
        now_ns += COST[4]
        gather.free(0, 0, now_ns)
        for _ in range(3):
            now_ns += 100 * US
            gather.arrived(1, now_ns)
    gather.started(0, 3, 0, now_ns, 4)
    gather.free(0, 0, now_ns + COST[4])
    gather.arrived(1, now_ns + COST[4])
    assert gather.missing(1) == 2
    assert gather.profile.mean_ns(4) == COST[4]


@pytest.mark.parametrize(
    ("policy", "waits"),
    [(BatchPolicy(), False), (BatchPolicy(delay_ns_max=1), True), (BatchPolicy(preferred_rows=(2,)), True)],
)
def test_a_delay_or_preferred_sizes_are_a_policy_of_their_own(policy: BatchPolicy, waits: bool) -> None:
    assert policy.waits_for_size is waits


# Batches that are filled up to warm sizes.

PADDED = CostProfile({1: 1000, 2: 1100, 4: 1300, 8: 4000})


def padded_queue(profile: CostProfile = PADDED) -> BatchQueue[int]:
    return BatchQueue(8, 100, 10**6, BatchPolicy(), Gather(profile, 8), (1, 2, 4, 8))


@pytest.mark.parametrize(
    ("rows", "taken"),
    [
        ([1] * 3, 3),  # 3 run as 4: 1300 for all, sooner than 2 and then 1
        ([1] * 4, 4),  # a warm size
        ([1] * 5, 4),  # 4 and then 1 take 1300 + 1000, 5 as 8 take 4000
        ([5], 1),  # one request is never split
        ([5, 1], 2),
        ([3, 2], 1),  # 3 as 4, then 2
    ],
)
def test_a_batch_is_cut_to_a_warm_size_where_that_is_cheaper_and_sooner(rows: list[int], taken: int) -> None:
    queue = padded_queue()
    for number, count in enumerate(rows):
        queue.offer(Entry(number, count, 4, "", None, 0))
    assert len(queue.poll(1).batch) == taken


def test_it_is_not_cut_where_the_rest_would_be_late() -> None:
    queue = padded_queue()
    for number in range(5):
        queue.offer(Entry(number, 1, 4, "", 2000 if number == 4 else None, 0))
    assert len(queue.poll(1).batch) == 5


def test_it_is_not_cut_where_padding_costs_little() -> None:
    queue = padded_queue(CostProfile({1: 1000, 2: 1100, 4: 1300, 8: 1500}))
    for number in range(5):
        queue.offer(entry(number, 0))
    assert len(queue.poll(1).batch) == 5
