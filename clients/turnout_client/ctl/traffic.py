"""`turnoutctl swap`, `rollback` and `weights`: what moves traffic, in one call each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import click

from turnout_client import desired
from turnout_client.admin import AdminClient
from turnout_client.ctl import completion, shapes
from turnout_client.ctl.replicas import ask_all
from turnout_client.ctl.report import finish, show_changes
from turnout_client.ctl.session import Session, mutation_options, session_of, session_options
from turnout_client.desired import Sticky, weights_of
from turnout_client.plan import split
from turnout_client.written import SpecError, duration_ns
from turnout_wire.gen import slots_pb2 as pb

_TIMEOUT_S = 10.0
_RELOAD_TIMEOUT_S = 600.0


def duration_option(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """In nanoseconds."""
    if value is None:
        return None
    try:
        return duration_ns(value, parameter.opts[0])
    except SpecError as error:
        raise click.UsageError(str(error)) from None


@click.command(short_help="All traffic to a READY slot, in one assignment.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", shell_complete=completion.slots)
@click.option(
    "--bake",
    callback=duration_option,
    metavar="DURATION",
    help="Keep the old slot READY for so long (90s, 15m, 2h, 1d; 0: unload it at once). Default: the server's.",
)
@mutation_options()
@session_options
@click.pass_context
def swap(context: click.Context, model: str, slot: str, bake: int | None, mutation: pb.Mutation) -> None:
    """Send all traffic of MODEL to SLOT. The slot that had most of it stays READY for the bake, so that `rollback` is
    one assignment too."""
    request = pb.SwapSlotsRequest(model=model, slot=slot, mutation=mutation)
    if bake is not None:
        request.bake.FromNanoseconds(bake)
    move(session_of(context), "swap", lambda client: client.swap(request).model, request, slot=slot)


@click.command(short_help="All traffic back to where it was.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", required=False, default="", shell_complete=completion.slots)
@click.option("--allow-reload", is_flag=True, help="Load the previous revision again, if it is gone: takes as long.")
@mutation_options(etag=False)
@session_options
@click.pass_context
def rollback(context: click.Context, model: str, slot: str, allow_reload: bool, mutation: pb.Mutation) -> None:
    """Send all traffic of MODEL back to the slot that had it before the present split, or to SLOT. Goes before
    whatever else is under way, takes no etag, and does nothing the second time."""
    request = pb.RollbackModelRequest(model=model, slot=slot, allow_reload=allow_reload, mutation=mutation)
    session = session_of(context)
    timeout_s = session.timeout_s or (_RELOAD_TIMEOUT_S if allow_reload else _TIMEOUT_S)
    move(session, "rollback", lambda client: client.rollback(request, timeout_s).model, request, slot=slot)


@click.command(short_help="Split traffic over READY slots; sticky key; pins.")
@click.argument("model", shell_complete=completion.models)
@click.argument("shares", metavar="[SLOT=SHARE]...", nargs=-1, shell_complete=completion.shares)
@click.option("--sticky-metadata", metavar="KEY", help="Read the sticky key from this request metadata.")
@click.option("--sticky-parameter", metavar="NAME", help="Read the sticky key from this request parameter.")
@click.option("--sticky-default", is_flag=True, help="Read it where the server does by default, with its salt.")
@click.option("--salt", help="Spread the keys anew with this salt.")
@click.option("--pin", "pins", multiple=True, metavar="KEY=VALUE:SLOT", help="All pins, one by one; others go.")
@click.option("--no-pins", is_flag=True, help="Remove all pins.")
@mutation_options()
@session_options
@click.pass_context
def weights(context: click.Context, /, model: str, shares: tuple[str, ...], mutation: pb.Mutation, **rest: Any) -> None:
    """Split the traffic of MODEL: `green=10% blue=rest`. A share is percent (up to two decimals), basis points (1000
    is 10 %), or `rest` for one slot. Slots that are not named get none. Moves as few keys as can be."""
    request = pb.SetWeightsRequest(model=model, weights=_weights(shares), mutation=mutation)
    if pins := _pins(rest["pins"], rest["no_pins"]):
        request.pins.extend(pins)
    request.set_pins = bool(pins) or rest["no_pins"]
    sticky = _sticky(rest["sticky_metadata"], rest["sticky_parameter"], rest["sticky_default"], rest["salt"])
    if not shares and sticky is None and not request.set_pins:
        raise click.UsageError("nothing to set: give SLOT=SHARE, a sticky key or pins")
    move(session_of(context), "weights", partial(_set_weights, request, sticky), request)


Resalt = Callable[[Sticky], Sticky]


def _set_weights(request: pb.SetWeightsRequest, sticky: Resalt | None, client: AdminClient) -> pb.Model:
    if sticky is not None:
        sent = pb.SetWeightsRequest()
        sent.CopyFrom(request)
        now = client.model(request.model)
        sent.sticky_key.CopyFrom(sticky_message(sticky(desired.sticky_of(now))))
        sent.mutation.etag = request.mutation.etag or now.route.etag  # what was not said stays as it was read
        request = sent
    return client.set_weights(request).model


def sticky_message(sticky: Sticky) -> pb.StickyKey:
    message = pb.StickyKey(salt=sticky.salt)
    if sticky.metadata_key:
        message.metadata_key = sticky.metadata_key
    elif sticky.request_parameter:
        message.request_parameter = sticky.request_parameter
    return message


def _weights(shares: Sequence[str]) -> list[pb.SlotWeight]:
    named: dict[str, object] = {}
    for share in shares:
        slot, equals, amount = share.partition("=")
        if not equals or not slot:
            raise click.UsageError(f"'{share}' is no SLOT=SHARE, such as green=10%")
        if slot in named:
            raise click.UsageError(f"slot {slot} is named twice")
        named[slot] = amount
    if not named:
        return []
    try:
        return [pb.SlotWeight(slot=slot, weight_bp=share) for slot, share in desired.shares(named).items()]
    except SpecError as error:
        raise click.UsageError(str(error)) from None


def _pins(pins: Sequence[str], none: bool) -> list[pb.Pin]:
    if pins and none:
        raise click.UsageError("--pin or --no-pins, not both")
    found = []
    for text in pins:
        match = re.fullmatch(r"([^=]+)=(.*):([^:]+)", text)
        if match is None:
            raise click.UsageError(f"'{text}' is no KEY=VALUE:SLOT, such as x-team=qa:green")
        found.append(pb.Pin(metadata_key=match[1], value=match[2], slot=match[3]))
    return found


def _sticky(metadata: str | None, parameter: str | None, default: bool, salt: str | None) -> Resalt | None:
    if sum((metadata is not None, parameter is not None, default)) > 1:
        raise click.UsageError("--sticky-metadata, --sticky-parameter or --sticky-default: one of them")
    if default:
        return lambda _: Sticky(salt=salt or "")
    if metadata is not None or parameter is not None:
        return lambda now: Sticky(metadata or "", parameter or "", now.salt if salt is None else salt)
    if salt is not None:
        return lambda now: Sticky(now.metadata_key, now.request_parameter, salt)
    return None


def now_split(model: pb.Model) -> str:
    return f"{model.name}: {split(weights_of(model))}, generation {model.route.generation}"


class Change(Protocol):
    """A request that changes a route."""

    @property
    def model(self) -> str: ...
    @property
    def mutation(self) -> pb.Mutation: ...


def move(
    session: Session,
    command: str,
    change: Callable[[AdminClient], pb.Model],
    request: Change,
    now: Callable[[pb.Model], str] = now_split,
    **known: str,
) -> None:
    """Ask every server for the change, and end with what each has `now`."""
    outcomes = ask_all(session.endpoints, session.timeout_s or _TIMEOUT_S, change)
    checked = request.mutation.validate_only

    def line(model: pb.Model) -> str:
        return f"would do; now {now(model)}" if checked else now(model)

    finish(
        session,
        command,
        outcomes,
        lambda model: {"dry_run": checked, "request_id": request.mutation.request_id, "model": shapes.model(model)},
        lambda done: show_changes(session, done, line),
        model=request.model,
        request_id=request.mutation.request_id,
        **known,
    )
