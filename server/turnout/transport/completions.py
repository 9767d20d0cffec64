"""gRPC's completion queue on the event loop: one thread waits for its events and hands them over, many at a time.

`grpc.aio` does the same with a socket, a future and a task for every event, at more than twice the cost of a whole call
(ARCHITECTURE.md). What is used of gRPC here is the layer under both of its own servers: `grpc._cython`, which has
no promise of its own, so pyproject.toml bounds the version and tests/transport/test_rpcs.py holds what is relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

Handle = Callable[[Any], None]  # of an event, on the loop thread
LATE_S = 0.005  # an event that can wait is handed over with the next one that cannot, or this much later


class Completions:
    """The events of one server. The tag of an operation is a `Handle`, and whether its event can not wait; that of a
    request for a call is None.

    Args:
        arrived: what the waiting thread does with a new call at once; gives what the loop does with it.

    Attributes:
        queue: for the operations whose events come here.
    """

    def __init__(self, arrived: Callable[[Any], Handle]) -> None:
        self.queue = cygrpc.CompletionQueue()
        self._arrived = arrived
        self._events: deque[tuple[Handle, Any]] = deque()
        self._woken = False  # the loop has been told of events that it has not looked at
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """On the loop that is to have the events."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._wait, name="turnout-grpc", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Once no operation is under way any more."""
        self.queue.shutdown()
        if self._thread is not None:
            await self._ended.wait()
            self._thread.join()

    def _wait(self) -> None:
        """The waiting thread. It ends with the queue only: a queue that nobody waits on any more could not be freed."""
        poll, add = self.queue.poll, self._events.append
        late_s: float | None = None  # until when the events are to be handed over that the loop has not been told of
        while True:
            event = poll(late_s)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                break
            urgent = False
            if event.completion_type != cygrpc.CompletionType.queue_timeout:
                if event.tag is not None:
                    handle, urgent = event.tag
                    add((handle, event))
                elif event.success:  # else the server stops
                    self._arrive(event)
                late_s = late_s or time.time() + LATE_S
            if urgent or (late_s is not None and time.time() >= late_s):
                late_s = None
                if not self._woken:  # before the loop looks, it takes this back: no event is left without a call
                    self._woken = True
                    self._tell(self._hand_over)
            event = handle = None  # they may hold the last reference to a call
        self._tell(self._hand_over)
        self._tell(self._ended.set)

    def _arrive(self, event: Any) -> None:
        try:
            self._events.append((self._arrived(event), event))
        except Exception as error:  # noqa: BLE001 - a fault of our own must not end the thread, which all calls need
            self._tell(partial(self._report, error))

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed without a stop: nobody is left to be told
            self._loop.call_soon_threadsafe(callback)

    def _hand_over(self) -> None:
        self._woken = False
        events = self._events
        for _ in range(len(events)):  # those that come meanwhile wait for the loop's next turn
            handle, event = events.popleft()
            try:
                handle(event)
            except Exception as error:  # noqa: BLE001 - a fault of our own must not cost other calls their events
                self._report(error)

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "an event of gRPC was not handled", "exception": error})
