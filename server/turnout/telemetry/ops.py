"""The port for operators: probes, and metrics of everything that there is to read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from turnout.runtime.admin import Admin
from turnout.runtime.opening import Opener
from turnout.runtime.ports import Offload
from turnout.telemetry.exposition import Exposition
from turnout.telemetry.gpu import gpu_readings
from turnout.telemetry.http import OpsServer, Pages
from turnout.telemetry.process import ProcessReadings
from turnout.telemetry.readings import Readings, ServingReadings
from turnout.telemetry.server_readings import LoopLag, ServerReadings
from turnout.telemetry.triton import TritonReadings


@dataclass(frozen=True, slots=True)
class Ops:
    """Open from before the first model is loaded until the last is unloaded, so that probes see both."""

    port: int
    readings: Readings
    _server: OpsServer
    _lag: LoopLag
    _offload: Offload

    async def stop(self) -> None:
        self._lag.stop()
        await self._offload(self._server.stop)


async def start_ops(
    admin: Admin, opener: Opener, why_not: Callable[[], str], about: dict[str, str], host: str, port: int
) -> Ops:
    """Args:
        why_not: why the server is not ready, nothing where it is.
        about: of `target_info`.

    Raises:
        OSError: the address cannot be listened on.
    """
    lag = LoopLag()
    gpus = await opener.offload(gpu_readings)
    readings = Readings(
        [
            ServingReadings(admin.fleet, opener.accounts, opener.limits.queue_rows_max),
            ServerReadings(admin.counts, admin.controller.health, lambda: not why_not()),
            lag,
            TritonReadings(admin.fleet, opener.accounts),
        ],
        [ProcessReadings(time.monotonic_ns()), *([gpus] if gpus is not None else [])],
    )
    server = OpsServer(asyncio.get_running_loop())
    metrics = Exposition(
        lambda: [*server.on_loop(readings.take), *readings.take_slow()], time.monotonic_ns, _wall_s, about
    )
    port = server.start(Pages(server.on_loop, why_not, metrics), host, port)
    lag.start()
    return Ops(port, readings, server, lag, opener.offload)


def _wall_s(then_ns: int) -> float:
    """The time of day of a moment on the monotonic clock."""
    return (time.time_ns() - time.monotonic_ns() + then_ns) / 1e9
