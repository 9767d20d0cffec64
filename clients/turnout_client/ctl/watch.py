"""`turnoutctl watch`: a live table on a terminal, in a pipe a line per change, with --json a document per change."""

from __future__ import annotations

import sys
from collections import deque
from functools import partial

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from turnout_client.admin import AdminClient, Watch
from turnout_client.ctl import completion, shapes, tables
from turnout_client.ctl.following import Follower, follow
from turnout_client.ctl.reading import read
from turnout_client.ctl.replicas import ask_all, exit_status
from turnout_client.ctl.report import said
from turnout_client.ctl.session import Session, session_of, session_options
from turnout_wire.gen import slots_pb2 as pb

_LOOK_TIMEOUT_S = 2.0
_EVENTS_SHOWN = 8


@click.command(short_help="Follow changes as they happen; a live table on a terminal.")
@click.argument("model", required=False, shell_complete=completion.models)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two readings of the counts.",
)
@click.option("--for", "for_s", type=click.FloatRange(0), metavar="SECONDS", help="End by itself, with status 0.")
@click.option("--resume-token", default="", help="Go on after this event, which --json has shown; of one server.")
@session_options
@click.pass_context
def watch(context: click.Context, model: str | None, interval: float, for_s: float | None, resume_token: str) -> None:
    """Follow MODEL, or all models, until Ctrl-C. Lost connections are taken up again where they broke off."""
    session = session_of(context)
    if resume_token and len(session.endpoints) > 1:
        raise click.UsageError("a resume token is of one server: name one --endpoint")
    followers = [
        Follower(endpoint, partial(_begin, model or "-"), _token, resume_token) for endpoint in session.endpoints
    ]
    ended = follow(session, followers, _Screen(session, model), interval, for_s)
    sys.exit(exit_status([ended.get(endpoint) for endpoint in session.endpoints]))


def _begin(model: str, client: AdminClient, token: str) -> Watch[pb.ModelEvent]:
    return client.watch(model, token)


def _token(event: pb.ModelEvent) -> str:
    return event.resume_token


class _Screen:
    """Where changes are shown: JSON lines, plain lines, or a table that moves."""

    done = False  # a watch never is

    def __init__(self, session: Session, model: str | None) -> None:
        self._session = session
        self._model = model
        self._recent: deque[str] = deque(maxlen=_EVENTS_SHOWN)
        self._before: dict[str, list[pb.Model]] = {}
        self._live = Live(console=session.out, auto_refresh=False) if session.interactive else None

    def __enter__(self) -> _Screen:
        if self._live is not None:
            self._live.start()
            self.look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, endpoint: str, event: pb.ModelEvent) -> None:
        if self._session.as_json:
            self._session.print_json({"endpoint": endpoint} | shapes.event(event), indent=None)
            return
        for line in _lines(event):
            said = line if len(self._session.endpoints) == 1 else f"{endpoint}  {line}"
            if self._live is None:
                self._session.say(said)
            else:
                self._recent.append(said)

    def note(self, text: str) -> None:
        """What happened to the watch itself."""
        if self._live is None:
            self._session.complain(f"turnoutctl: {text}")
        else:
            self._recent.append(text)

    def look(self) -> None:
        """Reads the counts and draws the table; nothing where there is no terminal."""
        if self._live is None:
            return
        outcomes = ask_all(self._session.endpoints, _LOOK_TIMEOUT_S, lambda client: read(self._model, client))
        rows: dict[str, RenderableType] = {}
        for outcome in outcomes:
            if outcome.value is None:
                rows[outcome.endpoint] = Text(said(outcome.error) if outcome.error else "", "red")
            else:
                rows[outcome.endpoint] = tables.models(outcome.value, self._before.get(outcome.endpoint, ()))
                self._before[outcome.endpoint] = outcome.value
        table = tables.side_by_side(rows) if len(rows) > 1 else next(iter(rows.values()))
        news = [Text(), *(Text(line, "dim") for line in self._recent)] if self._recent else []
        self._live.update(Group(table, *news), refresh=True)


def _lines(event: pb.ModelEvent) -> list[str]:
    model = event.model
    if event.event_type == pb.MODEL_EVENT_TYPE_INITIAL:
        health = pb.Health.Name(model.health).removeprefix("HEALTH_")
        weights = tables.weights_line(model)
        return [f"{tables.clock(model.read_time)}  {tables.printable(model.name)}  {health}, {weights}"]
    if not event.HasField("transition"):
        return []
    change = event.transition
    line = (
        f"{tables.clock(change.time)}  {change.model} {change.object}  "
        f"{change.from_state or tables.NOTHING} → {change.to_state or tables.NOTHING}  {change.cause} by {change.actor}"
    )
    return [tables.printable(line + (f": {change.reason}" if change.reason else ""))]
