"""How a command ends: all results in one table or one JSON document, refusals with their next step, exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from rich.text import Text

from turnout_client.ctl import shapes
from turnout_client.ctl.advice import next_step
from turnout_client.ctl.replicas import Exit, Outcome, exit_status
from turnout_client.ctl.session import Session
from turnout_client.ctl.tables import plain_table, printable
from turnout_client.errors import AdminError

T = TypeVar("T")


def finish(
    session: Session,
    command: str,
    outcomes: Sequence[Outcome[T]],
    shape: Callable[[T], Mapping[str, Any]],
    show: Callable[[Sequence[Outcome[T]]], None],
    **known: str,
) -> NoReturn:
    """Print what came of it and exit.

    Args:
        shape: a result as JSON.
        show: prints all outcomes; of one server, only if it has a value.
        known: names for the next steps (model, slot, request_id).
    """
    status = exit_status([outcome.error for outcome in outcomes])
    if session.as_json:
        session.print_json(document(command, status, [_replica(outcome, shape, known) for outcome in outcomes]))
    else:
        if len(outcomes) > 1 or status == Exit.OK:
            show(outcomes)
        for outcome in outcomes:
            if outcome.error is not None:
                complain(session, outcome.endpoint, outcome.error, **known)
    sys.exit(status)


def document(command: str, status: Exit, replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What --json prints, for every command but `watch`."""
    return {"command": command, "ok": status == Exit.OK, "exit_status": int(status), "replicas": list(replicas)}


def _replica(outcome: Outcome[T], shape: Callable[[T], Mapping[str, Any]], known: Mapping[str, str]) -> dict[str, Any]:
    head = {"endpoint": outcome.endpoint, "ok": outcome.error is None, "elapsed_ms": outcome.elapsed_ns / 1e6}
    if outcome.error is not None:
        return head | {"error": shapes.error(outcome.error, **known)}
    assert outcome.value is not None
    return head | {"result": dict(shape(outcome.value))}


def complain(session: Session, endpoint: str, error: AdminError, **known: str) -> None:
    """A refusal on standard error: who, why, which field, and what to do next."""
    session.complain(f"turnoutctl: {endpoint}: {error.reason or error.code}: {printable(said(error))}")
    for field, description in error.fields:
        if description not in error.message:
            session.complain(f"  {field}: {printable(description)}")
    if step := next_step(error, **known):
        session.complain(f"  next: {step}")


def said(error: AdminError) -> str:
    """The message; of gRPC's own about a connection, the part that tells something."""
    if error.unreachable and ": " in error.message:
        return "no connection: " + error.message.rpartition(": ")[2]
    return error.message


def show_changes(session: Session, outcomes: Sequence[Outcome[T]], line: Callable[[T], str]) -> None:
    """One sentence for one server, a table for several."""
    if len(outcomes) == 1:
        for outcome in outcomes:
            if outcome.value is not None:
                session.say(f"{line(outcome.value)}, in {_took(outcome)}")
        return
    table = plain_table("endpoint", "result", ">in")
    for outcome in outcomes:
        if outcome.value is not None:
            table.add_row(outcome.endpoint, line(outcome.value), _took(outcome))
        elif outcome.error is not None:
            what = (
                "no answer" if outcome.error.unreachable else f"refused, {outcome.error.reason or outcome.error.code}"
            )
            table.add_row(outcome.endpoint, Text(what, "red"), "")
    session.out.print(table)


def _took(outcome: Outcome[T]) -> str:
    """With the time to connect."""
    took_ms = outcome.elapsed_ns / 1e6
    return f"{took_ms:.1f} ms" if took_ms < 1000 else f"{took_ms / 1e3:.1f} s"
