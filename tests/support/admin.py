"""The admin port in this process: its real server and handlers around synthetic models, and requests to copy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from support.control import FlakyJournal, Shelf
from support.edge import eventually
from support.world import Outcome, Seen, request
from turnout.backends.threads import ThreadExecutors
from turnout.runtime.admin import Admin, AdminLimits
from turnout.runtime.budget import Budget
from turnout.runtime.comparison_feed import ComparisonFeed
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.opening import Opener
from turnout.runtime.shadows import Shadows
from turnout.transport.admin import SlotHandlers
from turnout.transport.admin_server import AdminServer
from turnout.transport.comparisons import ComparisonHandlers
from turnout_wire.admin import FeedbackServiceAioStub, SlotServiceAioStub
from turnout_wire.gen import slots_pb2 as pb


@dataclass
class Served:
    stub: SlotServiceAioStub
    labels: FeedbackServiceAioStub
    admin: Admin
    shelf: Shelf
    journal: FlakyJournal
    channel: grpc.aio.Channel
    server: AdminServer
    seen: Seen
    feed: ComparisonFeed
    shadows: Shadows
    dispatcher: Dispatcher
    opener: Opener

    async def load(self, slot: str, version: int, **more: Any) -> pb.LoadSlotResponse:
        revision = pb.Revision(version=version, variant=more.pop("variant", ""))
        return await self.stub.LoadSlot(pb.LoadSlotRequest(model="m", slot=slot, revision=revision, wait=True, **more))

    async def swap(self, slot: str, **mutation: Any) -> pb.SwapSlotsResponse:
        request = pb.SwapSlotsRequest(model="m", slot=slot, mutation=pb.Mutation(**mutation))
        return await self.stub.SwapSlots(request)

    async def model(self) -> pb.Model:
        return (await self.stub.GetModel(pb.GetModelRequest(model="m"))).model

    async def shadow(self, slot: str = "green", **rule: Any) -> None:
        """Copies of everything."""
        rule_ = pb.ShadowRule(slot=slot, sample_bp=10_000, **rule)
        await self.stub.SetShadow(pb.SetShadowRequest(model="m", rule=rule_))

    async def answer(self, values: Iterable[float], rows: int = 1) -> None:
        """Requests `id-VALUE`, one after another; returns when each is answered and every copy of it is compared."""
        before, asked = self.compared, 0
        for asked, value in enumerate(values, 1):  # noqa: B007
            outcome = Outcome()
            self.dispatcher.infer(request(value, rows, inference_id=f"id-{value:g}"), outcome.done)
            await eventually(lambda outcome=outcome: outcome.calls)  # type: ignore[misc]
        rules = len((await self.model()).route.shadows)
        await eventually(lambda: self.compared == before + asked * rules)

    @property
    def compared(self) -> int:
        results = [report.summary.total.results for report in self.shadows.reports()]
        return sum(sum(each.values()) for each in results)


@asynccontextmanager
async def served(shelf: Shelf | None = None, **limits: Any) -> AsyncIterator[Served]:
    """Version 1 in blue with all traffic, version 2 in green."""
    loop = asyncio.get_running_loop()
    shelf, journal, seen = shelf or Shelf(), FlakyJournal(), Seen()
    opener = Opener(
        backend=shelf,
        new_executors=lambda name: ThreadExecutors(name, loop, time.monotonic_ns),
        limits=SlotLimits(1000, 1 << 30),
        budget=Budget(1 << 20, 1 << 40),
        clock_ns=time.monotonic_ns,
        offload=asyncio.to_thread,
        observer=seen,
    )
    admin = Admin(opener, shelf, journal, time.time_ns, "run", AdminLimits(**limits))
    await admin.start([shelf.source(1)])
    feed = ComparisonFeed()
    shadows = Shadows(admin.fleet, time.monotonic_ns, time.time_ns, asyncio.to_thread, seen, lambda bits: 0, feed)
    handlers = SlotHandlers(admin.operations, admin.requests, admin.events, admin.limits.bake_ns)
    comparisons = ComparisonHandlers(admin.controller, shadows, feed)
    server = AdminServer(handlers, comparisons, seen, admin.counts)
    dispatcher = Dispatcher(admin.fleet, time.monotonic_ns, lambda n: 0, shadow=shadows)
    port = await server.start("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stubs = SlotServiceAioStub(channel), FeedbackServiceAioStub(channel)
            one = Served(*stubs, admin, shelf, journal, channel, server, seen, feed, shadows, dispatcher, opener)
            if not limits:
                await one.load("green", 2)
            yield one
    finally:
        await shadows.stop()
        await admin.stop()
        await server.stop(0)
        for model in admin.fleet:
            for slot in model.ready_slots():
                await slot.unload()
