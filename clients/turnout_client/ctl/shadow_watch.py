"""`turnoutctl shadow watch`: how far shadow slots agree, as it happens: a live table on a terminal, lines in a pipe, a
document per event with --json."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from functools import partial

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from turnout_client.admin import AdminClient, Watch
from turnout_client.ctl import completion, messages, tables
from turnout_client.ctl.advice import NO_SHADOW_RULE
from turnout_client.ctl.agreement import summary_table
from turnout_client.ctl.agreement_lines import comparison_line, summary_line
from turnout_client.ctl.following import Follower, follow
from turnout_client.ctl.replicas import Exit, ask_all, exit_status
from turnout_client.ctl.report import complain, said
from turnout_client.ctl.session import Session, session_of, session_options
from turnout_client.ctl.windows import Windows
from turnout_client.errors import AdminError
from turnout_client.shadows import shadows_of
from turnout_wire.gen import slots_pb2 as pb

_TIMEOUT_S = 10.0
_LOOK_TIMEOUT_S = 2.0
_DRAW_S = 1.0
_TOLD_SHOWN = 8
_LINES_BESIDES = 15  # of a slot, beside its classes, worst pairs and what was told last


@click.command("watch", short_help="How far shadows agree, as it happens; a live table on a terminal.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", required=False, shell_complete=completion.slots)
@click.option("--once", is_flag=True, help="Print the next summary of each shadow slot as a table, and end.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N summaries and comparisons.")
@click.option("--for", "for_s", type=click.FloatRange(0), metavar="SECONDS", help="End by itself, with status 0.")
@session_options
@click.pass_context
def watch(
    context: click.Context, model: str, slot: str | None, once: bool, count: int | None, for_s: float | None
) -> None:
    """Follow what comparing answers of MODEL with those of its shadow slots, or of SLOT, shows, until Ctrl-C. Summaries
    come every ten seconds while requests do; sparklines begin when the watch does. Lost connections are taken up
    again."""
    session = session_of(context)
    if once and count:
        raise click.UsageError("--once or --count, not both")
    models, refused = _watched(session, model, slot or "")
    for endpoint, error in refused.items():
        complain(session, endpoint, error, model=model, slot=slot or "")
    screen = _Screen(session, slot or "", models, once, count)
    followers = [
        Follower(endpoint, partial(_begin, model, slot or ""), _no_token, answered=True) for endpoint in models
    ]
    ended = refused | follow(session, followers, screen, _DRAW_S, for_s, model=model, slot=slot or "")
    status = exit_status([ended.get(endpoint) for endpoint in session.endpoints])
    missing = [(endpoint, name) for endpoint, name in screen.awaited if endpoint not in ended] if once else []
    for endpoint, name in missing:
        session.complain(f"turnoutctl: {endpoint}: no summary of slot '{name}' yet: they come while requests do")
    sys.exit(Exit.REFUSED if missing and status == Exit.OK else status)


def _watched(session: Session, name: str, slot: str) -> tuple[dict[str, pb.Model], dict[str, AdminError]]:
    """By endpoint: the model with its rules, or why there is nothing to watch."""
    outcomes = ask_all(session.endpoints, session.timeout_s or _TIMEOUT_S, lambda client: client.model(name))
    models, refused = {}, {}
    for outcome in outcomes:
        if outcome.value is None:
            assert outcome.error is not None
            refused[outcome.endpoint] = outcome.error
        elif slot and slot not in {each.name for each in outcome.value.slots}:
            refused[outcome.endpoint] = AdminError(
                "NOT_FOUND", f"model '{name}' has no slot '{slot}'", "SLOT_NOT_FOUND"
            )
        elif not _rules(outcome.value, slot):
            who = f"slot '{slot}'" if slot else "no slot"
            what = f"{who} of model '{name}' gets {'no copies' if slot else 'copies'}: there is nothing to compare"
            refused[outcome.endpoint] = AdminError("FAILED_PRECONDITION", what, NO_SHADOW_RULE)
        else:
            models[outcome.endpoint] = outcome.value
    return models, refused


def _rules(model: pb.Model, slot: str) -> dict[str, str]:
    """What the rules say, by slot; of all slots or the one."""
    return {name: rule.brief() for name, rule in shadows_of(model).items() if slot in ("", name)}


def _begin(model: str, slot: str, client: AdminClient, _: str) -> Watch[pb.ComparisonEvent]:
    return client.watch_comparisons(model, slot)


def _no_token(_: pb.ComparisonEvent) -> str:
    return ""


class _Screen:
    """Where events are shown: JSON lines, plain lines, tables one after the other (`once`), or one that moves.

    Attributes:
        awaited: endpoints and slots without a summary so far.
    """

    def __init__(
        self, session: Session, slot: str, models: Mapping[str, pb.Model], once: bool, count: int | None
    ) -> None:
        self._session = session
        self._slot = slot
        self._models = dict(models)
        self._once = once
        self._left = count
        self.awaited = {(endpoint, name) for endpoint, model in models.items() for name in _rules(model, slot)}
        self._windows: dict[str, dict[str, Windows]] = {endpoint: defaultdict(Windows) for endpoint in models}
        self._told: deque[str] = deque(maxlen=_TOLD_SHOWN)
        self._live = Live(console=session.out, auto_refresh=False) if session.interactive and not once else None

    @property
    def done(self) -> bool:
        return self._left == 0 or (self._once and not self.awaited)

    def __enter__(self) -> _Screen:
        if self._live is not None:
            self._live.start()
            self.look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, endpoint: str, event: pb.ComparisonEvent) -> None:
        is_summary = event.HasField("summary")
        if self._once and not (is_summary and (endpoint, event.summary.shadow_slot) in self.awaited):
            return
        if is_summary:
            self._windows[endpoint][event.summary.shadow_slot].add(event.summary)
            self.awaited.discard((endpoint, event.summary.shadow_slot))
        if self._session.as_json:
            self._session.print_json({"endpoint": endpoint} | _shape(event), indent=None)
        elif self._once:
            self._print(endpoint, event.summary)
        else:
            self._tell(endpoint, event)
        if self._left is not None:
            self._left -= 1

    def _print(self, endpoint: str, summary: pb.ShadowSummary) -> None:
        if len(self._models) > 1:
            self._session.say(endpoint, "bold underline")
        self._session.out.print(summary_table(summary, self._session.out.width))

    def _tell(self, endpoint: str, event: pb.ComparisonEvent) -> None:
        is_summary = event.HasField("summary")
        line = summary_line(event.summary) if is_summary else comparison_line(event.comparison)
        line = line if len(self._models) == 1 else f"{endpoint}  {line}"
        if self._live is None:
            self._session.say(line)
        elif not is_summary:
            self._told.append(line)

    def note(self, text: str) -> None:
        """What happened to the stream itself."""
        if self._live is None:
            self._session.complain(f"turnoutctl: {text}")
        else:
            self._told.append(text)

    def look(self) -> None:
        """Reads the rules and draws the table; nothing where there is no terminal."""
        if self._live is None or not self._models:
            return
        name = next(iter(self._models.values())).name
        troubles: dict[str, str] = {}
        for outcome in ask_all(tuple(self._models), _LOOK_TIMEOUT_S, lambda client: client.model(name)):
            if outcome.value is not None:
                self._models[outcome.endpoint] = outcome.value
            elif outcome.error is not None:
                troubles[outcome.endpoint] = said(outcome.error)
        slots = sum(len(_rules(model, self._slot)) for model in self._models.values())
        room = max(self._session.out.height // max(slots, 1) - _LINES_BESIDES, 0)
        rows: dict[str, RenderableType] = {
            endpoint: Group(*self._of(endpoint, troubles.get(endpoint, ""), room)) for endpoint in self._models
        }
        table = tables.side_by_side(rows) if len(rows) > 1 else next(iter(rows.values()))
        told = list(self._told)[-max(room // 4, 1) :]
        self._live.update(Group(table, Text(), *(Text(line, "dim") for line in told)), refresh=True)

    def _of(self, endpoint: str, trouble: str, room: int) -> Iterator[RenderableType]:
        """What is known of one server's shadow slots. A slot keeps its last summary when its rule is gone."""
        model, windows = self._models[endpoint], self._windows[endpoint]
        if trouble:
            yield Text(tables.printable(trouble), "red")
        if model.message:
            yield Text(tables.printable(model.message), "yellow")
        rules = _rules(model, self._slot)
        for number, name in enumerate(dict.fromkeys([*rules, *windows])):
            if number:
                yield Text()
            seen = windows[name].last if name in windows else None
            if seen is not None:
                yield summary_table(seen, self._session.out.width, windows[name], max(room // 2, 3), max(room // 4, 1))
            if name not in rules:
                yield Text(f"{tables.printable(name)} gets no copies any more", "yellow")
            elif seen is None:
                yield Text(f"{tables.printable(name)} gets copies of {tables.printable(rules[name])}: no summary yet")


def _shape(event: pb.ComparisonEvent) -> dict[str, object]:
    kind = event.WhichOneof("event") or ""
    return {"event_type": kind.upper(), **messages.shape(event)}
