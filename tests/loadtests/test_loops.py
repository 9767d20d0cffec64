"""The generators on virtual time: what they send when, what they count, and what a stall looks like."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from support.virtual import VirtualClock, VirtualLoop, virtual
from turnout_bench import loops
from turnout_bench.hdr import Histogram
from turnout_bench.loops import closed_loop, open_loop
from turnout_bench.pacing import LoopPacer
from turnout_bench.results import NOT_SENT, OK, UNANSWERED, WRONG_ANSWER, BenchError, Run
from turnout_bench.schedules import poisson

MS = 1_000_000


class Stub:
    """A server on virtual time: answers after `service_s`, and answers nothing from `stall_s` on for one second."""

    def __init__(self, loop: VirtualLoop, service_s: float = 0.001, stall_s: float | None = None) -> None:
        self.loop = loop
        self.service_s = service_s
        self.begin_s = loop.time()
        self.stall_s = stall_s
        self.status: Callable[[int], str] = lambda number: OK
        self.sent_s: list[float] = []

    async def call(self, number: int) -> str:
        now_s = self.loop.time() - self.begin_s
        self.sent_s.append(now_s)
        wait_s = self.service_s
        if self.stall_s is not None and self.stall_s <= now_s < self.stall_s + 1:
            wait_s += self.stall_s + 1 - now_s
        await asyncio.sleep(wait_s)
        return self.status(number)


def opened(loop: VirtualLoop, stub: Stub, schedule: np.ndarray, seconds: float, **more: object) -> Awaitable[Run]:
    clock_ns = VirtualClock(loop)
    return open_loop(stub, schedule, seconds=seconds, clock_ns=clock_ns, pacer=LoopPacer(clock_ns), **more)  # type: ignore[arg-type]


@virtual
async def test_every_request_leaves_when_it_is_due(loop: VirtualLoop) -> None:
    stub, schedule = Stub(loop), poisson(200, 5, 1)
    run = await opened(loop, stub, schedule, 5, warmup_s=1)
    assert stub.sent_s == pytest.approx((schedule / 1e9).tolist(), abs=1e-6)
    counted = int((schedule >= 10**9).sum())
    assert run.statuses == {OK: counted}
    assert (run.ok, run.seconds, run.per_second) == (counted, 4, counted / 4)
    assert run.latency.percentile_us(50) == pytest.approx(1000, abs=2)
    assert run.lag is not None and run.lag.percentile_us(100) <= 1
    assert run.void() == ""
    assert run.trace is not None and set(run.trace.outcomes) == {OK}, "those of the warm-up too"
    assert (run.trace.due_ns - run.trace.due_ns[0] == schedule - schedule[0]).all()
    assert run.trace.done_ns - run.trace.due_ns == pytest.approx(MS, abs=2000)
    assert run.trace.sent_ns == pytest.approx(run.trace.due_ns, abs=1000)


@virtual
async def test_a_pause_of_one_second_shows_in_the_open_loop(loop: VirtualLoop) -> None:
    """A tenth of the requests fall into it: they wait half a second in the mean, and the p99 shows nearly all of it."""
    run = await opened(loop, Stub(loop, stall_s=4), poisson(200, 10, 1), 10)
    assert run.latency.percentile_us(99) == pytest.approx(900_000, rel=0.05)
    assert run.latency.percentile_us(100) == pytest.approx(1_000_000, rel=0.02)
    assert run.latency.percentile_us(89) < 2000


@virtual
async def test_a_closed_loop_omits_it(loop: VirtualLoop) -> None:
    """The contrast: four clients meet the pause with four requests, and the rest are never sent."""
    stub = Stub(loop, stall_s=4)
    run = await closed_loop(stub, 4, seconds=10, clock_ns=VirtualClock(loop))
    assert run.latency.percentile_us(99) < 2000
    assert run.latency.percentile_us(100) > 990_000


@virtual
async def test_a_generator_that_stalls_is_no_excuse_and_no_measurement(loop: VirtualLoop) -> None:
    """Its own pause makes latencies longer, from the intended time; from the actual send they would look fine. And
    the run is refused."""

    class Stalling(LoopPacer):
        async def until(self, due_ns: int) -> None:
            await super().until(due_ns)
            if due_ns >= begin_ns + 4 * 10**9 and not stalled:
                stalled.append(True)
                loop.now_s += 1  # nothing ran meanwhile

    clock_ns = VirtualClock(loop)
    begin_ns, stalled = clock_ns(), list[bool]()
    schedule = poisson(200, 10, 1)
    run = await open_loop(Stub(loop), schedule, seconds=10, clock_ns=clock_ns, pacer=Stalling(clock_ns))
    assert run.latency.percentile_us(99) == pytest.approx(900_000, rel=0.05)
    assert run.lag is not None and run.lag.percentile_us(99) == pytest.approx(900_000, rel=0.05)
    assert "lag p99" in run.void()
    assert run.as_json()["void"] == run.void()


@virtual
async def test_requests_beyond_the_bound_are_not_sent_and_void_the_run(loop: VirtualLoop) -> None:
    stub = Stub(loop, service_s=100)
    run = await opened(loop, stub, np.arange(10) * MS, 1, inflight_max=3, answer_s_max=5.0)
    assert run.statuses == {UNANSWERED: 3, NOT_SENT: 7}
    assert len(stub.sent_s) == 3
    assert "7 requests were not sent" in run.void()


@virtual
async def test_failures_are_counted_by_status_and_have_no_latency(loop: VirtualLoop) -> None:
    stub = Stub(loop)
    stub.status = lambda number: ("UNAVAILABLE", WRONG_ANSWER, OK)[number % 3]
    run = await opened(loop, stub, np.arange(9) * MS, 1)
    assert run.statuses == {"UNAVAILABLE": 3, WRONG_ANSWER: 3, OK: 3}
    assert run.latency.total == run.ok == 3
    with pytest.raises(BenchError, match="the server: not every answer was right"):
        run.refuse_failures("the server")


@virtual
async def test_a_closed_loop_counts_its_window_only(loop: VirtualLoop) -> None:
    used = iter([1.0, 1.5])
    stub = Stub(loop, service_s=0.01)
    run = await closed_loop(stub, 5, seconds=2, warmup_s=1, clock_ns=VirtualClock(loop), cpu_s=lambda: next(used))
    assert run.ok == run.sent == pytest.approx(1000, abs=5)
    assert run.seconds == pytest.approx(2)
    assert run.cpu_us == pytest.approx(500, rel=0.01)
    assert run.clients == 5 and run.lag is None and run.void() == ""


@virtual
async def test_a_closed_loop_without_answers_ends(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "ANSWER_S_MAX", 1.0)
    with pytest.raises(BenchError, match="3 of 3 clients had no answer"):
        await closed_loop(Stub(loop, service_s=1000), 3, seconds=1, clock_ns=VirtualClock(loop))


@virtual
async def test_a_fault_of_the_generator_is_not_counted_as_the_servers(loop: VirtualLoop) -> None:
    stub = Stub(loop)
    stub.status = lambda number: 1 // 0  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        await closed_loop(stub, 1, seconds=1, clock_ns=VirtualClock(loop))
    with pytest.raises(ZeroDivisionError):
        await opened(loop, stub, np.asarray([0, 500 * MS]), 1)


@pytest.mark.parametrize(
    ("median_us", "lag_us", "void"),
    [(20_000, 1_900, False), (20_000, 2_100, True), (600, 240, False), (600, 260, True)],
)
def test_lag_is_refused_above_a_tenth_of_the_median_or_the_floor(median_us: int, lag_us: int, void: bool) -> None:
    latency, lag = Histogram.of_ns([median_us * 1e3] * 100), Histogram.of_ns([0] * 98 + [lag_us * 1e3] * 2)
    run = Run(1.0, {OK: 100}, latency, lag, rate=100)
    assert bool(run.void()) is void
