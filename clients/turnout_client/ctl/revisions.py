"""`turnoutctl revisions`: what the model repository has of a model, loaded or not, and which variants may serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.table import Table
from rich.text import Text

from turnout_client.admin import AdminClient
from turnout_client.ctl import completion, shapes, tables
from turnout_client.ctl.replicas import Outcome, ask_all
from turnout_client.ctl.report import finish
from turnout_client.ctl.session import session_of, session_options
from turnout_client.plan import held, written
from turnout_wire.gen import slots_pb2 as pb

_TIMEOUT_S = 120.0  # large files are read from end to end


@dataclass(frozen=True, slots=True)
class _Found:
    revisions: Sequence[pb.AvailableRevision]
    slots: dict[str, list[str]]  # by the revision that they hold


@click.command(short_help="What the repository has of a model, and which variants may serve.")
@click.argument("model", shell_complete=completion.models)
@session_options
@click.pass_context
def revisions(context: click.Context, model: str) -> None:
    """Show every version of MODEL that lies in the server's model repository, each followed by its variants: the slots
    that hold it, its size, and of a variant how far its report says that it agrees with its version, how many times
    smaller it is, and whether it stands or why it is refused."""
    session = session_of(context)

    def fetch(client: AdminClient) -> _Found:
        slots: dict[str, list[str]] = {}
        for slot in client.model(model).slots:
            slots.setdefault(held(slot), []).append(slot.name)
        return _Found(client.available(model), slots)

    outcomes = ask_all(session.endpoints, session.timeout_s or _TIMEOUT_S, fetch)

    def show(done: Sequence[Outcome[_Found]]) -> None:
        rows = {outcome.endpoint: _table(outcome.value) for outcome in done if outcome.value is not None}
        if len(session.endpoints) == 1:
            session.out.print(*rows.values())
        else:
            session.out.print(tables.side_by_side(rows))

    finish(session, "revisions", outcomes, _shape, show, model=model)


def _shape(found: _Found) -> dict[str, object]:
    return {
        "revisions": [
            {**shapes.available(each), "slots": found.slots.get(written(each.revision), [])} for each in found.revisions
        ]
    }


def _table(found: _Found) -> Table:
    table = tables.plain_table("revision", "slots", ">MiB", ">agreement", ">smaller", "")
    for each in found.revisions:
        report, name = each.report, written(each.revision)
        table.add_row(
            tables.printable(name),
            ", ".join(map(tables.printable, found.slots.get(name, []))) or tables.NOTHING,
            f"{each.size_bytes / 2**20:.2f}",
            f"{report.agreement * 100:.2f} %" if report.HasField("agreement") else tables.NOTHING,
            f"{report.size_ratio:.2f} x" if report.HasField("size_ratio") else tables.NOTHING,
            _standing(each),
        )
    return table


def _standing(each: pb.AvailableRevision) -> Text:
    if each.problem:
        return Text(tables.printable(each.problem), "red")
    if each.doubts:
        return Text(f"refused: {tables.printable('; '.join(each.doubts))}", "yellow")
    return Text("stands" if each.revision.variant else "", "green")
