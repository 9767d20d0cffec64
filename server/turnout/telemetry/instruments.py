"""Every metric that Turnout has: its name, unit, meaning and attributes, once.

Exporters, dashboards, alerts and the table in the documentation are made from this; tests hold what is exported
against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    COUNTER = "counter"  # only grows
    GAUGE = "gauge"  # a value of now
    HISTOGRAM = "histogram"


# Seconds. Those of OpenTelemetry's RPC conventions, and finer ones below: small models answer in less than 1 ms.
SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric.

    Attributes:
        name: OpenTelemetry's: dotted, without a unit.
        unit: as UCUM writes it: `s`, `By`, `1`, `{request}`.
        bounds: of a histogram, in its unit: upper bounds, inclusive, without infinity.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def prometheus(self) -> str:
        """The name as OpenTelemetry's mapping to Prometheus has it: with the unit, and `_total` for counters."""
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        ratio = "_ratio" if self.unit == "1" and self.kind is Kind.GAUGE else ""
        total = "_total" if self.kind is Kind.COUNTER else ""
        return self.name.replace(".", "_") + unit + ratio + total


MODEL = "turnout.model.name"
SLOT = "turnout.slot"
REVISION = "turnout.revision"
OUTCOME = "turnout.outcome"  # success invalid rejected expired cancelled failed
PINNED = "turnout.pinned"  # whether the request said who shall answer
STAGE = "turnout.stage"  # queue compute_input compute_infer compute_output
STATE = "turnout.slot.state"
WEIGHT_KIND = "turnout.weight.kind"  # desired actual

_LOADED = (MODEL, SLOT, REVISION)

REQUEST_DURATION = Instrument(
    "turnout.request.duration",
    Kind.HISTOGRAM,
    "s",
    "From the arrival of a request at its slot to its end.",
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
    "1",
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

INSTRUMENTS: tuple[Instrument, ...] = (
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
    SLOT_MEMORY,
    ROUTE_GENERATION,
    ROUTE_WEIGHT,
)
