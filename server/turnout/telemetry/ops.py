"""The port for operators: probes, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from turnout.runtime.ports import Offload
from turnout.telemetry.exposition import Exposition
from turnout.telemetry.http import OpsServer, Pages
from turnout.telemetry.readings import Reading, time_of_day_ns
from turnout.telemetry.sources import Sources


@dataclass(frozen=True, slots=True)
class Ops:
    """Open from before the first model is loaded until the last is unloaded, so that probes see both."""

    port: int
    _server: OpsServer
    _offload: Offload

    async def stop(self) -> None:
        await self._offload(self._server.stop)


def start_ops(sources: Sources, offload: Offload, about: dict[str, str], host: str, port: int) -> Ops:
    """Args:
        about: of `target_info`.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = OpsServer(asyncio.get_running_loop())

    def take() -> list[Reading]:
        return [*sources.readings.take(), *sources.triton.take()]

    def collect() -> list[Reading]:
        return [*server.on_loop(take), *sources.readings.take_slow()]

    pages = Pages(server.on_loop, sources.why_not, Exposition(collect, time.monotonic_ns, time_of_day_ns, about))
    return Ops(server.start(pages, host, port), server, offload)
