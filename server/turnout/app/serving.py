"""The composition root: builds every part, starts them in order, and stops them in the reverse one.

    start   journal -> ops port -> backend -> repository -> slots loaded, warmed, routed -> admin port, port open, READY
    stop    not ready, still serving (drain delay) -> no new calls, those under way finish (grace) -> slots unload
            -> ops port closed, telemetry sent, or given up -> log written, as far as it is read

The only module that knows concrete classes (invariant 7).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass

from turnout.app.parts import (
    message_bytes_max,
    new_admin,
    new_backend,
    new_opener,
    new_ops,
    new_server,
    new_shadows,
    open_journal,
    repository,
    start_telemetry,
)
from turnout.app.problems import StartError, refuse_problems, refuse_used_ports
from turnout.app.signals import StopSignals, stop_signals, unless_stopped
from turnout.app.stopping import LOG_S_MAX, drain, end_telemetry, unload
from turnout.backends.onnx import OnnxBackend
from turnout.backends.threads import offload
from turnout.config import Config
from turnout.core.errors import LoadError
from turnout.runtime.admin import Admin
from turnout.runtime.comparison_feed import ComparisonFeed
from turnout.runtime.fleet import Fleet
from turnout.runtime.gates import MessageLimit
from turnout.runtime.ports import Journal, JournalError
from turnout.telemetry.logs import LogObserver
from turnout.telemetry.ops import Ops
from turnout.telemetry.pipeline import Pipeline
from turnout.telemetry.server_readings import CallReadings
from turnout.telemetry.shadow import ComparisonEvents, ShadowReadings
from turnout.telemetry.sources import Sources
from turnout.telemetry.standard_error import LineWriter, write_descriptor
from turnout.transport.admin import SlotHandlers
from turnout.transport.admin_server import AdminServer
from turnout.transport.comparisons import ComparisonHandlers
from turnout.transport.health import Health
from turnout.transport.server import PortInUse

# After which a thread lets go of the interpreter for the event loop that waits for it. With Python's 5 ms, what is
# compared, scraped or exported beside requests sets their p99 (shadow_p99_ratio: 1.8, and 1.4 with this).
_SWITCH_S = 0.0005


@dataclass(frozen=True, slots=True)
class Started:
    """What a server serves, for those who announce it."""

    config: Config
    fleet: Fleet
    port: int
    message_bytes_max: int
    admin_port: int | None = None  # None: there is no admin service
    ops_port: int | None = None  # None: there is no ops port


async def serve(config: Config, announce: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or SIGINT. `announce` is called once, when requests are taken.

    Raises:
        StartError: a port in use, a GPU that is not there, a repository that is not there or has no usable model.
    """
    log = LineWriter(write_descriptor(sys.stderr.fileno()))
    log.start()
    try:
        await _logged(config, announce, log)
    finally:
        log.stop(LOG_S_MAX)


async def _logged(config: Config, announce: Callable[[Started], None], log: LineWriter) -> None:
    pipeline = start_telemetry(config, log)
    observer = LogObserver(pipeline.events)
    stop = stop_signals(config.drain_delay_s)
    try:
        refuse_used_ports(config)
        journal = await open_journal(config)
        try:
            await _serve(config, announce, observer, stop, journal, pipeline)
        finally:
            journal.close()
    finally:
        await end_telemetry(pipeline, stop, observer)


async def _serve(
    config: Config,
    announce: Callable[[Started], None],
    observer: LogObserver,
    stop: StopSignals,
    journal: Journal,
    pipeline: Pipeline,
) -> None:
    message_limit = MessageLimit()
    backend = new_backend(config)
    opener = new_opener(config, backend, observer, message_limit, pipeline)
    admin = new_admin(config, opener, journal, pipeline)
    health = Health(admin.fleet)
    admin.events.listen(health.refresh)
    sources = Sources(admin, opener, lambda: health.why_not)
    ops = new_ops(config, sources, opener) if config.ops else None
    if config.ops or "metrics" in pipeline.exported:
        sources.start()
    pipeline.watch(sources.readings.take, sources.readings.take_slow)
    try:
        if await unless_stopped(_open(config, backend, admin, observer, journal), stop):
            await _run(config, announce, observer, stop, admin, health, message_limit, pipeline, sources, ops)
            observer.event("stopped")
        else:
            observer.event("stopped before it was ready")
    finally:
        await sources.stop()
        if ops is not None:
            await ops.stop()


async def _open(config: Config, backend: OnnxBackend, admin: Admin, observer: LogObserver, journal: Journal) -> None:
    try:
        await offload(backend.start)
        sources = await offload(repository(config).models)
    except LoadError as error:
        raise StartError(str(error)) from None
    for source in sources:
        if source.problem:
            observer.model_refused(source.name, source.problem)
    try:
        known = bool(await offload(journal.states))  # before the start writes to it
        await admin.start(sources)
    except JournalError as error:
        raise StartError(f"{error}; see --state-dir") from None
    refuse_problems(config, admin.fleet, known, observer)


async def _run(
    config: Config,
    announce: Callable[[Started], None],
    observer: LogObserver,
    stop: StopSignals,
    admin: Admin,
    health: Health,
    message_limit: MessageLimit,
    pipeline: Pipeline,
    sources: Sources,
    ops: Ops | None,
) -> None:
    """Serve what is open until a signal comes."""
    fleet = admin.fleet
    more = config.admin or config.model_control == "explicit"
    limit = message_limit.bytes_max = config.message_bytes_max or message_bytes_max(fleet, more)
    feed = ComparisonFeed(ComparisonEvents(pipeline.events))
    shadows = await new_shadows(config, admin, observer, feed, pipeline)
    server = new_server(config, admin, observer, limit, health, pipeline, shadows)
    slots = SlotHandlers(admin.operations, admin.requests, admin.events, admin.limits.bake_ns)
    comparisons = ComparisonHandlers(admin.controller, shadows, feed)
    admin_server = AdminServer(slots, comparisons, observer, admin.counts) if config.admin else None
    try:
        admin_port = await admin_server.start(config.admin_host, config.admin_port) if admin_server else None
        port = await server.start(config.host, config.grpc_port)
    except PortInUse as error:
        if admin_server is not None:
            await admin_server.stop(0)  # else gRPC asks a loop that has gone to stop it
        raise StartError(str(error)) from None
    sources.readings.add(CallReadings(server.under_way))
    sources.readings.add(ShadowReadings(shadows))
    # What is there now stays: no collection need walk over it again, which stops everything for tens of milliseconds.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)
    ops_port = ops.port if ops is not None else None
    announce(Started(config, fleet, port, limit, admin_port, ops_port))
    if config.state_dir is None:
        observer.event("no --state-dir: slots, traffic and history are kept in memory, and end with this process")
    nothing = "nothing: neither --otlp-endpoint nor an OTEL_ variable asks for it"
    observer.event("telemetry", exported=list(pipeline.exported) or nothing)
    models = [model.name for model in fleet]
    observer.event("serving", port=port, admin_port=admin_port, ops_port=ops_port, models=models)
    await drain(server, admin, admin_server, shadows, stop, config, observer)
    await unload(fleet, stop, observer)
