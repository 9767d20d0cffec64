"""`turnoutctl apply` and `export`: a declared state, the difference shown before anything is done, and the way back
from a server to a file. What is to be done is decided by `plan`; how it is carried out, by `carrying`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import click
from rich.text import Text

from turnout_client.admin import AdminClient
from turnout_client.ctl import completion, shapes
from turnout_client.ctl.carrying import Carrying
from turnout_client.ctl.loading import refuse_force_unexplained
from turnout_client.ctl.reading import read
from turnout_client.ctl.replicas import Exit, Outcome, ask, ask_all, exit_status
from turnout_client.ctl.report import complain, document, finish
from turnout_client.ctl.session import Session, mutation_options, session_of, session_options
from turnout_client.desired import DesiredModel, exported, parse
from turnout_client.plan import Options, Plan, plan
from turnout_client.written import SpecError
from turnout_wire.gen import slots_pb2 as pb

_TIMEOUT_S = 10.0
_SIGNS = {"+": "green", "-": "red", "~": "yellow"}


@dataclass(frozen=True, slots=True)
class _Planned:
    """One server's models as they are, and what would be done to each."""

    models: dict[str, pb.Model]
    plans: tuple[Plan, ...]

    @property
    def steps(self) -> int:
        return sum(len(each.steps) for each in self.plans)

    @property
    def problems(self) -> list[str]:
        return [f"{each.model}: {problem}" for each in self.plans for problem in each.problems]


