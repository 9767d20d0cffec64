"""Everything that there is to read of a server, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from turnout.runtime.admin import Admin
from turnout.runtime.opening import Opener
from turnout.telemetry.gpu import gpu_readings
from turnout.telemetry.late import LateReadings
from turnout.telemetry.process import ProcessReadings
from turnout.telemetry.readings import Readings, ServingReadings
from turnout.telemetry.server_readings import LoopLag, ServerReadings
from turnout.telemetry.triton import TritonReadings


class Sources:
    """What exporters are given.

    Attributes:
        readings: of every instrument.
        triton: the same counts under Triton's names.

    Args:
        why_not: why the server is not ready, nothing where it is.
    """

    def __init__(self, admin: Admin, opener: Opener, why_not: Callable[[], str]) -> None:
        self.why_not = why_not
        self._offload = opener.offload
        self._lag = LoopLag()
        self._finding_gpus: asyncio.Task[None] | None = None
        self.readings = Readings(
            [
                ServingReadings(admin.fleet, opener.accounts, opener.limits.queue_rows_max),
                ServerReadings(admin.counts, admin.controller.health, lambda: not why_not()),
                self._lag,
            ],
            [ProcessReadings(time.monotonic_ns())],
        )
        self.triton = Readings([TritonReadings(admin.fleet, opener.accounts)])

    def start(self) -> None:
        """Begin with what is measured only for who reads it. GPUs come when their driver has answered: one that hangs
        keeps nothing else from its start or its stop."""
        self._lag.start()
        self._finding_gpus = asyncio.ensure_future(self._find_gpus())

    async def stop(self) -> None:
        self._lag.stop()
        if self._finding_gpus is not None:
            self._finding_gpus.cancel()
            await asyncio.wait([self._finding_gpus])

    async def _find_gpus(self) -> None:
        try:
            gpus = await self._offload(gpu_readings)
        except Exception as error:  # noqa: BLE001 - whatever ails the driver, the server can do without its figures
            structlog.get_logger().warning("GPUs are not measured", error=repr(error))
            return
        if gpus is not None:
            self.readings.add_slow(LateReadings(gpus, time.monotonic_ns))
