"""`turnoutctl watch`: a live table on a terminal, a line per change in a pipe, a JSON document per change with --json.

One thread per server follows its events, and comes back with the last resume token when the connection was lost.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from turnout_client.admin import AdminClient, Watch
from turnout_client.ctl import completion, shapes, tables
from turnout_client.ctl.reading import read
from turnout_client.ctl.replicas import ask_all, exit_status
from turnout_client.ctl.report import complain, said
from turnout_client.ctl.session import Session, session_of, session_options
from turnout_client.errors import AdminError
from turnout_wire.gen import slots_pb2 as pb

_STOP_S_MAX = 10.0
_LOOK_TIMEOUT_S = 2.0
_AGAIN_S = 1.0
_EVENTS_SHOWN = 8
_EVENTS_WAITING = 10_000


@dataclass(frozen=True, slots=True)
class _News:
    """An event of one server, or the error that ended its watch; `lost`: it will be tried again."""

    endpoint: str
    event: pb.ModelEvent | None = None
    error: AdminError | None = None
    lost: bool = False


@dataclass
class _Follower:
    """Follows one server until it is stopped, or refuses."""

    endpoint: str
    model: str
    token: str
    news: queue.Queue[_News]
    stopped: threading.Event = field(default_factory=threading.Event)
    _watch: Watch | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopped.set()
        if self._watch is not None:
            self._watch.cancel()
        if self._thread is not None:
            self._thread.join(_STOP_S_MAX)

    def _follow(self) -> None:
        answered = False
        with AdminClient(self.endpoint) as client:
            while not self.stopped.is_set():
                try:
                    self._watch = client.watch(self.model, self.token)
                    for event in self._watch:
                        answered = True
                        self.token = event.resume_token or self.token
                        self.news.put(_News(self.endpoint, event))
                except AdminError as error:
                    expired = error.reason == "TOKEN_EXPIRED" and bool(self.token)
                    again = expired or (answered and error.code == "UNAVAILABLE")
                    self.news.put(_News(self.endpoint, None, error, again))
                    if not again:
                        return
                    self.token = "" if expired else self.token
                self.stopped.wait(_AGAIN_S)


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
    news: queue.Queue[_News] = queue.Queue(_EVENTS_WAITING)
    followers = [_Follower(endpoint, model or "-", resume_token, news) for endpoint in session.endpoints]
    screen = _Screen(session, model, interval)
    end = time.monotonic() + for_s if for_s is not None else float("inf")
    ended: dict[str, AdminError] = {}
    for follower in followers:
        follower.start()
    try:
        with screen:
            while time.monotonic() < end and len(ended) < len(followers):
                _take(session, screen, news, min(interval, max(end - time.monotonic(), 0)), ended)
    except KeyboardInterrupt:
        pass  # how a watch ends
    finally:
        for follower in followers:
            follower.stop()
    sys.exit(exit_status([ended.get(endpoint) for endpoint in session.endpoints]))


def _take(
    session: Session, screen: _Screen, news: queue.Queue[_News], wait_s: float, ended: dict[str, AdminError]
) -> None:
    """What has come within `wait_s`, and a look at the counts."""
    until = time.monotonic() + wait_s
    while (left := until - time.monotonic()) >= 0:
        try:
            each = news.get(timeout=max(left, 0.001))
        except queue.Empty:
            break
        if each.event is not None:
            screen.event(each.endpoint, each.event)
        elif each.error is not None and each.lost:
            screen.note(f"{each.endpoint}: {said(each.error)}; trying again")
        elif each.error is not None:
            ended[each.endpoint] = each.error
            complain(session, each.endpoint, each.error)
            if len(ended) == len(session.endpoints):
                return
    screen.look()


class _Screen:
    """Where changes are shown: JSON lines, plain lines, or a table that moves."""

    def __init__(self, session: Session, model: str | None, interval_s: float) -> None:
        self._session = session
        self._model = model
        self._interval_s = interval_s
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
