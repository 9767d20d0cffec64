"""`turnoutctl status` and `history`: what is, and what was done."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import partial

import click

from turnout_client.admin import AdminClient
from turnout_client.ctl import completion, shapes, tables
from turnout_client.ctl.replicas import Outcome, ask_all
from turnout_client.ctl.report import finish
from turnout_client.ctl.session import Session, session_of, session_options
from turnout_wire.gen import slots_pb2 as pb

_TIMEOUT_S = 10.0

Readings = tuple[list[pb.Model], list[pb.Model]]  # earlier, now


@click.command(short_help="Models, slots, weights, rates, latencies.")
@click.argument("model", required=False, shell_complete=completion.models)
@click.option(
    "--interval",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between the two readings that requests per second come from; 0: one reading, no rates.",
)
@session_options
@click.pass_context
def status(context: click.Context, model: str | None, interval: float) -> None:
    """Show what each slot holds, its state, the share of the traffic that it should get and gets, requests per
    second, latencies of routed requests, and errors. A state marked * is kept for a rollback."""
    session = session_of(context)
    outcomes = ask_all(session.endpoints, session.timeout_s or _TIMEOUT_S, partial(read_twice, model, interval))
    finish(session, "status", outcomes, _shape, partial(_show_status, session), model=model or "")


def read(model: str | None, client: AdminClient) -> list[pb.Model]:
    return [client.model(model)] if model else client.models()


def read_twice(model: str | None, interval_s: float, client: AdminClient) -> Readings:
    first = read(model, client)
    if not interval_s:
        return [], first
    time.sleep(interval_s)
    return first, read(model, client)


def _shape(readings: Readings) -> dict[str, object]:
    before, now = readings
    earlier = {model.name: model for model in before}
    shown = []
    for model in now:
        shape = shapes.model(model)
        rates = tables.rates_per_s(model, earlier.get(model.name))
        for slot in shape["slots"]:
            slot["requests_per_s"] = rates.get(slot["name"])
        shown.append(shape)
    return {"models": shown}


def _show_status(session: Session, outcomes: Sequence[Outcome[Readings]]) -> None:
    rows = {o.endpoint: tables.models(o.value[1], o.value[0]) for o in outcomes if o.value is not None}
    if len(session.endpoints) == 1:
        session.out.print(*rows.values())
    else:
        session.out.print(tables.side_by_side(rows))


@click.command(short_help="What was done, by whom, why and when.")
@click.argument("model", required=False, shell_complete=completion.models)
@click.option("--limit", "-n", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
@click.option("--since", type=click.IntRange(0), default=0, metavar="SEQ", help="Only what came after this one.")
@click.option("--slot", help="Only what happened to this slot.", shell_complete=completion.slots)
@click.option("--route", is_flag=True, help="Only changes of the traffic.")
@click.option("--cause", help="Only these: start, restart, load, unload, swap, weights, shadow, rollback, ...")
@session_options
@click.pass_context
def history(
    context: click.Context, model: str | None, limit: int, since: int, slot: str | None, route: bool, cause: str | None
) -> None:
    """Show the journal, newest first."""
    session = session_of(context)
    if slot and route:
        raise click.UsageError("--slot or --route, not both")
    wanted_objects = (f"slots/{slot}", f"shadows/{slot}") if slot else ("route",) if route else ()

    def fetch(client: AdminClient) -> list[pb.Transition]:
        found = (
            each
            for each in client.transitions(model or "", since)
            if (not wanted_objects or each.object in wanted_objects) and cause in (None, each.cause)
        )
        return list(itertools.islice(found, limit))

    outcomes = ask_all(session.endpoints, session.timeout_s or _TIMEOUT_S, fetch)

    def show(done: Sequence[Outcome[list[pb.Transition]]]) -> None:
        rows = {o.endpoint: tables.transitions(o.value, model is None) for o in done if o.value is not None}
        session.out.print(*rows.values()) if len(session.endpoints) == 1 else session.out.print(
            tables.side_by_side(rows)
        )

    finish(
        session,
        "history",
        outcomes,
        lambda found: {"transitions": [shapes.transition(each) for each in found]},
        show,
        model=model or "",
    )
