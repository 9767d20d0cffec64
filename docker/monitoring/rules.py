"""Prometheus' recording rules and alerts. What alerts go by is recorded, so that a dashboard can show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from monitoring.promql import BY_SLOT, COUNTED, ERRORS, JOB, MODEL, OUTCOME, SLOT, STAGE, quantile, rate, series, total
from turnout.telemetry import instruments as i
from turnout.telemetry.exposition import label

_WINDOW = "5m"
_JOB = f'job="{JOB}"'
_HEAD = "# Made from server/turnout/telemetry/instruments.py by `make monitoring`; do not edit.\n"


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    expression: str

    def as_yaml(self) -> dict[str, Any]:
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True, slots=True)
class Alert:
    """`lasts`: how long it must be so before anybody is called."""

    name: str
    expression: str
    lasts: str
    severity: str  # page: now; ticket: today
    summary: str
    description: str

    def as_yaml(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.description},
        }


def _requests(outcomes: str) -> str:
    ended = series(i.REQUEST_DURATION, _JOB, f'{OUTCOME}=~"{outcomes}"', part="count")
    return total(rate(ended, _WINDOW), *BY_SLOT)


def _p(share: float, instrument: i.Instrument, by: tuple[str, ...], *matchers: str) -> str:
    return quantile(share, instrument, _WINDOW, by, _JOB, *matchers)


_ERROR_RATIO = "turnout:request_error:ratio_rate5m"
_REQUEST_RATE = "turnout:request:rate5m"
_P99 = "turnout:request_duration_seconds:p99_5m"
_QUEUE_FILL = "turnout:queue_fill:ratio"
_LOOP_P99 = "turnout:loop_lag_seconds:p99_5m"
_BATCHES = ("job", "instance", MODEL, SLOT)
_STAGES = rate(series(i.STAGE_TIME, _JOB), _WINDOW)
_BATCH_ROWS = total(rate(series(i.BATCH_SIZE, _JOB, part="sum"), _WINDOW), *_BATCHES)
_BATCH_COUNT = total(rate(series(i.BATCH_SIZE, _JOB, part="count"), _WINDOW), *_BATCHES)
_BATCH_LIMIT = f"max by ({', '.join(_BATCHES)}) ({series(i.BATCH_LIMIT, _JOB)})"
_QUEUED = total(series(i.QUEUE_DEPTH, _JOB), *_BATCHES)

RECORDS: tuple[Record, ...] = (
    Record(_REQUEST_RATE, _requests(COUNTED)),
    # Nothing failed is 0, and not nothing: of failures there is no series before the first one.
    Record(_ERROR_RATIO, f"({_requests(ERRORS)} or 0 * {_requests(COUNTED)}) / ({_requests(COUNTED)} > 0)"),
    Record("turnout:request_duration_seconds:p50_5m", _p(0.5, i.REQUEST_DURATION, BY_SLOT, f'{OUTCOME}="success"')),
    Record(_P99, _p(0.99, i.REQUEST_DURATION, BY_SLOT, f'{OUTCOME}="success"')),
    Record(_QUEUE_FILL, f"{_QUEUED} / on (job, instance) group_left () {series(i.QUEUE_LIMIT, _JOB)}"),
    Record("turnout:batch_fill:ratio_rate5m", f"{_BATCH_ROWS} / {_BATCH_COUNT} / {_BATCH_LIMIT}"),
    Record(
        "turnout:stage_time:ratio_rate5m",
        f"{total(_STAGES, *BY_SLOT, STAGE)} / on ({', '.join(BY_SLOT)}) group_left () ({total(_STAGES, *BY_SLOT)} > 0)",
    ),
    Record(_LOOP_P99, _p(0.99, i.LOOP_LAG, ("job", "instance"))),
)

_WHERE = f"model {{{{ $labels.{MODEL} }}}}, slot {{{{ $labels.{SLOT} }}}}"
_FAILED = series(i.SLOT_STATE, _JOB, f'{label(i.STATE)}="FAILED"')
_WANTED = series(i.ROUTE_WEIGHT, _JOB, f'{label(i.WEIGHT_KIND)}="desired"')
_DEGRADED = series(i.MODEL_HEALTH, _JOB, f'{label(i.HEALTH)}="DEGRADED"')

ALERTS: tuple[Alert, ...] = (
    Alert(
        "TurnoutDown",
        f"up{{{_JOB}}} == 0",
        "1m",
        "page",
        "Turnout on {{ $labels.instance }} cannot be scraped",
        "Its ops port does not answer: the process is gone, or the network.",
    ),
    Alert(
        "TurnoutErrors",
        f"{_ERROR_RATIO} > 0.05 and {_REQUEST_RATE} > 0.1",
        "5m",
        "page",
        f"{_WHERE}: {{{{ $value | humanizePercentage }}}} of requests fail",
        "Failed, expired and rejected ones, over five minutes. Roll back if a change of traffic came before.",
    ),
    Alert(
        "TurnoutSlow",
        f"{_P99} > 1",
        "10m",
        "ticket",
        f"{_WHERE}: p99 is {{{{ $value | humanizeDuration }}}}",
        "From arrival to answer. Set the limit to what this model's clients can wait.",
    ),
    Alert(
        "TurnoutQueueNearLimit",
        f"{_QUEUE_FILL} > 0.8",
        "2m",
        "page",
        f"{_WHERE}: the queue is {{{{ $value | humanizePercentage }}}} full",
        "Requests are refused when it is full: add replicas, or send less.",
    ),
    Alert(
        "TurnoutSlotFailed",
        f"{_FAILED} == 1 and on (job, instance, {MODEL}, {SLOT}) {_WANTED} > 0",
        "1m",
        "page",
        f"{_WHERE} has traffic and is FAILED",
        "Its requests are refused. Roll back, or load the slot again: turnoutctl status says why it failed.",
    ),
    Alert(
        "TurnoutModelDegraded",
        f"{_DEGRADED} == 1",
        "5m",
        "ticket",
        f"model {{{{ $labels.{MODEL} }}}} is DEGRADED",
        "Traffic leads to what is not READY, or a promise could not be kept: turnoutctl status says why.",
    ),
    Alert(
        "TurnoutLoopLag",
        f"{_LOOP_P99} > 0.1",
        "5m",
        "ticket",
        "the event loop on {{ $labels.instance }} is {{ $value | humanizeDuration }} late",
        "Every request waits as long: the CPU is short, or something blocks the loop.",
    ),
    Alert(
        "TurnoutJournalFailing",
        f"increase({series(i.JOURNAL_FAILURES, _JOB)}[{_WINDOW}]) > 0",
        "0m",
        "page",
        "the journal of {{ $labels.instance }} cannot be written",
        "Changes are refused, and a restart may not bring back what is in force: see --state-dir and its disk.",
    ),
)


def recording_rules() -> str:
    return _file("turnout-recording", RECORDS)


def alerts() -> str:
    return _file("turnout-alerts", ALERTS)


def prometheus_rule() -> str:
    """The same for a Prometheus that its operator looks after."""
    groups: dict[str, Iterable[Record | Alert]] = {"turnout-recording": RECORDS, "turnout-alerts": ALERTS}
    content = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "turnout", "labels": {"app.kubernetes.io/name": "turnout"}},
        "spec": {"groups": [{"name": n, "rules": [rule.as_yaml() for rule in rules]} for n, rules in groups.items()]},
    }
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=10_000)


def _file(group: str, rules: Iterable[Record | Alert]) -> str:
    content = {"groups": [{"name": group, "rules": [rule.as_yaml() for rule in rules]}]}
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=10_000)
