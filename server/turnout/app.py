"""The composition root: builds every part, starts them in order, and stops them in the reverse one.

    start   journal -> ops port -> backend -> repository -> slots loaded, warmed, routed -> admin port, port open, READY
    stop    not ready, still serving (drain delay) -> no new calls, those under way finish (grace) -> slots unload
            -> ops port closed, telemetry sent, or given up

The only module that knows concrete classes (invariant 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from turnout import __version__
from turnout.backends.onnx import OnnxBackend, OnnxOptions, Preflight, PreflightLimits
from turnout.backends.threads import ThreadExecutors, offload
from turnout.config import Config
from turnout.core.errors import LoadError
from turnout.core.model import Placement
from turnout.runtime.admin import Admin, AdminLimits
from turnout.runtime.budget import Budget
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.fleet import Fleet
from turnout.runtime.gates import HEADER_BYTES_MAX, MessageLimit
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.opening import Opener
from turnout.runtime.ports import Journal, JournalError
from turnout.store import ModelLimits, Repository
from turnout.store.journal import SqliteJournal, StateDirectoryError
from turnout.store.memory_journal import MemoryJournal
from turnout.telemetry import settings as telemetry_settings
from turnout.telemetry.logs import LogObserver, start_logging
from turnout.telemetry.ops import Ops, start_ops
from turnout.telemetry.pipeline import Limits, Pipeline, open_pipeline
from turnout.telemetry.server_readings import CallReadings
from turnout.telemetry.sources import Sources
from turnout.telemetry.transitions import Transitions
from turnout.transport.admin import SlotHandlers
from turnout.transport.admin_server import AdminServer
from turnout.transport.calls import CallLimits
from turnout.transport.catalogue import Catalogue
from turnout.transport.codec import DecodeLimits
from turnout.transport.health import Health
from turnout.transport.inference import InferenceHandlers
from turnout.transport.model_control import ModelControl, control_handlers
from turnout.transport.server import ChannelLimits, GrpcServer, PortInUse
from turnout.transport.status import OVERLOAD_CODES, status_table

# Where the size of a tensor is open, or models come that are not known yet, this is what tensors of a message may have.
_OPEN_BYTES_MAX = 64 << 20
_MESSAGE_BYTES_MIN = 4 << 20  # gRPC's own default
_ADMIN_STOP_S_MAX = 0.5  # changes have ended by then, and watches are ended
_OPS_REMEDY = "--ops-host or --ops-port, or use --no-ops"
_UNLOAD_S_SECOND = 0.2
_UNLOAD_S_MAX = 1.0  # after the last call has ended, or its grace has passed
_TELEMETRY_S_MAX = 2.0  # then, for what is not sent yet: a collector that does not answer must not keep the process
_TELEMETRY_S_SECOND = 0.2


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


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
    pipeline = _telemetry(config)
    observer = LogObserver(pipeline.events)
    stop = _stop_signals(config.drain_delay_s)
    try:
        _refuse_used_ports(config)
        journal = await _journal(config)
        try:
            await _serve(config, announce, observer, stop, journal, pipeline)
        finally:
            journal.close()
    finally:
        await _end_telemetry(pipeline, stop, observer)


def _telemetry(config: Config) -> Pipeline:
    start_logging(config.log_level, config.log_format)  # so that it takes what the SDK says of its variables
    settings = telemetry_settings.read(os.environ, config.otlp_endpoint)
    limits = Limits(config.trace_slow_ms * 10**6 or 1 << 63, config.trace_captures_per_s_max)
    try:
        pipeline = open_pipeline(settings, limits, config.server_name)
    except ValueError as error:
        raise StartError(str(error)) from None
    start_logging(config.log_level, config.log_format, pipeline.write_line)
    observer = LogObserver()
    for note in settings.notes:
        observer.noticed(note)
    return pipeline


async def _end_telemetry(pipeline: Pipeline, stop: _StopSignals, observer: LogObserver) -> None:
    sending = asyncio.ensure_future(pipeline.stop(_TELEMETRY_S_MAX))
    again = asyncio.ensure_future(stop.second_or(None))
    both: set[asyncio.Future[Any]] = {sending, again}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([sending], timeout=_TELEMETRY_S_SECOND)  # also when a second signal came
    again.cancel()
    if not (sending.done() and sending.result()):
        observer.event("stopped before all telemetry was sent")


async def _serve(
    config: Config,
    announce: Callable[[Started], None],
    observer: LogObserver,
    stop: _StopSignals,
    journal: Journal,
    pipeline: Pipeline,
) -> None:
    message_limit = MessageLimit()
    backend = _backend(config)
    opener = _opener(config, backend, observer, message_limit, pipeline)
    admin = _admin(config, opener, journal, pipeline)
    health = Health(admin.fleet)
    admin.events.listen(health.refresh)
    sources = Sources(admin, opener, lambda: health.why_not)
    ops = _ops(config, sources, opener) if config.ops else None
    if config.ops or "metrics" in pipeline.exported:
        await sources.start()
    pipeline.watch(sources.readings.take, sources.readings.take_slow)
    try:
        if await _unless_stopped(_open(config, backend, admin, observer, journal), stop):
            await _run(config, announce, observer, stop, admin, health, message_limit, pipeline, sources, ops)
            observer.event("stopped")
        else:
            observer.event("stopped before it was ready")
    finally:
        sources.stop()
        if ops is not None:
            await ops.stop()


async def _run(
    config: Config,
    announce: Callable[[Started], None],
    observer: LogObserver,
    stop: _StopSignals,
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
    server = _server(config, admin, observer, limit, health, pipeline)
    slots = SlotHandlers(admin.operations, admin.requests, admin.events, admin.limits.bake_ns)
    admin_server = AdminServer(slots, observer, admin.counts) if config.admin else None
    try:
        admin_port = await admin_server.start(config.admin_host, config.admin_port) if admin_server else None
        port = await server.start(config.host, config.grpc_port)
    except PortInUse as error:
        raise StartError(str(error)) from None
    sources.readings.add(CallReadings(server.under_way))
    # What is there now stays: no collection need walk over it again, which stops everything for tens of milliseconds.
    gc.collect()
    gc.freeze()
    ops_port = ops.port if ops is not None else None
    announce(Started(config, fleet, port, limit, admin_port, ops_port))
    if config.state_dir is None:
        observer.event("no --state-dir: slots, traffic and history are kept in memory, and end with this process")
    nothing = "nothing: neither --otlp-endpoint nor an OTEL_ variable asks for it"
    observer.event("telemetry", exported=list(pipeline.exported) or nothing)
    models = [model.name for model in fleet]
    observer.event("serving", port=port, admin_port=admin_port, ops_port=ops_port, models=models)
    await _drain(server, admin, admin_server, stop, config, observer)
    await _unload(fleet, stop, observer)


def _ops(config: Config, sources: Sources, opener: Opener) -> Ops:
    host = config.ops_host or config.host
    about = {"service_name": config.server_name, "service_version": __version__}
    try:
        return start_ops(sources, opener.offload, about, host, config.ops_port)
    except OSError as error:
        raise _unusable(host, config.ops_port, error, _OPS_REMEDY) from None


async def _journal(config: Config) -> MemoryJournal | SqliteJournal:
    if config.state_dir is None:
        return MemoryJournal()
    journal = SqliteJournal(config.state_dir)
    try:
        await offload(journal.open)
    except StateDirectoryError as error:
        raise StartError(str(error)) from None
    return journal


async def _unless_stopped(opening: Coroutine[Any, Any, None], stop: _StopSignals) -> bool:
    """False when a signal comes first. What loads then goes on in its thread, and ends with us."""
    opened = asyncio.ensure_future(opening)
    stopped = asyncio.ensure_future(stop.first())
    await asyncio.wait({opened, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (opened, stopped):
        if not task.done():
            task.cancel()
    if not opened.done() or opened.cancelled():
        return False
    await opened
    return True


def message_bytes_max(fleet: Fleet, more: bool) -> int:
    """The largest request message that any model here can take, in bytes; within gRPC's own bounds. `more`: models may
    be loaded later, when the limit cannot follow."""
    largest = _OPEN_BYTES_MAX + HEADER_BYTES_MAX if more else _MESSAGE_BYTES_MIN
    for model in fleet:
        for slot in model.ready_slots():
            if slot.cargo is not None:
                tensors = slot.cargo.spec.signature.request_bytes_max()
                largest = max(largest, (_OPEN_BYTES_MAX if tensors is None else tensors) + HEADER_BYTES_MAX)
    return min(largest, 2**31 - 1)


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
    _refuse_problems(config, admin.fleet, known, observer)


def _opener(
    config: Config, backend: OnnxBackend, observer: LogObserver, message_limit: MessageLimit, pipeline: Pipeline
) -> Opener:
    loop = asyncio.get_running_loop()
    return Opener(
        backend=backend,
        new_executors=lambda name: ThreadExecutors(name, loop, time.monotonic_ns),
        limits=SlotLimits(
            config.queue_rows_max,
            config.queue_bytes_max,
            config.isolation_runs_max,
            config.classification_elements_max,
            gathers=config.batching == "gather",
        ),
        budget=Budget(config.inflight_rows_max, config.inflight_bytes_max),
        clock_ns=time.monotonic_ns,
        offload=offload,
        observer=observer,
        tracer=pipeline.tracer,
        warmup_bytes_max=config.warmup_bytes_max,
        message_limit=message_limit,
    )


def _admin(config: Config, opener: Opener, journal: Journal, pipeline: Pipeline) -> Admin:
    limits = AdminLimits(config.require_etag, config.slot_memory_bytes_max, int(config.bake_s * 1e9))
    admin = Admin(opener, repository(config), journal, _steady_time_ns(), secrets.token_hex(4), limits)
    admin.events.listen(Transitions(admin.events, pipeline.events))
    return admin


def _steady_time_ns() -> Callable[[], int]:
    """The time of day as it was at start, and since then as the monotonic clock goes: a bake must not end because
    somebody sets the clock."""
    started_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
    return lambda: started_ns + time.monotonic_ns() - monotonic_ns


def repository(config: Config) -> Repository:
    limits = ModelLimits(
        config.batch_rows_default,
        config.batch_rows_max,
        config.instances_max,
        config.allow_op_libraries,
        config.allow_hard_links,
        config.refuse_nonfinite,
    )
    return Repository(config.model_repository, limits)


def _backend(config: Config) -> OnnxBackend:
    trusted = frozenset(digest for digest in config.trusted_digests.split(",") if digest)
    limits = PreflightLimits(config.preflight_memory_bytes_max, config.preflight_timeout_s, trusted)
    return OnnxBackend(
        OnnxOptions(Placement.parse(config.provider), config.intra_op_threads, config.inter_op_threads),
        Preflight(limits) if config.preflight == "on" else None,
    )


def _refuse_problems(config: Config, fleet: Fleet, known: bool, observer: LogObserver) -> None:
    """A first start with nothing to serve is a mistake. What a journal says (`known`) was acknowledged once, if only by
    an unload of everything: then the server comes up, so that operators reach it to repair that."""
    problems = [f"  {model.name}: {model.problem}" for model in fleet if model.problem]
    slots = [slot for model in fleet for slot in model.slots.values()]
    problems += [f"  {slot.revision}: {slot.message}" for slot in slots if slot.message]
    serves = any(model.ready_slots() for model in fleet)
    if serves and not (problems and config.strict):
        return
    if not serves and known and not config.strict and (config.admin or config.model_control == "explicit"):
        observer.noticed("nothing is served: no slot is READY after the start, load one")
        return
    what = f"not all of '{config.model_repository}' can be served, as --strict asks:"
    if not serves:
        what = f"no model of '{config.model_repository}' can be served:"
        if known:
            problems.append("  to repair what the journal says while it runs, start with --admin and without --strict")
    raise StartError("\n".join([what, *(sorted(problems) or ["  it has no folders"])]))


def _server(
    config: Config, admin: Admin, observer: LogObserver, message_bytes: int, health: Health, pipeline: Pipeline
) -> GrpcServer:
    fleet = admin.fleet
    table = status_table(OVERLOAD_CODES[config.overload_code])
    draw = random.Random().randrange  # noqa: S311 - routing, no secret
    dispatcher = Dispatcher(fleet, time.monotonic_ns, draw, config.fallback)
    inference = InferenceHandlers(
        dispatcher,
        time.monotonic_ns,
        observer,
        DecodeLimits(
            config.bytes_elements_max,
            config.typed_elements_max,
            config.request_names_max,
            config.request_id_characters_max,
        ),
        CallLimits(config.calls_max, config.transfer_timeout_s, config.answer_bytes_max),
        config.response_identity,
        config.stream_inflight_max,
        admin.counts,
        pipeline.tracer,
        table,
    )
    control = None
    if config.model_control == "explicit":
        control = ModelControl(admin.operations, admin.requests, admin.limits.bake_ns)
    catalogue = Catalogue(
        fleet, config.server_name, __version__, lambda: health.ready, time.monotonic_ns, control_handlers(control)
    )
    limits = ChannelLimits(
        message_bytes_max=message_bytes,
        metadata_bytes_max=config.metadata_bytes_max,
        concurrent_streams_max=config.concurrent_streams_max,
        keepalive_interval_ms=config.keepalive_interval_ms,
        keepalive_timeout_ms=config.keepalive_timeout_ms,
        ping_interval_ms_min=config.ping_interval_ms_min,
        connection_age_ms_max=config.connection_age_ms_max,
    )
    return GrpcServer(inference, catalogue, health, limits, table, observer, admin.counts)


async def _drain(
    server: GrpcServer,
    admin: Admin,
    admin_server: AdminServer | None,
    stop: _StopSignals,
    config: Config,
    observer: LogObserver,
) -> None:
    """Wait for the first signal, then stop as a load balancer needs it; after a second one, wait no more."""
    delay_s = await stop.first()
    observer.event("stopping", delay_s=delay_s, grace_s=config.drain_grace_s)
    server.set_not_ready()
    await stop.second_or(delay_s)
    with contextlib.suppress(TimeoutError):  # a disk that hangs must not keep the process
        await asyncio.wait_for(admin.stop(), _ADMIN_STOP_S_MAX)
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


async def _unload(fleet: Fleet, stop: _StopSignals, observer: LogObserver) -> None:
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


class _StopSignals:
    """SIGTERM asks for the drain delay; SIGINT comes from a person at a terminal, who does not want to wait."""

    def __init__(self, drain_delay_s: float) -> None:
        self._drain_delay_s = drain_delay_s
        self._delay_s: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._second = asyncio.Event()

    def received(self, number: signal.Signals) -> None:
        if self._delay_s.done():
            self._second.set()
        else:
            self._delay_s.set_result(self._drain_delay_s if number is signal.SIGTERM else 0)

    async def first(self) -> float:
        """Waits for a signal; returns the seconds to go on serving."""
        return await asyncio.shield(self._delay_s)  # whoever stops waiting leaves it to the next

    def second(self) -> bool:
        return self._second.is_set()

    async def second_or(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._second.wait(), seconds)


def _stop_signals(drain_delay_s: float) -> _StopSignals:
    stop = _StopSignals(drain_delay_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.received, number)
    return stop


def _refuse_used_ports(config: Config) -> None:
    """Find a used port before models are loaded, which can take minutes; listening itself checks again."""
    addresses = [(config.host, config.grpc_port, "--host or --grpc-port")]
    if config.admin:
        addresses.append((config.admin_host, config.admin_port, "--admin-host or --admin-port, or use --no-admin"))
    if config.ops:
        addresses.append((config.ops_host or config.host, config.ops_port, _OPS_REMEDY))
    for host, port, remedy in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise _unusable(host, port, error, remedy) from None


def _unusable(host: str, port: int, error: OSError, remedy: str) -> StartError:
    return StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another {remedy}")
