"""The metrics of NVIDIA Triton, under its names and labels, so that its dashboards and autoscalers work unchanged.

Only for Prometheus. A version's slots are added up. https://github.com/triton-inference-server/server/blob/main/docs/
user_guide/metrics.md has their meanings.
"""

from __future__ import annotations

from collections.abc import Iterator

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


class TritonReadings:
    """A source of readings."""

    def __init__(self, fleet: Fleet, accounts: Accounts) -> None:
        self._fleet = fleet
        self._accounts = accounts

    def __call__(self) -> Iterator[Reading]:
        accounts: dict[tuple[str, str], Account] = {}
        for load in self._accounts:
            key = (load.revision.model, str(load.revision.version))
            accounts[key] = accounts.get(key, Account()).plus(load.account)
        values: dict[Instrument, list[Value]] = {instrument: [] for instrument in TRITON_INSTRUMENTS}
        responses = []
        for key, account in accounts.items():
            done = account.tally(Outcome.SUCCESS)
            values[SUCCESS].append(Value(key, done.requests))
            failures = dict.fromkeys(_REASONS.values(), 0)
            for outcome, reason in _REASONS.items():
                failures[reason] += account.routed[outcome].requests + account.pinned[outcome].requests
            values[FAILURE] += [Value((*key, reason), count) for reason, count in failures.items()]
            values[COUNT].append(Value(key, done.rows))
            values[EXEC_COUNT].append(Value(key, sum(batch.runs for batch in account.batches.values())))
            values[REQUEST_US].append(Value(key, done.duration_ns * _US))
            values[QUEUE_US].append(Value(key, done.queue_ns * _US))
            values[INPUT_US].append(Value(key, done.compute_input_ns * _US))
            values[INFER_US].append(Value(key, done.compute_infer_ns * _US))
            values[OUTPUT_US].append(Value(key, done.compute_output_ns * _US))
            responses.append(Distribution(key, done.durations, done.duration_ns * _MS, part=_MS))
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
