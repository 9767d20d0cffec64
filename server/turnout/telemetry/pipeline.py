"""What telemetry there is to use, and its end. Without anything to export it is a set of objects that do nothing, and
the SDK is not imported."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnout.core.tracing import TraceContext
from turnout.runtime.ports import EventLog, Severity, Tracer
from turnout.runtime.tracing import NO_TRACER
from turnout.telemetry.masking import Mask
from turnout.telemetry.readings import Reading
from turnout.telemetry.settings import Settings

Take = Callable[[], Sequence[Reading]]
WriteLine = Callable[[str, MutableMapping[str, Any]], None]  # a level, and the line's fields; on any thread


class NoEvents:
    """The EventLog of a server whose events nobody collects."""

    def emit(
        self,
        name: str,
        severity: Severity,
        attributes: Mapping[str, str | int | float | bool],
        trace: TraceContext | None = None,
    ) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Limits:
    """What is traced beyond the sample; each has its flag in config.py."""

    slow_ns: int
    captures_per_s_max: float


@dataclass(slots=True)
class Pipeline:
    """What is exported, or not.

    Attributes:
        exported: the signals.
        write_line: takes each line of the log; None: nobody collects them.
        watch: begins to export what two callables give; the first is asked on the loop thread, the other on another.
        shutdowns: each sends what is left and blocks, perhaps for half a minute.
    """

    exported: tuple[str, ...] = ()
    tracer: Tracer = NO_TRACER
    events: EventLog = field(default_factory=NoEvents)
    write_line: WriteLine | None = None
    watch: Callable[[Take, Take], None] = lambda take, take_slow: None
    shutdowns: list[Callable[[], None]] = field(default_factory=list)

    async def stop(self, seconds_max: float) -> bool:
        """Send what is left, within one deadline for all; False: some of it was given up. Threads that still try are
        daemons, and end with the process."""
        loop = asyncio.get_running_loop()
        ended = [loop.create_future() for _ in self.shutdowns]
        for shutdown, future in zip(self.shutdowns, ended, strict=True):
            threading.Thread(target=_shut, args=(shutdown, loop, future), daemon=True).start()
        self.shutdowns.clear()
        if not ended:
            return True
        _, late = await asyncio.wait(ended, timeout=seconds_max)
        return not late


def open_pipeline(settings: Settings, limits: Limits, service: str, mask: Mask = str) -> Pipeline:
    """Everything that `settings` ask for, running. `service`: the name where the environment gives none. `mask`: of
    what is said of it.

    Raises:
        ValueError: the SDK cannot use what its variables say.
    """
    if not settings:
        return Pipeline()
    from turnout.telemetry import otel

    return otel.build(settings, limits, service, mask)


def _shut(shutdown: Callable[[], None], loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    with contextlib.suppress(Exception):  # what it could not send has been logged
        shutdown()
    with contextlib.suppress(RuntimeError):  # it took too long, and the loop has gone
        loop.call_soon_threadsafe(end)
