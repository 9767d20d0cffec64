"""Every metric that Turnout has: its name, unit, meaning and attributes, once.

Exporters, dashboards, alerts and the table in the documentation are made from this; tests hold what is exported
against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from turnout.runtime.account import BOUNDS_NS


class Kind(Enum):
    COUNTER = "counter"  # only grows
    GAUGE = "gauge"  # a value of now
    HISTOGRAM = "histogram"


SECONDS = tuple(ns / 1e9 for ns in BOUNDS_NS)
DISTANCES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 100.0)
RATIOS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric.

    Attributes:
        name: OpenTelemetry's: dotted, without a unit.
        unit: as UCUM writes it: `s`, `By`, `1`, `{request}`.
        bounds: of a histogram, in its unit: upper bounds, inclusive, without infinity.
        foreign: the name is Prometheus' and stays as it is: it belongs to somebody else.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    foreign: bool = False

    @property
    def prometheus(self) -> str:
        """The name as OpenTelemetry's mapping to Prometheus has it: with the unit, and `_total` for counters."""
        if self.foreign:
            return self.name
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        ratio = "_ratio" if self.unit == "1" and self.kind is Kind.GAUGE else ""
        total = "_total" if self.kind is Kind.COUNTER else ""
        return self.name.replace(".", "_") + unit + ratio + total


MODEL = "turnout.model.name"
SLOT = "turnout.slot"
REVISION = "turnout.revision"
OUTCOME = "turnout.outcome"  # success invalid rejected expired cancelled failed
PINNED = "turnout.pinned"  # whether the request was pinned, or answered in another slot's place
STAGE = "turnout.stage"  # queue compute_input compute_infer compute_output
STATE = "turnout.slot.state"
WEIGHT_KIND = "turnout.weight.kind"  # desired actual
LIVE_REVISION = "turnout.live.revision"
SHADOW_REVISION = "turnout.shadow.revision"
COMPARISON_KIND = "turnout.comparison.kind"  # shadow noise
COMPARISON_RESULT = "turnout.comparison.result"  # match near_tie mismatch shape live_error shadow_error both_error
OUTPUT = "turnout.output.name"  # _OTHER: beyond the first 8 of a revision
DISTANCE_METRIC = "turnout.distance.metric"  # max_abs max_rel js cosine
# queue_full budget payload_too_large deadline overload not_ready unresolved classified
DROP_REASON = "turnout.drop.reason"
REASON = "turnout.reason"  # invalid_request not_found not_ready queue_full deadline_exceeded unsupported ...
CHANGE = "turnout.change"  # swap weights rollback
HEALTH = "turnout.health"  # HEALTHY PROGRESSING DEGRADED
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
ERROR_TYPE = "error.type"  # the same, where it is not OK
CPU_MODE = "cpu.mode"  # user system
GC_GENERATION = "cpython.gc.generation"

_LOADED = (MODEL, SLOT, REVISION)

