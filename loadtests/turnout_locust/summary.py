"""The verdict on a run and its figures: a dictionary for JSON, and the same as lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from locust import log
from locust.env import Environment
from rich.console import Console
from rich.table import Table

from turnout_locust.account import Account, Phase
from turnout_locust.conductor import Conductor
from turnout_locust.options import Options
from turnout_locust.rules import Rule
from turnout_locust.scenarios import Action

SCHEMA = 1
_PERCENTILES = (50, 95, 99)
_FAILURES_SHOWN = 20
_WIDTH = 120


def summarised(
    options: Options, environment: Environment, conductor: Conductor, account: Account, gone: int
) -> dict[str, Any]:
    """All that is told of a run; `ok` is the verdict, `problems` are its reasons. `gone`: processes with users that
    ended before the run did."""
    runner = environment.runner
    assert runner is not None
    phases = [_phase(rule, at_s, account.phases.get(rule.number, Phase())) for at_s, rule in conductor.rules]
    failures = [
        {"type": error.method, "name": error.name, "text": error.parse_error(error.error), "count": error.occurrences}
        for error in sorted(runner.errors.values(), key=lambda error: -error.occurrences)
    ]
    problems = _problems(phases, failures, account)
    if gone:
        problems.append(f"{gone} process(es) with users ended too early, and what they had under way is not known")
    problems += [f"{each['count']} users ended with an exception: {each['msg']}" for each in runner.exceptions.values()]
    if log.unhandled_greenlet_exception:
        problems.append("Locust met an exception of its own; it is in the log above")
    return {
        "schema": SCHEMA,
        "ok": not problems,
        "problems": problems,
        "scenario": options.scenario.name,
        "model": options.model,
        "users": options.users,
        "rate": options.rate,
        "duration_s": options.duration_s,
        "requests": account.begun,
        "lost_track_of": account.under_way,
        "events": [{**asdict(mark), "at_s": round(mark.at_s, 2), "took_ms": round(mark.took_ms, 1)}
                   for mark in conductor.marks],
        "phases": phases,
        "failures": failures,
    }  # fmt: skip


def write(summary: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def shown(summary: dict[str, Any]) -> str:
    """The phases as a table, then the verdict."""
    table = Table(box=None, pad_edge=False)
    for heading, right in (("at", True), ("phase", False), ("answers", False), ("failed", True), ("refused", True)):
        table.add_column(heading, justify="right" if right else "left")
    for percent in _PERCENTILES:
        table.add_column(f"p{percent} ms", justify="right")
    for phase in summary["phases"]:
        if phase["requests"]:
            table.add_row(
                f"{phase['at_s']:.1f} s",
                phase["title"],
                ", ".join(f"{name} {count:,}" for name, count in phase["answers"].items()),
                f"{sum(phase['failures'].values()):,}",
                f"{sum(phase['refused'].values()):,}",
                *(f"{phase[f'p{percent}_ms'] or 0:g}" for percent in _PERCENTILES),
            )
    console = Console(width=_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(f"scenario {summary['scenario']}: {summary['requests']:,} requests, by when they left")
        console.print(table)
        for problem in summary["problems"]:
            console.print(f"FAILED: {problem}", markup=False, soft_wrap=True)
        if summary["ok"]:
            console.print("ok: every answer came, and was that of the revision that it names")
    return captured.get()


def _phase(rule: Rule, at_s: float, phase: Phase) -> dict[str, Any]:
    counts = (phase.answers, phase.failures, phase.refused)
    return {
        "title": rule.title,
        "at_s": round(at_s, 2),
        "allowed": list(rule.allowed),
        "requests": sum(count.total() for count in counts),
        "answers": dict(sorted(phase.answers.items())),
        "failures": dict(phase.failures),
        "refused": dict(phase.refused),
        **{f"p{percent}_ms": phase.percentile_ms(percent) for percent in _PERCENTILES},
    }


def _problems(phases: list[dict[str, Any]], failures: list[dict[str, Any]], account: Account) -> list[str]:
    problems = [
        f"{each['count']:,} x {each['type']} {each['name']}: {each['text']}" for each in failures[:_FAILURES_SHOWN]
    ]
    if rest := sum(each["count"] for each in failures[_FAILURES_SHOWN:]):
        problems.append(f"{rest:,} further failures, see the report")
    if account.under_way:
        problems.append(f"{account.under_way:,} requests were begun, and what became of them is not known")
    if not account.begun:
        problems.append("no request was sent")
    # A change that nobody asked anything after proves nothing, nor does a storm without requests that are too large.
    for phase in phases:
        if phase["title"].startswith("after ") and not phase["answers"] and not phase["failures"]:
            problems.append(f"no request was answered in '{phase['title']}': give the run a longer DURATION=")
        if phase["title"] == Action.STORM.value and not phase["refused"] and not phase["failures"]:
            problems.append("no request was refused in the storm: give the run a longer DURATION=")
    return problems
