"""A real server around a model that takes SERVICE_MS for each run, one row at a time: what queueing theory can be held
against. The transport, dispatcher, batcher and executor thread are the server's own.

Answers each line on its input with the runs since the one before, each as two monotonic nanoseconds: where the machine
pauses in a run, it takes longer, and queueing theory must be told."""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time

import uvloop

from support.edge import Served, edge, signature
from turnout.backends.synthetic import SyntheticModel

_PR_SET_TIMERSLACK = 29
_EARLY_NS = 300_000  # a sleep is cut short by this, and the rest is spent in short ones
_STEP_NS = 20_000


class FixedService:
    """A model's `wait`: the executor is busy for `service_ns`, to microseconds.

    Attributes:
        runs: begin and end of each, by the monotonic clock.
    """

    def __init__(self, service_ns: int) -> None:
        self._service_ns = service_ns
        self._fine = False
        self.runs: list[tuple[int, int]] = []

    def __call__(self, rows: int) -> None:
        begin_ns = time.monotonic_ns()
        due_ns = begin_ns + self._service_ns
        if not self._fine:
            self._fine = True  # for this thread, the executor: sleeps end within microseconds, not up to 50 us late
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            # Sleeping gives the loop's thread the core and the interpreter, as ONNX Runtime's own run does.
            time.sleep((left_ns - _EARLY_NS if left_ns > _EARLY_NS else min(left_ns, _STEP_NS)) / 1e9)
        self.runs.append((begin_ns, time.monotonic_ns()))


async def main(service_ms: float) -> None:
    service = FixedService(int(service_ms * 1e6))
    model = SyntheticModel(signature(), wait=service)
    async with edge({"fixed": Served(model, "max_batch_size: 1")}) as server:
        print(f"ready: {server.address}", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            runs, service.runs = service.runs, []
            print(json.dumps(runs), flush=True)


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1])))
