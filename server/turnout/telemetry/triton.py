"""The metrics of NVIDIA Triton, under its names and labels, so that its dashboards and autoscalers work unchanged.

Only for Prometheus. A version's slots are added up. https://github.com/triton-inference-server/server/blob/main/docs/
user_guide/metrics.md has their meanings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from turnout.core.sketch import Sketch
from turnout.runtime.account import BOUNDS_NS, Account, Accounts, Outcome
from turnout.runtime.fleet import Fleet
from turnout.telemetry.instruments import Instrument, Kind
from turnout.telemetry.readings import Distribution, Reading, Value

_LABELS = ("model", "version")
_US = 1e-3  # of a nanosecond
_MS = 1e-6


def _counter(name: str, unit: str, meaning: str, *more: str) -> Instrument:
    return Instrument(f"nv_inference_{name}", Kind.COUNTER, unit, meaning, (*_LABELS, *more), foreign=True)


SUCCESS = _counter("request_success", "{request}", "Requests that were answered.")
FAILURE = _counter(
    "request_failure", "{request}", "Requests that were not: REJECTED, CANCELED, BACKEND or OTHER.", "reason"
)
COUNT = _counter("count", "{row}", "Rows of the requests that were answered.")
EXEC_COUNT = _counter("exec_count", "{batch}", "Runs of the model, a batch each.")
REQUEST_US = _counter("request_duration_us", "us", "Time from arrival to answer, of answered requests.")
QUEUE_US = _counter("queue_duration_us", "us", "Of that, in the queue.")
INPUT_US = _counter("compute_input_duration_us", "us", "Of that, while inputs were put together.")
INFER_US = _counter("compute_infer_duration_us", "us", "Of that, while the model ran.")
OUTPUT_US = _counter("compute_output_duration_us", "us", "Of that, while outputs were taken apart.")
PENDING = Instrument(
    "nv_inference_pending_request_count", Kind.GAUGE, "{row}", "Rows that wait to be run.", _LABELS, foreign=True
)
FIRST_RESPONSE = Instrument(
    "nv_inference_first_response_histogram_ms",
    Kind.HISTOGRAM,
    "ms",
    "Time from arrival to answer, of answered requests.",
    _LABELS,
    tuple(ns / 1e6 for ns in BOUNDS_NS),
    foreign=True,
)
TRITON_INSTRUMENTS: tuple[Instrument, ...] = (
    SUCCESS,
    FAILURE,
    COUNT,
    EXEC_COUNT,
    PENDING,
    REQUEST_US,
    QUEUE_US,
    INPUT_US,
    INFER_US,
    OUTPUT_US,
    FIRST_RESPONSE,
)

_REASONS = {
    Outcome.REJECTED: "REJECTED",
    Outcome.EXPIRED: "REJECTED",  # Triton's queue rejects what has waited too long
    Outcome.CANCELLED: "CANCELED",
    Outcome.FAILED: "BACKEND",
    Outcome.INVALID: "OTHER",
}

_TIMES = {
    REQUEST_US: "duration_ns",
    QUEUE_US: "queue_ns",
    INPUT_US: "compute_input_ns",
    INFER_US: "compute_infer_ns",
    OUTPUT_US: "compute_output_ns",
}


class TritonReadings:
    """A source of readings."""

    def __init__(self, fleet: Fleet, accounts: Accounts) -> None:
        self._fleet = fleet
        self._accounts = accounts

    def __call__(self) -> Iterator[Reading]:
        accounts: dict[tuple[str, str], list[Account]] = {}
        for load in self._accounts:
            accounts.setdefault((load.revision.model, str(load.revision.version)), []).append(load.account)
        values: dict[Instrument, list[Value]] = {instrument: [] for instrument in TRITON_INSTRUMENTS}
        responses = []
        for key, parts in accounts.items():
            done = [tallies[Outcome.SUCCESS] for part in parts for tallies in (part.routed, part.pinned)]
            values[SUCCESS].append(Value(key, sum(tally.requests for tally in done)))
            values[FAILURE] += [Value((*key, reason), count) for reason, count in _failures(parts).items()]
            values[COUNT].append(Value(key, sum(tally.rows for tally in done)))
            runs = sum(batch.runs for part in parts for batch in part.batches.values())
            values[EXEC_COUNT].append(Value(key, runs))
            for instrument, name in _TIMES.items():
                values[instrument].append(Value(key, sum(getattr(tally, name) for tally in done) * _US))
            sketch = Sketch()
            for tally in done:
                sketch = sketch.merged(tally.durations)
            total_ms = sum(tally.duration_ns for tally in done) * _MS
            responses.append(Distribution(key, sketch, total_ms, part=_MS))
        values[PENDING] = [Value(key, rows) for key, rows in self._queued().items()]
        for instrument in TRITON_INSTRUMENTS[:-1]:
            yield Reading(instrument, tuple(values[instrument]))
        yield Reading(FIRST_RESPONSE, tuple(responses))

    def _queued(self) -> dict[tuple[str, str], int]:
        rows: dict[tuple[str, str], int] = {}
        for model in self._fleet:
            for slot in model.slots.values():
                if slot.cargo is not None:
                    key = (model.name, str(slot.cargo.revision.version))
                    rows[key] = rows.get(key, 0) + slot.cargo.batcher.queued_rows
        return rows


def _failures(accounts: Sequence[Account]) -> dict[str, int]:
    found = dict.fromkeys(_REASONS.values(), 0)
    for outcome, reason in _REASONS.items():
        found[reason] += sum(a.routed[outcome].requests + a.pinned[outcome].requests for a in accounts)
    return found
