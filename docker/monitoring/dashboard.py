"""The Grafana dashboard, as data: panels in rows, each with its queries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from monitoring.promql import COUNTED, ERRORS, JOB, MODEL, OUTCOME, SLOT, STAGE, quantile, rate, series, total
from turnout.telemetry import instruments as i
from turnout.telemetry.exposition import label
from turnout.telemetry.instruments import Instrument

_WINDOW = "$__rate_interval"
_WHERE = f'job="{JOB}", instance=~"$instance"'
_WHICH = f'{_WHERE}, {MODEL}=~"$model"'
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_ROW_PANELS = 3  # side by side
_WIDTH, _HEIGHT = 24 // _ROW_PANELS, 8
_SLOT_LEGEND = f"{{{{{MODEL}}}}} {{{{{SLOT}}}}}"


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries`: each with its legend. `needs`: what must be there for it to show anything."""

    title: str
    unit: str  # as Grafana names it
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    stacked: bool = False
    needs: str = ""


def _per_slot(instrument: Instrument, part: str, *matchers: str, more: tuple[str, ...] = ()) -> str:
    return total(rate(series(instrument, _WHICH, *matchers, part=part), _WINDOW), MODEL, SLOT, *more)


def _p(share: float, instrument: Instrument, *matchers: str) -> str:
    return quantile(share, instrument, _WINDOW, (MODEL, SLOT), _WHICH, *matchers)


def _now(instrument: Instrument, *matchers: str) -> str:
    return total(series(instrument, _WHICH, *matchers), MODEL, SLOT)


_ENDED = _per_slot(i.REQUEST_DURATION, "count", f'{OUTCOME}=~"{COUNTED}"')
_FAILED = _per_slot(i.REQUEST_DURATION, "count", f'{OUTCOME}=~"{ERRORS}"')
_SUCCESS = f'{OUTCOME}="success"'
_STAGES = _per_slot(i.STAGE_TIME, "")
_GPU = f"GPU {{{{{label('hw.id')}}}}}"
_STATE = label(i.STATE)
_SHADOW, _KIND, _RESULT = label(i.SHADOW_REVISION), label(i.COMPARISON_KIND), label(i.COMPARISON_RESULT)
_SHADOW_LEGEND = f"{{{{{_SHADOW}}}}}"


def _pairs(results: str) -> str:
    counted = series(i.SHADOW_COMPARISONS, _WHICH, f'{_RESULT}=~"{results}"')
    return total(rate(counted, _WINDOW), MODEL, _SHADOW, _KIND)


