"""`turnoutctl load` and `unload`: what a slot holds. While a load waits, a terminal sees how far it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from turnout_client import desired
from turnout_client.admin import AdminClient
from turnout_client.ctl import completion, shapes
from turnout_client.ctl.replicas import ask_all
from turnout_client.ctl.report import finish, show_changes
from turnout_client.ctl.session import Session, mutation_options, session_of, session_options
from turnout_client.errors import AdminError
from turnout_client.plan import held, state_name
from turnout_client.written import SpecError, percent
from turnout_wire.gen import slots_pb2 as pb

_TIMEOUT_S = 10.0
WAIT_TIMEOUT_S = 600.0
_LOOK_S = 0.2


@click.command(short_help="Load a revision into a slot and prove it; no traffic yet.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", shell_complete=completion.slots)
@click.argument("revision", shell_complete=completion.revisions)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is READY, or with the error why not.")
@click.option("--replace", is_flag=True, help="Drain and unload what the slot holds first.")
@click.option("--allow-signature-change", is_flag=True, help="Take other inputs or outputs than the stable slot's.")
@click.option("--digest", default="", metavar="SHA256", help="Which the revision must have.")
@click.option("--accept-outage", is_flag=True, help="Replace although the slot has traffic: its share is refused.")
@click.option("--end-bake", is_flag=True, help="Replace although the slot is kept for a rollback.")
@click.option("--force", is_flag=True, help="A variant whatever its report says; --reason must say why.")
@mutation_options()
@session_options
@click.pass_context
def load(
    context: click.Context, /, model: str, slot: str, revision: str, wait: bool, mutation: pb.Mutation, **rest: object
) -> None:
    """Load REVISION (`2`, `2@int8` or `digits/2@int8`) into SLOT of MODEL. The slot then gets no traffic but requests
    that pin it: move traffic with `swap` or `weights`. `revisions` lists what there is."""
    session = session_of(context)
    refuse_force_unexplained(bool(rest["force"]), mutation)
    try:
        named = desired.revision(revision, model)
    except SpecError as error:
        raise click.UsageError(str(error)) from None
    request = pb.LoadSlotRequest(
        model=model,
        slot=slot,
        revision=pb.Revision(model=model, version=named.version, variant=named.variant),
        wait=wait,
        mutation=mutation,
        **rest,  # type: ignore[arg-type]  # the flags have the names of the fields
    )
    timeout_s = session.timeout_s or (WAIT_TIMEOUT_S if wait else _TIMEOUT_S)
    with watching(session, model, slot, wait and not mutation.validate_only):
        outcomes = ask_all(session.endpoints, timeout_s, lambda client: client.load(request))

    def shape(response: pb.LoadSlotResponse) -> dict[str, object]:
        return _shape(mutation, response.model) | {
            "cost": shapes.cost(response.cost) if response.HasField("cost") else None
        }

    finish(
        session,
        "load",
        outcomes,
        shape,
        lambda done: show_changes(session, done, partial(_loaded, slot, mutation.validate_only)),
        model=model,
        slot=slot,
        request_id=mutation.request_id,
    )


@click.command(short_help="Drain a slot and free what it holds.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", shell_complete=completion.slots)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is EMPTY.")
@click.option("--end-bake", is_flag=True, help="Although it is kept for a rollback, which is then not possible.")
@mutation_options()
@session_options
@click.pass_context
def unload(context: click.Context, model: str, slot: str, wait: bool, end_bake: bool, mutation: pb.Mutation) -> None:
    """Empty SLOT of MODEL: no new requests, those under way finish, the revision is freed. Calls off a load that is
    under way."""
    session = session_of(context)
    request = pb.UnloadSlotRequest(model=model, slot=slot, wait=wait, end_bake=end_bake, mutation=mutation)
    timeout_s = session.timeout_s or (WAIT_TIMEOUT_S if wait else _TIMEOUT_S)
    with watching(session, model, slot, wait and not mutation.validate_only):
        outcomes = ask_all(session.endpoints, timeout_s, lambda client: client.unload(request).model)
    finish(
        session,
        "unload",
        outcomes,
        partial(_shape, mutation),
        lambda done: show_changes(session, done, partial(describe, slot, mutation.validate_only)),
        model=model,
        slot=slot,
        request_id=mutation.request_id,
    )


def refuse_force_unexplained(force: bool, mutation: pb.Mutation) -> None:
    if force and not mutation.reason:
        raise click.UsageError("--force needs --reason: the journal keeps who overrode what, and why")


def _shape(mutation: pb.Mutation, model: pb.Model) -> dict[str, object]:
    return {"dry_run": mutation.validate_only, "request_id": mutation.request_id, "model": shapes.model(model)}


def _loaded(slot: str, checked: bool, response: pb.LoadSlotResponse) -> str:
    said = describe(slot, checked, response.model)
    if response.HasField("cost"):
        cost = response.cost
        last_s = cost.last_load.ToNanoseconds() / 1e9
        would = "would cost" if checked else "cost"
        said += f"; {would} {percent(cost.share_bp)} of the traffic for about {last_s:.1f} s"
        said += f", {cost.leases} requests waited for" if cost.leases else ""
    return said


def describe(slot: str, checked: bool, model: pb.Model) -> str:
    """What a slot is now, and which checks it has passed."""
    now = _now(slot, model)
    status = next((each for each in model.slots if each.name == slot), pb.SlotStatus())
    if gates := [gate.gate for gate in status.gates if gate.verdict == pb.VERDICT_PASS]:
        now += f" (passed {', '.join(gates)})"
    return f"would do; now {now}" if checked else now


def _now(slot: str, model: pb.Model) -> str:
    status = next((each for each in model.slots if each.name == slot), None)
    if status is None:
        return f"{model.name or 'the model'} has no slot {slot}"
    return f"{model.name}: {slot} is {state_name(status)} {held(status)}".rstrip()


@contextmanager
def watching(session: Session, model: str, slot: str, wanted: bool = True) -> Iterator[None]:
    """A line per server with the slot's state, as long as the block runs; on a terminal only."""
    if not wanted or not session.interactive:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    ended = threading.Event()
    with Progress(*columns, console=session.err, transient=True) as progress:
        threads = [_look(endpoint, model, slot, progress, ended) for endpoint in session.endpoints]
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _look(endpoint: str, model: str, slot: str, progress: Progress, ended: threading.Event) -> threading.Thread:
    task = progress.add_task(f"{endpoint}  {slot}", total=None)

    def look() -> None:
        with AdminClient(endpoint, timeout_s=1.0) as client:
            while not ended.wait(_LOOK_S):
                with suppress(AdminError):
                    progress.update(task, description=f"{endpoint}  {_now(slot, client.model(model))}")

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread
