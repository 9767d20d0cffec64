"""The two generators. Open loop: requests leave by a schedule that was fixed before, whatever the server does, and
latency counts from when a request was due (no coordinated omission). Closed loop: each client waits for its answer.

Both know a Caller, a clock and asyncio, and nothing of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np

from turnout_bench.hdr import Histogram
from turnout_bench.pacing import Pacer, new_pacer
from turnout_bench.results import NOT_SENT, OK, UNANSWERED, BenchError, Run, Trace
from turnout_bench.schedules import Schedule

ClockNs = Callable[[], int]

INFLIGHT_MAX = 8192  # requests of an open loop that wait for answers; further ones are not sent, and the run is void
ANSWER_S_MAX = 30.0  # after the last request was due


class Caller(Protocol):
    """Sends request number n, and waits for its answer."""

    async def call(self, number: int) -> str:
        """OK, WRONG_ANSWER, or the name of the gRPC status that it failed with. Raises nothing."""


async def open_loop(
    caller: Caller,
    schedule: Schedule,
    *,
    seconds: float,
    warmup_s: float = 0.0,
    clock_ns: ClockNs = time.monotonic_ns,
    pacer: Pacer | None = None,
    inflight_max: int = INFLIGHT_MAX,
    answer_s_max: float = ANSWER_S_MAX,
) -> Run:
    """Send every request of the schedule when it is due.

    Args:
        seconds: that the schedule spans, warm-up included.
        warmup_s: what is due before is sent like the rest and not counted.
    """
    own_pacer = pacer or new_pacer(clock_ns)
    try:
        sending = _Sending(caller, schedule, clock_ns, inflight_max)
        await sending.send(own_pacer)
        await sending.finish(answer_s_max)
    finally:
        if pacer is None:
            own_pacer.close()
    return sending.run(seconds, warmup_s)


class _Sending:
    """The state of one open-loop run: arrays by request number, and the tasks under way."""

    def __init__(self, caller: Caller, schedule: Schedule, clock_ns: ClockNs, inflight_max: int) -> None:
        self._caller = caller
        self._schedule = schedule
        self._clock_ns = clock_ns
        self._inflight_max = inflight_max
        self._lag_ns = np.zeros(len(schedule), np.int64)
        self._latency_ns = np.zeros(len(schedule), np.int64)
        self._statuses = [UNANSWERED] * len(schedule)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    async def send(self, pacer: Pacer) -> None:
        self._begin_ns = start_ns = self._clock_ns()
        for number, offset_ns in enumerate(self._schedule.tolist()):
            due_ns = start_ns + offset_ns
            if self._clock_ns() < due_ns:
                await pacer.until(due_ns)
            else:
                await asyncio.sleep(0)  # late: but answers must be taken too, and those before this one sent
            if len(self._tasks) >= self._inflight_max:
                self._statuses[number] = NOT_SENT
                self._lag_ns[number] = self._clock_ns() - due_ns
                continue
            task = asyncio.ensure_future(self._one(number, due_ns))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _one(self, number: int, due_ns: int) -> None:
        self._lag_ns[number] = self._clock_ns() - due_ns
        self._statuses[number] = await self._caller.call(number)
        self._latency_ns[number] = self._clock_ns() - due_ns

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error

    async def finish(self, answer_s_max: float) -> None:
        """Wait for the answers that are still under way; raises what went wrong in here, not at the server."""
        left = set(self._tasks)
        if left:
            await asyncio.wait(left, timeout=answer_s_max)
        for task in left:
            task.cancel()  # those that are done do not mind
        await asyncio.gather(*left, return_exceptions=True)
        if self._fault is not None:
            raise self._fault

    def run(self, seconds: float, warmup_s: float) -> Run:
        counted = self._schedule >= int(warmup_s * 1e9)
        answered = counted & np.asarray([status == OK for status in self._statuses])
        statuses = Counter(status for status, of_run in zip(self._statuses, counted.tolist(), strict=True) if of_run)
        window_s = seconds - warmup_s
        due_ns = self._begin_ns + self._schedule
        return Run(
            seconds=window_s,
            statuses=statuses,
            latency=Histogram.of_ns(self._latency_ns[answered]),
            lag=Histogram.of_ns(self._lag_ns[counted]),
            rate=int(counted.sum()) / window_s,
            sent_ns=self._schedule + self._lag_ns,
            trace=Trace(due_ns, due_ns + self._lag_ns, due_ns + self._latency_ns, tuple(self._statuses)),
        )


async def closed_loop(
    caller: Caller,
    clients: int,
    *,
    seconds: float,
    warmup_s: float = 0.0,
    clock_ns: ClockNs = time.monotonic_ns,
    cpu_s: Callable[[], float] | None = None,
) -> Run:
    """`clients` clients, each of which sends its next request when it has the answer to the last. What is answered in
    the window counts; latency is from the actual send, so a closed loop hides what a stalled server does to others.
    A window without any answer is made longer until there is one.

    Args:
        cpu_s: the CPU time that the server has used so far.

    Raises:
        BenchError: an answer did not come within ANSWER_S_MAX after the window.
    """
    statuses: Counter[str] = Counter()
    latencies_ns: list[int] = []
    running, counting = True, False
    answered = asyncio.Event()

    async def client(index: int) -> None:
        number = index
        while running:
            sent_ns = clock_ns()
            status = await caller.call(number)
            number += clients
            if counting:
                answered.set()
                statuses[status] += 1
                if status == OK:
                    latencies_ns.append(clock_ns() - sent_ns)
            if status != OK:
                await asyncio.sleep(0.001)  # a server that refuses at once must not be hammered

    tasks = [asyncio.ensure_future(client(index)) for index in range(clients)]
    try:
        await asyncio.sleep(warmup_s)
        counting, began_ns = True, clock_ns()
        began_cpu_s = cpu_s() if cpu_s is not None else 0.0
        await asyncio.sleep(seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(answered.wait(), ANSWER_S_MAX)
        counting, window_s = False, (clock_ns() - began_ns) / 1e9
        used_s = cpu_s() - began_cpu_s if cpu_s is not None else None
        running = False
        _, late = await asyncio.wait(tasks, timeout=ANSWER_S_MAX)
        if late:
            raise BenchError(f"{len(late)} of {clients} clients had no answer within {ANSWER_S_MAX:g} s")
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
    return Run(window_s, statuses, Histogram.of_ns(latencies_ns), clients=clients, cpu_s=used_s)