_COMPARED = f"({_pairs('match|near_tie|mismatch|shape|shadow_error')} > 0)"
_DISAGREEING = f"({_pairs('mismatch|shape|shadow_error')} or 0 * {_COMPARED})"

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Requests",
        (
            Panel("Requests by slot", "reqps", ((_ENDED, _SLOT_LEGEND),)),
            Panel(
                "Error share by slot",
                "percentunit",
                ((f"({_FAILED} or 0 * {_ENDED}) / ({_ENDED} > 0)", _SLOT_LEGEND),),
                "Failed, expired and rejected requests, of these and those that were answered.",
            ),
            Panel(
                "Latency by slot",
                "s",
                (
                    (_p(0.5, i.REQUEST_DURATION, _SUCCESS), f"{_SLOT_LEGEND} p50"),
                    (_p(0.99, i.REQUEST_DURATION, _SUCCESS), f"{_SLOT_LEGEND} p99"),
                ),
                "From arrival to answer, of answered requests.",
            ),
            Panel(
                "gRPC calls by method and status",
                "reqps",
                (
                    (
                        total(
                            rate(series(i.RPC_DURATION, _WHERE, part="count"), _WINDOW),
                            label(i.RPC_METHOD),
                            label(i.RPC_STATUS),
                        ),
                        f"{{{{{label(i.RPC_METHOD)}}}}} {{{{{label(i.RPC_STATUS)}}}}}",
                    ),
                ),
            ),
            Panel(
                "Refused before any slot",
                "reqps",
                (
                    (
                        total(rate(series(i.REQUEST_REJECTED, _WHERE), _WINDOW), MODEL, label(i.REASON)),
                        f"{{{{{MODEL}}}}} {{{{{label(i.REASON)}}}}}",
                    ),
                ),
            ),
            Panel(
                "Calls under way",
                "short",
                ((total(series(i.CALL_ACTIVE, _WHERE), "instance"), "{{instance}}"),),
            ),
        ),
    ),
    (
        "Batches",
        (
            Panel("Queue", "short", ((_now(i.QUEUE_DEPTH), _SLOT_LEGEND),), "Rows that wait."),
            Panel("Queue time, p99", "s", ((_p(0.99, i.QUEUE_DURATION), _SLOT_LEGEND),)),
            Panel(
                "Batch size",
                "short",
                (
                    (f"{_per_slot(i.BATCH_SIZE, 'sum')} / {_per_slot(i.BATCH_SIZE, 'count')}", _SLOT_LEGEND),
                    (f"max by ({MODEL}, {SLOT}) ({series(i.BATCH_LIMIT, _WHICH)})", f"{_SLOT_LEGEND} limit"),
                ),
                "Rows of a run in the mean, and at most.",
            ),
            Panel(
                "Share of each stage",
                "percentunit",
                (
                    (
                        f"{_per_slot(i.STAGE_TIME, '', more=(STAGE,))}"
                        f" / on ({MODEL}, {SLOT}) group_left () ({_STAGES} > 0)",
                        f"{_SLOT_LEGEND} {{{{{STAGE}}}}}",
                    ),
                ),
                "Where answered requests spent their time.",
                stacked=True,
            ),
            Panel("Model run, p99", "s", ((_p(0.99, i.EXECUTION_DURATION), _SLOT_LEGEND),)),
            Panel("Rows answered", "rowsps", ((_per_slot(i.REQUEST_ROWS, ""), _SLOT_LEGEND),)),
        ),
    ),
    (
        "Slots and traffic",
        (
            Panel(
                "Weights",
                "percentunit",
                (
                    (
                        f"avg by ({MODEL}, {SLOT}, {label(i.WEIGHT_KIND)}) ({series(i.ROUTE_WEIGHT, _WHICH)})",
                        f"{_SLOT_LEGEND} {{{{{label(i.WEIGHT_KIND)}}}}}",
                    ),
                ),
                "As they are wanted, and as routed requests were really sent since the last change.",
            ),
            Panel(
                "Slot states",
                "short",
                (
                    (
                        total(f"{series(i.SLOT_STATE, _WHICH)} == 1", MODEL, SLOT, _STATE),
                        f"{_SLOT_LEGEND} {{{{{_STATE}}}}}",
                    ),
                ),
                "How many servers have the slot in that state.",
            ),
            Panel(
                "Model health",
                "short",
                (
                    (
                        total(f"{series(i.MODEL_HEALTH, _WHICH)} == 1", MODEL, label(i.HEALTH)),
                        f"{{{{{MODEL}}}}} {{{{{label(i.HEALTH)}}}}}",
                    ),
                ),
            ),
            Panel(
                "Changes of traffic",
                "short",
                (
                    (
                        total(
                            f"increase({series(i.SWAP_DURATION, _WHICH, part='count')}[{_WINDOW}])",
                            MODEL,
                            label(i.CHANGE),
                        ),
                        f"{{{{{MODEL}}}}} {{{{{label(i.CHANGE)}}}}}",
                    ),
                ),
                needs="a change of traffic",
            ),
            Panel("Memory of slots", "bytes", ((_now(i.SLOT_MEMORY), _SLOT_LEGEND),)),
            Panel("Requests that hold a slot", "short", ((_now(i.REQUEST_ACTIVE), _SLOT_LEGEND),)),
        ),
    ),
    (
        "Shadow",
        (
            Panel(
                "Disagreement",
                "percentunit",
                ((f"{_DISAGREEING} / {_COMPARED}", f"{_SHADOW_LEGEND} {{{{{_KIND}}}}}"),),
                "Pairs that do not match, of all whose live answer succeeded; noise is the live revision with itself.",
                needs="a shadow rule",
            ),
            Panel(
                "Comparisons by result",
                "ops",
                (
                    (
                        total(rate(series(i.SHADOW_COMPARISONS, _WHICH), _WINDOW), MODEL, _SHADOW, _KIND, _RESULT),
                        f"{_SHADOW_LEGEND} {{{{{_KIND}}}}} {{{{{_RESULT}}}}}",
                    ),
                ),
                needs="a shadow rule",
            ),
            Panel(
                "Dropped copies by reason",
                "ops",
                (
                    (
                        total(rate(series(i.SHADOW_DROPPED, _WHICH), _WINDOW), MODEL, _SHADOW, label(i.DROP_REASON)),
                        f"{_SHADOW_LEGEND} {{{{{label(i.DROP_REASON)}}}}}",
                    ),
                ),
                "Copies that were not compared: nothing live is lost by it.",
                needs="a dropped copy",
            ),
            Panel(
                "Time against the live answer",
                "none",
                tuple(
                    (quantile(share, i.SHADOW_RATIO, _WINDOW, (MODEL, _SHADOW), _WHICH), f"{_SHADOW_LEGEND} {name}")
                    for share, name in ((0.5, "p50"), (0.99, "p99"))
                ),
                "Queue and batch of the copy over those of the live answer.",
                needs="a shadow rule",
            ),
            Panel(
                "Copies on their way",
                "short",
                (
                    (total(series(i.SHADOW_QUEUE_USAGE, _WHICH), MODEL, _SHADOW), _SHADOW_LEGEND),
                    (total(series(i.SHADOW_QUEUE_LIMIT, _WHICH), MODEL, _SHADOW), f"{_SHADOW_LEGEND} limit"),
                ),
                needs="a shadow rule",
            ),
            Panel(
                "Distance of outputs, p90",
                "none",
                (
                    (
                        quantile(
                            0.9,
                            i.SHADOW_DISTANCE,
                            _WINDOW,
                            (MODEL, _SHADOW, label(i.OUTPUT), label(i.DISTANCE_METRIC)),
                            _WHICH,
                        ),
                        f"{_SHADOW_LEGEND} {{{{{label(i.OUTPUT)}}}}} {{{{{label(i.DISTANCE_METRIC)}}}}}",
                    ),
                ),
                needs="a shadow rule",
            ),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "Event loop",
                "s",
                (
                    (quantile(0.99, i.LOOP_LAG, _WINDOW, ("instance",), _WHERE), "{{instance}} p99"),
                    (series(i.LOOP_LAG_MAX, _WHERE), "{{instance}} longest"),
                ),
                "How late it is.",
            ),
            Panel("Resident memory", "bytes", ((series(i.MEMORY_USAGE, _WHERE), "{{instance}}"),)),
            Panel(
                "CPU",
                "short",
                ((total(rate(series(i.CPU_TIME, _WHERE), _WINDOW), "instance"), "{{instance}}"),),
                "Cores in use.",
            ),
            Panel("File descriptors", "short", ((series(i.FILE_DESCRIPTORS, _WHERE), "{{instance}}"),)),
            Panel(
                "Journal failures",
                "short",
                ((f"increase({series(i.JOURNAL_FAILURES, _WHERE)}[$__range])", "{{instance}}"),),
            ),
            Panel("Ready", "short", ((series(i.SERVER_READY, _WHERE), "{{instance}}"),)),
        ),
    ),
    (
        "GPU",
        (
            Panel("GPU busy", "percentunit", ((series(i.GPU_UTILIZATION, _WHERE), _GPU),), needs="a GPU"),
            Panel(
                "GPU memory",
                "bytes",
                (
                    (series(i.GPU_MEMORY_USAGE, _WHERE), _GPU),
                    (series(i.GPU_MEMORY_LIMIT, _WHERE), f"{_GPU} limit"),
                ),
                needs="a GPU",
            ),
            Panel(
                "GPU memory in use", "percentunit", ((series(i.GPU_MEMORY_UTILIZATION, _WHERE), _GPU),), needs="a GPU"
            ),
        ),
    ),
)