REQUEST_DURATION = Instrument(
    "turnout.request.duration",
    Kind.HISTOGRAM,
    "s",
    "From the arrival of a request at its slot to its end; pinned: it was pinned, or answered in another slot's place.",
    (*_LOADED, OUTCOME, PINNED),
    SECONDS,
)
QUEUE_DURATION = Instrument(
    "turnout.queue.duration",
    Kind.HISTOGRAM,
    "s",
    "How long requests that were answered waited for their batch.",
    (*_LOADED, PINNED),
    SECONDS,
)
EXECUTION_DURATION = Instrument(
    "turnout.execution.duration", Kind.HISTOGRAM, "s", "One run of the model, a batch each.", _LOADED, SECONDS
)
BATCH_SIZE = Instrument("turnout.batch.size", Kind.HISTOGRAM, "{row}", "Rows of a batch that was run.", _LOADED, ROWS)
BATCH_LIMIT = Instrument("turnout.batch.limit", Kind.GAUGE, "{row}", "The largest batch that the slot runs.", _LOADED)
REQUEST_ROWS = Instrument(
    "turnout.request.rows", Kind.COUNTER, "{row}", "Rows of requests that were answered.", _LOADED
)
STAGE_TIME = Instrument(
    "turnout.stage.time",
    Kind.COUNTER,
    "s",
    "Time that answered requests spent in each stage; a request's compute stages are its whole batch's.",
    (*_LOADED, STAGE),
)
REQUEST_ACTIVE = Instrument(
    "turnout.request.active", Kind.GAUGE, "{request}", "Requests under way that keep the slot loaded.", _LOADED
)
QUEUE_DEPTH = Instrument("turnout.queue.depth", Kind.GAUGE, "{row}", "Rows that wait in the slot's queue.", _LOADED)
QUEUE_LIMIT = Instrument("turnout.queue.limit", Kind.GAUGE, "{row}", "Rows that a slot's queue takes.")
SLOT_STATE = Instrument(
    "turnout.slot.state",
    Kind.GAUGE,
    "{slot}",
    "1 for the state that the slot is in, 0 for the others.",
    (MODEL, SLOT, STATE),
)
SLOT_MEMORY = Instrument(
    "turnout.slot.memory", Kind.GAUGE, "By", "What the slot's revision takes, as far as it is known.", _LOADED
)
ROUTE_GENERATION = Instrument(
    "turnout.route.generation", Kind.GAUGE, "{generation}", "Counts the changes of a model's route.", (MODEL,)
)
ROUTE_WEIGHT = Instrument(
    "turnout.route.weight",
    Kind.GAUGE,
    "1",
    "The slot's share of its model's routed traffic, 0 to 1: as it is wanted, and as it is since the last change.",
    (MODEL, SLOT, WEIGHT_KIND),
)

MODEL_HEALTH = Instrument(
    "turnout.model.health",
    Kind.GAUGE,
    "{model}",
    "1 for what the admin service says of the model, 0 for the others.",
    (MODEL, HEALTH),
)
SLOT_TRANSITIONS = Instrument(
    "turnout.slot.transitions", Kind.COUNTER, "{transition}", "How often a slot entered a state.", (MODEL, SLOT, STATE)
)
SWAP_DURATION = Instrument(
    "turnout.swap.duration",
    Kind.HISTOGRAM,
    "s",
    "From the call of a change of traffic until requests see it.",
    (MODEL, CHANGE),
    SECONDS,
)
JOURNAL_FAILURES = Instrument(
    "turnout.journal.failures", Kind.COUNTER, "{failure}", "Writes to the journal that failed."
)
REQUEST_REJECTED = Instrument(
    "turnout.request.rejected",
    Kind.COUNTER,
    "{request}",
    "Requests that were refused before any slot saw them; the model is _OTHER where there is none of that name.",
    (MODEL, REASON),
)
RPC_DURATION = Instrument(
    "rpc.server.call.duration",
    Kind.HISTOGRAM,
    "s",
    "From the start of a call's handler to its end, of all gRPC methods; a stream is one call.",
    (RPC_SYSTEM, RPC_METHOD, RPC_STATUS, ERROR_TYPE),
    SECONDS,
)
CALL_ACTIVE = Instrument("turnout.call.active", Kind.GAUGE, "{call}", "Inference calls and streams under way.")
ANSWER_UNREAD = Instrument("turnout.answer.unread", Kind.GAUGE, "By", "Answers that clients have not read yet.")
SERVER_READY = Instrument("turnout.server.ready", Kind.GAUGE, "{server}", "1 while /readyz says so, else 0.")
SHADOW_COMPARISONS = Instrument(
    "turnout.shadow.comparisons",
    Kind.COUNTER,
    "{comparison}",
    "Pairs of answers that were compared.",
    (MODEL, LIVE_REVISION, SHADOW_REVISION, COMPARISON_KIND, COMPARISON_RESULT),
)
SHADOW_DISTANCE = Instrument(
    "turnout.shadow.output.distance",
    Kind.HISTOGRAM,
    "1",
    "How far an output of the shadow is from the live one, by each metric that makes sense for it.",
    (MODEL, SHADOW_REVISION, OUTPUT, DISTANCE_METRIC),
    DISTANCES,
)
SHADOW_DURATION = Instrument(
    "turnout.shadow.duration",
    Kind.HISTOGRAM,
    "s",
    "What a copy took in the shadow slot, in its queue and in its batch.",
    (MODEL, SHADOW_REVISION),
    SECONDS,
)
SHADOW_RATIO = Instrument(
    "turnout.shadow.duration.ratio",
    Kind.HISTOGRAM,
    "1",
    "That over what the live answer took.",
    (MODEL, SHADOW_REVISION),
    RATIOS,
)
SHADOW_DROPPED = Instrument(
    "turnout.shadow.dropped",
    Kind.COUNTER,
    "{request}",
    "Copies that were not compared.",
    (MODEL, SHADOW_REVISION, DROP_REASON),
)
SHADOW_QUEUE_USAGE = Instrument(
    "turnout.shadow.queue.usage", Kind.GAUGE, "{request}", "Copies on their way.", (MODEL, SHADOW_REVISION)
)
SHADOW_QUEUE_LIMIT = Instrument(
    "turnout.shadow.queue.limit", Kind.GAUGE, "{request}", "Copies that may be on their way.", (MODEL, SHADOW_REVISION)
)
LOOP_LAG = Instrument(
    "turnout.loop.lag", Kind.HISTOGRAM, "s", "How late the event loop was for a timer, ten times a second.", (), SECONDS
)
LOOP_LAG_MAX = Instrument("turnout.loop.lag.max", Kind.GAUGE, "s", "The longest such delay of the last minute.")
CPU_TIME = Instrument("process.cpu.time", Kind.COUNTER, "s", "CPU time of the process.", (CPU_MODE,))
MEMORY_USAGE = Instrument("process.memory.usage", Kind.GAUGE, "By", "Resident memory of the process.")
FILE_DESCRIPTORS = Instrument(
    "process.unix.file_descriptor.count", Kind.GAUGE, "{file_descriptor}", "Open file descriptors of the process."
)
THREADS = Instrument("process.thread.count", Kind.GAUGE, "{thread}", "Threads of the process.")
UPTIME = Instrument("process.uptime", Kind.GAUGE, "s", "For how long the process has run.")
GC_COLLECTIONS = Instrument(
    "cpython.gc.collections", Kind.COUNTER, "{collection}", "Runs of Python's garbage collector.", (GC_GENERATION,)
)
_GPU = ("hw.id", "hw.model", "hw.vendor", "hw.driver_version")
GPU_UTILIZATION = Instrument(
    "hw.gpu.utilization", Kind.GAUGE, "1", "Share of the time in which the GPU ran any kernel, 0 to 1.", _GPU
)
GPU_MEMORY_USAGE = Instrument("hw.gpu.memory.usage", Kind.GAUGE, "By", "Memory in use, of all processes.", _GPU)
GPU_MEMORY_LIMIT = Instrument("hw.gpu.memory.limit", Kind.GAUGE, "By", "Memory that the GPU has.", _GPU)
GPU_MEMORY_UTILIZATION = Instrument(
    "hw.gpu.memory.utilization", Kind.GAUGE, "1", "Share of the GPU's memory in use, 0 to 1.", _GPU
)

