"""The demo's users: many people with a sticky key each, asking at a steady pace while versions change under them.

They run in a thread of their own from start to stop, and count who answered; nothing is retried.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

import plain_stub
from turnout_wire.service import GRPCInferenceServiceAioStub

USERS = 1000
PACE_PER_S = 300  # leaves most of two cores to the server
CLIENTS = 8  # connections
_TIMEOUT_S = 10
_WINDOW_ENTRIES = 10_000
_MESSAGES_MAX = 5


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that has ended. Slot "": it failed."""

    sent_ns: int
    ended_ns: int
    user: int
    slot: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What users saw of one slot within a window."""

    share: float
    per_s: float
    latencies_ns: Sequence[int]


@dataclass
class Users:
    """Asks `endpoint` from start() to stop(), PACE_PER_S times a second."""

    endpoint: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    recent: deque[Answered] = field(default_factory=lambda: deque(maxlen=_WINDOW_ENTRIES))
    total: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)  # what the first of them said
    told: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=_WINDOW_ENTRIES))  # id, right digit
    at: dict[int, str] = field(default_factory=dict)  # user -> the slot that answered last
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)  # (from, to) -> users

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), daemon=True)

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends when the requests under way have ended."""
        self._stopped.set()
        self._thread.join(2 * _TIMEOUT_S)

    def seen(self, seconds: float) -> dict[str, Seen]:
        """By slot, what was answered within the last `seconds`."""
        since_ns = time.monotonic_ns() - int(seconds * 1e9)
        window = [each for each in tuple(self.recent) if each.slot and each.ended_ns >= since_ns]
        slots: dict[str, list[int]] = {}
        for each in window:
            slots.setdefault(each.slot, []).append(each.ended_ns - each.sent_ns)
        return {
            slot: Seen(len(latencies) / len(window), len(latencies) / seconds, latencies)
            for slot, latencies in slots.items()
        }

    def first_answer_ns(self, slot: str, after_ns: int) -> int | None:
        """When `slot` first answered after that."""
        return min((e.ended_ns for e in tuple(self.recent) if e.slot == slot and e.ended_ns > after_ns), default=None)

    async def _ask(self) -> None:
        """A clock sends, whether or not answers have come: a server that stalls is not spared."""
        channels = [grpc.aio.insecure_channel(self.endpoint, options=plain_stub.DIRECT) for _ in range(CLIENTS)]
        stubs = [GRPCInferenceServiceAioStub(channel) for channel in channels]
        under_way: set[asyncio.Task[None]] = set()
        start_ns, sent = time.monotonic_ns(), 0
        while not self._stopped.is_set():
            due = (time.monotonic_ns() - start_ns) * PACE_PER_S // 10**9
            for number in range(sent, due):
                task = asyncio.create_task(self._one(stubs[number % CLIENTS], number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            sent = max(sent, due)
            await asyncio.sleep(1 / PACE_PER_S)
        await asyncio.gather(*under_way)
        await asyncio.gather(*(channel.close() for channel in channels))

    async def _one(self, stub: GRPCInferenceServiceAioStub, number: int) -> None:
        user = number * 7919 % USERS  # each in turn, in no order that a hash could know
        which = number % len(self.images)
        image = self.images[which]
        sent_ns = time.monotonic_ns()
        slot = ""
        try:
            response = await stub.ModelInfer(
                plain_stub.request(image[None]), timeout=_TIMEOUT_S, metadata=(("turnout-sticky-key", f"user-{user}"),)
            )
            slot = response.parameters["turnout_slot"].string_param
            self.told.append((response.parameters["inference_id"].string_param, int(self.labels[which])))
        except grpc.aio.AioRpcError as error:
            self.failed += 1
            if len(self.failures) < _MESSAGES_MAX:
                self.failures.append(f"{error.code().name}: {error.details()}")
        self.total += 1
        self.recent.append(Answered(sent_ns, time.monotonic_ns(), user, slot))
        if slot:
            if (was := self.at.get(user, slot)) != slot:
                self.moves[was, slot] += 1
            self.at[user] = slot
