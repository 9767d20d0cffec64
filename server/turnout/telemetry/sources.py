"""Everything that there is to read of a server, put together."""

from __future__ import annotations

import time
from collections.abc import Callable

from turnout.runtime.admin import Admin
from turnout.runtime.opening import Opener
from turnout.telemetry.gpu import gpu_readings
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
        self.readings = Readings(
            [
                ServingReadings(admin.fleet, opener.accounts, opener.limits.queue_rows_max),
                ServerReadings(admin.counts, admin.controller.health, lambda: not why_not()),
                self._lag,
            ],
            [ProcessReadings(time.monotonic_ns())],
        )
        self.triton = Readings([TritonReadings(admin.fleet, opener.accounts)])

    async def start(self) -> None:
        """Begin with what is measured only for who reads it."""
        self._lag.start()
        if (gpus := await self._offload(gpu_readings)) is not None:
            self.readings.add_slow(gpus)

    def stop(self) -> None:
        self._lag.stop()
