"""The stop of a server, in order: not ready, no new calls, those under way, slots, telemetry. Each step is bounded, and
a second signal cuts it short."""

from __future__ import annotations

import asyncio
from typing import Any

from turnout.app.signals import StopSignals
from turnout.config import Config
from turnout.runtime.admin import Admin
from turnout.runtime.fleet import Fleet
from turnout.runtime.shadows import Shadows
from turnout.telemetry.logs import LogObserver
from turnout.telemetry.pipeline import Pipeline
from turnout.transport.admin_server import AdminServer
from turnout.transport.server import GrpcServer

_ADMIN_STOP_S_MAX = 0.5  # changes have ended by then, and watches are ended
_UNLOAD_S_SECOND = 0.2
_UNLOAD_S_MAX = 1.0  # after the last call has ended, or its grace has passed
_TELEMETRY_S_MAX = 2.0  # then, for what is not sent yet: a collector that does not answer must not keep the process
_TELEMETRY_S_SECOND = 0.2
LOG_S_MAX = 0.5  # and for the last lines of the log


async def drain(
    server: GrpcServer,
    admin: Admin,
    admin_server: AdminServer | None,
    shadows: Shadows,
    stop: StopSignals,
    config: Config,
    observer: LogObserver,
) -> None:
    """Wait for the first signal, then stop as a load balancer needs it; after a second one, wait no more."""
    delay_s = await stop.first()
    observer.event("stopping", delay_s=delay_s, grace_s=config.drain_grace_s)
    server.set_not_ready()
    await stop.second_or(delay_s)
    for part in (shadows, admin):
        try:
            await asyncio.wait_for(part.stop(), _ADMIN_STOP_S_MAX)
        except TimeoutError:
            pass  # a disk that hangs must not keep the process
        except Exception as error:  # noqa: BLE001 - nor may a fault of ours break off the calls under way
            observer.handler_failed("stop", "", error)
    if admin_server is not None:
        await admin_server.stop(_ADMIN_STOP_S_MAX)
    for model in admin.fleet:
        for slot in model.ready_slots():
            slot.ready().batcher.flush()
    stopping = asyncio.ensure_future(server.stop(config.drain_grace_s))
    again = asyncio.ensure_future(stop.second_or(None))
    both: set[asyncio.Future[None]] = {stopping, again}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if stopping.done():
        stopping.result()
    # Else a second signal: what is under way breaks off when the process ends, which is now. To ask gRPC for another
    # stop with no grace could crash it: the later one cancels the calls of a server that the earlier has destroyed.


async def unload(fleet: Fleet, stop: StopSignals, observer: LogObserver) -> None:
    """A run that hangs must not keep the process: executor threads are daemons, and end with it. Idle ones end within
    a turn of the loop, so they are waited for even after a second signal."""
    unloading = [asyncio.ensure_future(slot.unload()) for model in fleet for slot in model.ready_slots()]
    if not unloading:
        return
    _, running = await asyncio.wait(unloading, timeout=_UNLOAD_S_SECOND if stop.second() else _UNLOAD_S_MAX)
    for task in running:
        task.cancel()
    await asyncio.gather(*unloading, return_exceptions=True)
    if running:
        observer.event("stopped while a model still runs", slots=len(running))


async def end_telemetry(pipeline: Pipeline, stop: StopSignals, observer: LogObserver) -> None:
    sending = asyncio.ensure_future(pipeline.stop(_TELEMETRY_S_MAX))
    again = asyncio.ensure_future(stop.second_or(None))
    both: set[asyncio.Future[Any]] = {sending, again}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([sending], timeout=_TELEMETRY_S_SECOND)  # also when a second signal came
    again.cancel()
    if not (sending.done() and sending.result()):
        observer.event("stopped before all telemetry was sent")