def dashboard() -> str:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        place = {"h": 1, "w": 24, "x": 0, "y": top}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        for number, panel in enumerate(row):
            down, across = divmod(number, _ROW_PANELS)
            panels.append(_panel(panel, across * _WIDTH, top + 1 + down * _HEIGHT))
        top += 1 + -(-len(row) // _ROW_PANELS) * _HEIGHT
    for number, each in enumerate(panels, 1):
        each["id"] = number
    content = {
        "uid": "turnout",
        "title": "Turnout",
        "description": "Made from server/turnout/telemetry/instruments.py by `make monitoring`; do not edit.",
        "tags": ["turnout"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }
    return json.dumps(content, indent=2) + "\n"


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if panel.stacked else {"fillOpacity": 0}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": query, "legendFormat": legend, "exemplar": True}
            for n, (query, legend) in enumerate(panel.queries)
        ],
    }


def _variables() -> list[dict[str, Any]]:
    ready, weight = i.SERVER_READY.prometheus, i.SLOT_STATE.prometheus
    found = {
        "instance": f'label_values({ready}{{job="{JOB}"}}, instance)',
        "model": f"label_values({weight}{{{_WHERE}}}, {MODEL})",
    }
    chosen = [
        {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "query": query,
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }
        for name, query in found.items()
    ]
    return [{"name": "datasource", "type": "datasource", "query": "prometheus"}, *chosen]