@click.command(short_help="Bring models into the state that a file declares.")
@click.option(
    "--file", "-f", "file", type=click.File(encoding="utf-8"), required=True, help="YAML; - reads standard input."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--prune", is_flag=True, help="Unload slots of these models that the file does not name.")
@click.option(
    "--accept-outage", is_flag=True, help="Replace revisions under their traffic, which is refused meanwhile."
)
@click.option("--end-bake", is_flag=True, help="Give up rollbacks that slots are kept for.")
@click.option("--allow-signature-change", is_flag=True, help="Take other inputs or outputs than the stable slot's.")
@click.option("--force", is_flag=True, help="Load variants whatever their reports say; --reason must say why.")
@mutation_options(etag=False)
@session_options
@click.pass_context
def apply(context: click.Context, /, file: IO[str], yes: bool, mutation: pb.Mutation, **flags: bool) -> None:
    """Load what the file names, wait until it is READY, then move the traffic, then (--prune) unload what is not named.
    Shows the difference first, and asks. Models that the file does not name are left alone. Several servers are done
    one after the other; the first that fails ends it.

    \b
    models:
      digits:
        slots: {blue: digits/1, green: digits/2}
        weights: {blue: rest, green: 10 %}
        sticky_key: {metadata_key: turnout-sticky-key}     # left out: as it is
        pins: [{metadata_key: x-team, value: qa, slot: green}]
        shadows: {red: {sample: 100 %, noise: 2 %, compare: ["probabilities=js"]}}
    """
    session = session_of(context)
    refuse_force_unexplained(flags["force"], mutation)
    wanted = _parsed(file)
    options = Options(**flags)
    outcomes = ask_all(session.endpoints, _TIMEOUT_S, lambda client: _plan(client, wanted, options))
    if unread := [outcome.error for outcome in outcomes if outcome.error is not None]:
        _end(session, outcomes, {}, exit_status(unread))  # some state is not known: nothing is done anywhere
    planned = {outcome.endpoint: outcome.value for outcome in outcomes if outcome.value is not None}
    if not session.as_json:
        _show(session, planned)
    if any(each.problems for each in planned.values()):
        _end(session, outcomes, {}, Exit.REFUSED)
    if mutation.validate_only or not any(each.steps for each in planned.values()):
        _end(session, outcomes, {}, Exit.OK)
    _confirm(session, yes)
    done: dict[str, Carrying] = {}
    carried = [_carry(session, outcome, mutation, options, done) for outcome in outcomes]
    # Those that were left alone do not count: a first one that fails is a refusal, and no partial success.
    _end(session, carried, done, exit_status([carrying.error for carrying in done.values()]))


def _parsed(file: IO[str]) -> list[DesiredModel]:
    try:
        return parse(file.read())
    except (SpecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file.name}: {error}") from None


def _plan(client: AdminClient, wanted: Sequence[DesiredModel], options: Options) -> _Planned:
    models = {model.name: model for model in client.models()}
    return _Planned(models, tuple(plan(models.get(each.name), each, options) for each in wanted))


def _confirm(session: Session, yes: bool) -> None:
    if yes:
        return
    if session.as_json or not can_ask():
        raise click.UsageError("nobody can be asked here: give --yes, or --dry-run to see the difference only")
    if not click.confirm("Do this?", err=True):
        session.complain("turnoutctl: nothing was done")
        sys.exit(Exit.DECLINED)


def can_ask() -> bool:
    return sys.stdin.isatty()


def _carry(
    session: Session,
    planned: Outcome[_Planned],
    mutation: pb.Mutation,
    options: Options,
    done: dict[str, Carrying],
) -> Outcome[_Planned]:
    """Carries one server's plans out, unless one before it has failed."""
    assert planned.value is not None
    if any(carrying.error for carrying in done.values()):
        return planned
    carrying = done[planned.endpoint] = Carrying(session, planned.endpoint, options, mutation)

    def carry(client: AdminClient) -> _Planned:
        assert planned.value is not None
        for each in planned.value.plans:
            carrying.carry(client, each, planned.value.models.get(each.model))
        return planned.value

    outcome = ask(planned.endpoint, session.timeout_s or _TIMEOUT_S, carry)
    carrying.error = outcome.error
    return outcome


def _end(session: Session, outcomes: Sequence[Outcome[_Planned]], done: dict[str, Carrying], status: Exit) -> None:
    if session.as_json:
        session.print_json(
            document("apply", status, [_shape(outcome, done.get(outcome.endpoint)) for outcome in outcomes])
        )
        sys.exit(status)
    for outcome in outcomes:
        if outcome.error is not None:
            complain(session, outcome.endpoint, outcome.error)
        elif outcome.value is not None:
            for problem in outcome.value.problems if not done else ():
                session.complain(f"turnoutctl: {outcome.endpoint}: {problem}")
            if done and outcome.endpoint not in done:
                session.complain(f"turnoutctl: {outcome.endpoint}: left as it was, because one before it failed")
    if status == Exit.OK and done:
        session.say("done")
    sys.exit(status)


def _shape(outcome: Outcome[_Planned], carrying: Carrying | None) -> dict[str, Any]:
    ok = outcome.error is None and (outcome.value is None or not outcome.value.problems)
    found: dict[str, Any] = {"endpoint": outcome.endpoint, "ok": ok, "elapsed_ms": outcome.elapsed_ns / 1e6}
    if outcome.error is not None:
        found["error"] = shapes.error(outcome.error)
    if outcome.value is not None:
        found["result"] = {
            "models": [
                {
                    "name": each.model,
                    "differences": [asdict(difference) for difference in each.differences],
                    "problems": list(each.problems),
                    "notes": list(each.notes),
                }
                for each in outcome.value.plans
            ],
        }
    found["applied"] = carrying is not None and carrying.error is None
    found["steps_done"] = carrying.done if carrying is not None else []
    return found


def _show(session: Session, planned: dict[str, _Planned]) -> None:
    """Servers of which the same would be asked share one diff."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for endpoint, each in planned.items():
        groups.setdefault(tuple((p.model, p.differences, p.notes) for p in each.plans), []).append(endpoint)
    for same, endpoints in groups.items():
        if len(planned) > 1:
            session.out.print(Text(", ".join(endpoints), "bold underline"))
        for model, differences, notes in same:
            session.out.print(Text(model, "bold") + Text("" if differences else "  as declared", "dim"))
            for each in differences:
                line = f"  {each.sign} {each.object}: {each.before} → {each.after}"
                session.say(line, _SIGNS[each.sign])
            for note in notes:
                session.say(f"  note: {note}", "dim")


@click.command(short_help="Print models as a file for apply.")
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=completion.models)
@click.option("--digests", is_flag=True, help="With digests: apply then insists on the same files.")
@session_options
@click.pass_context
def export(context: click.Context, models: tuple[str, ...], digests: bool) -> None:
    """Print the slots, revisions, weights, sticky keys, pins and shadow rules of a server as YAML. To `apply` it
    changes nothing. Of one server: name one endpoint."""
    session = session_of(context)
    if len(session.endpoints) > 1:
        raise click.UsageError("export writes the state of one server: name one --endpoint")

    def fetch(client: AdminClient) -> list[pb.Model]:
        return [client.model(name) for name in models] if models else read(None, client)

    outcomes = ask_all(session.endpoints, session.timeout_s or _TIMEOUT_S, fetch)

    def show(done: Sequence[Outcome[list[pb.Model]]]) -> None:
        click.echo("".join(exported(outcome.value or [], digests) for outcome in done), nl=False)

    finish(session, "export", outcomes, lambda found: {"yaml": exported(found, digests)}, show)