INSTRUMENTS: tuple[Instrument, ...] = (
    RPC_DURATION,
    CALL_ACTIVE,
    ANSWER_UNREAD,
    REQUEST_REJECTED,
    REQUEST_DURATION,
    QUEUE_DURATION,
    EXECUTION_DURATION,
    BATCH_SIZE,
    BATCH_LIMIT,
    REQUEST_ROWS,
    STAGE_TIME,
    REQUEST_ACTIVE,
    QUEUE_DEPTH,
    QUEUE_LIMIT,
    SLOT_STATE,
    SLOT_TRANSITIONS,
    SLOT_MEMORY,
    ROUTE_GENERATION,
    ROUTE_WEIGHT,
    MODEL_HEALTH,
    SWAP_DURATION,
    JOURNAL_FAILURES,
    SERVER_READY,
    SHADOW_COMPARISONS,
    SHADOW_DISTANCE,
    SHADOW_DURATION,
    SHADOW_RATIO,
    SHADOW_DROPPED,
    SHADOW_QUEUE_USAGE,
    SHADOW_QUEUE_LIMIT,
    LOOP_LAG,
    LOOP_LAG_MAX,
    CPU_TIME,
    MEMORY_USAGE,
    FILE_DESCRIPTORS,
    THREADS,
    UPTIME,
    GC_COLLECTIONS,
    GPU_UTILIZATION,
    GPU_MEMORY_USAGE,
    GPU_MEMORY_LIMIT,
    GPU_MEMORY_UTILIZATION,
)
