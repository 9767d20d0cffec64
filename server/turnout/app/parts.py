"""Builds the parts of a server from its settings. It starts none of them."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable

from turnout import __version__
from turnout.app.problems import OPS_REMEDY, StartError, unusable
from turnout.backends.onnx import OnnxBackend, OnnxOptions, Preflight, PreflightLimits
from turnout.backends.processor import has_vnni
from turnout.backends.threads import ThreadExecutors, offload
from turnout.config import Config
from turnout.core.model import Placement
from turnout.core.offers import Hardware
from turnout.core.shadow_rules import ShadowLimits
from turnout.runtime.admin import Admin, AdminLimits
from turnout.runtime.budget import Budget
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.fleet import Fleet
from turnout.runtime.gates import HEADER_BYTES_MAX, MessageLimit
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.keeping import Keeper
from turnout.runtime.opening import Opener
from turnout.runtime.ports import ComparisonSink, Journal
from turnout.runtime.shadows import Shadows
from turnout.store import ModelLimits, Repository
from turnout.store.captures import CaptureFolderError, Captures
from turnout.store.journal import SqliteJournal, StateDirectoryError
from turnout.store.memory_journal import MemoryJournal
from turnout.telemetry import settings as telemetry_settings
from turnout.telemetry.logs import LogObserver, start_logging
from turnout.telemetry.masking import new_mask
from turnout.telemetry.ops import Ops, start_ops
from turnout.telemetry.pipeline import Limits, Pipeline, open_pipeline
from turnout.telemetry.sources import Sources
from turnout.telemetry.standard_error import LineWriter
from turnout.telemetry.transitions import Transitions
from turnout.transport.calls import CallLimits
from turnout.transport.catalogue import Catalogue
from turnout.transport.codec import DecodeLimits
from turnout.transport.health import Health
from turnout.transport.inference import InferenceHandlers
from turnout.transport.model_control import ModelControl, control_handlers
from turnout.transport.reflection import Reflection
from turnout.transport.server import ChannelLimits, GrpcServer
from turnout.transport.status import OVERLOAD_CODES, status_table
from turnout.transport.typed import ModelServices

# Where the size of a tensor is open, or models come that are not known yet, this is what tensors of a message may have.
_OPEN_BYTES_MAX = 64 << 20
_MESSAGE_BYTES_MIN = 4 << 20  # gRPC's own default


def start_telemetry(config: Config, log: LineWriter) -> Pipeline:
    mask = new_mask(os.environ, config.otlp_endpoint)
    start_logging(config.log_level, config.log_format, mask=mask)  # it takes what the SDK says of its variables
    limits = Limits(config.trace_slow_ms * 10**6 or 1 << 63, config.trace_captures_per_s_max)
    try:
        settings = telemetry_settings.read(os.environ, config.otlp_endpoint)
        pipeline = open_pipeline(settings, limits, config.server_name, mask)
    except ValueError as error:
        raise StartError(str(error)) from None
    start_logging(config.log_level, config.log_format, pipeline.write_line, mask, log)
    observer = LogObserver()
    for note in settings.notes:
        observer.noticed(note)
    return pipeline


def new_backend(config: Config) -> OnnxBackend:
    trusted = frozenset(digest for digest in config.trusted_digests.split(",") if digest)
    limits = PreflightLimits(config.preflight_memory_bytes_max, config.preflight_timeout_s, trusted)
    return OnnxBackend(
        OnnxOptions(Placement.parse(config.provider), config.intra_op_threads, config.inter_op_threads),
        Preflight(limits) if config.preflight == "on" else None,
    )


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


def new_opener(
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
        variant=config.variant,
        hardware=lambda: Hardware(backend.on_gpu, has_vnni()),
    )


def new_admin(config: Config, opener: Opener, journal: Journal, pipeline: Pipeline) -> Admin:
    shadow = ShadowLimits(config.shadow_queue_max, config.shadow_bytes_max, int(config.shadow_deadline_s * 1e9))
    limits = AdminLimits(config.require_etag, config.slot_memory_bytes_max, int(config.bake_s * 1e9), shadow)
    admin = Admin(opener, repository(config), journal, _steady_time_ns(), secrets.token_hex(4), limits)
    admin.events.listen(Transitions(admin.events, pipeline.events))
    return admin


def _steady_time_ns() -> Callable[[], int]:
    """The time of day as it was at start, and since then as the monotonic clock goes: a bake must not end because
    somebody sets the clock."""
    started_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
    return lambda: started_ns + time.monotonic_ns() - monotonic_ns


def new_ops(config: Config, sources: Sources, opener: Opener) -> Ops:
    host = config.ops_host or config.host
    about = {"service_name": config.server_name, "service_version": __version__}
    try:
        return start_ops(sources, opener.offload, about, host, config.ops_port)
    except OSError as error:
        raise unusable(host, config.ops_port, error, OPS_REMEDY) from None


def new_server(
    config: Config,
    admin: Admin,
    observer: LogObserver,
    message_bytes: int,
    health: Health,
    pipeline: Pipeline,
    shadows: Shadows,
) -> GrpcServer:
    fleet = admin.fleet
    table = status_table(OVERLOAD_CODES[config.overload_code])
    draw = random.Random().randrange  # noqa: S311 - routing, no secret
    dispatcher = Dispatcher(fleet, time.monotonic_ns, draw, config.fallback, shadows)
    decode_limits = DecodeLimits(
        config.bytes_elements_max,
        config.typed_elements_max,
        config.request_names_max,
        config.request_id_characters_max,
    )
    inference = InferenceHandlers(
        dispatcher,
        time.monotonic_ns,
        observer,
        decode_limits,
        CallLimits(config.calls_max, config.transfer_timeout_s, config.answer_bytes_max),
        config.response_identity,
        config.stream_inflight_max,
        admin.counts,
        fleet.under_way,
        pipeline.tracer,
        table,
    )
    control = None
    if config.model_control == "explicit":
        control = ModelControl(admin.operations, admin.requests, admin.limits.bake_ns)
    catalogue = Catalogue(
        fleet, config.server_name, __version__, lambda: health.ready, time.monotonic_ns, control_handlers(control)
    )
    reflection = Reflection()
    models = ModelServices(fleet, inference, decode_limits, table, observer, admin.counts, reflection)
    if config.model_services:
        models.refresh()
        admin.events.listen(models.refresh)
    limits = ChannelLimits(
        message_bytes_max=message_bytes,
        metadata_bytes_max=config.metadata_bytes_max,
        concurrent_streams_max=config.concurrent_streams_max,
        keepalive_interval_ms=config.keepalive_interval_ms,
        keepalive_timeout_ms=config.keepalive_timeout_ms,
        ping_interval_ms_min=config.ping_interval_ms_min,
        connection_age_ms_max=config.connection_age_ms_max,
    )
    counts = admin.counts
    return GrpcServer(inference, catalogue, health, limits, table, observer, counts, reflection, models.handlers)


async def new_shadows(
    config: Config, admin: Admin, observer: LogObserver, sink: ComparisonSink, pipeline: Pipeline
) -> Shadows:
    keeper = None
    if config.shadow_capture_dir is not None:
        captures = Captures(config.shadow_capture_dir, config.shadow_capture_bytes_max)
        try:
            await offload(captures.open)
        except CaptureFolderError as error:
            raise StartError(str(error)) from None
        keeper = Keeper(captures, offload, observer)
    bits = random.Random().getrandbits  # noqa: S311 - which pairs are told, no secret
    now_ns = admin.controller.now_ns
    fleet, tracer = admin.fleet, pipeline.tracer
    total = config.shadow_total_bytes_max
    return Shadows(fleet, time.monotonic_ns, now_ns, offload, observer, bits, sink, keeper, tracer, total)


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


async def open_journal(config: Config) -> MemoryJournal | SqliteJournal:
    if config.state_dir is None:
        return MemoryJournal()
    journal = SqliteJournal(config.state_dir)
    try:
        await offload(journal.open)
    except StateDirectoryError as error:
        raise StartError(str(error)) from None
    return journal
