"""`turnoutctl shadow`: which slots get copies of live requests. What comes of them is `shadow_watch`."""

from __future__ import annotations

import click

from turnout_client.ctl import completion, shadow_watch
from turnout_client.ctl.session import mutation_options, session_of, session_options
from turnout_client.ctl.traffic import duration_option, move, now_split
from turnout_client.shadows import METHODS, ShadowSpec, comparator, rule_message, shadows_of
from turnout_client.written import SpecError, share
from turnout_wire.gen import slots_pb2 as pb


@click.group(short_help="Copies of live requests to a slot: compared, never returned.")
def shadow() -> None:
    """Send a slot copies of live requests, and compare its answers with the live ones. No client notices."""


@shadow.command("set", short_help="Send a READY slot copies of requests.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", shell_complete=completion.slots)
@click.option(
    "--sample", default="100%", show_default=True, metavar="SHARE", help="Of the requests that other slots answer."
)
@click.option(
    "--noise", default="0%", metavar="SHARE", help="Of those: also repeated on the live revision, to see its own noise."
)
@click.option(
    "--compare",
    multiple=True,
    metavar="OUTPUT=METHOD[,atol=..]",
    help=f"How an output is compared: {', '.join(METHODS)}, with atol, rtol, threshold, k or near_tie. Others: as is "
    "usual for their datatype.",
)
@click.option("--salt", default="", help="Choose the requests anew with this salt.")
@click.option("--queue-max", type=click.IntRange(1, 2**31 - 1), metavar="N", help="Copies that may wait.")
@click.option("--bytes-max", type=click.IntRange(1, 2**63 - 1), metavar="N", help="Bytes that waiting copies may take.")
@click.option(
    "--deadline",
    callback=duration_option,
    metavar="DURATION",
    help="A copy runs so soon after the answer, or never.",
)
@mutation_options()
@session_options
@click.pass_context
def set_rule(
    context: click.Context,
    /,
    model: str,
    slot: str,
    sample: str,
    noise: str,
    compare: tuple[str, ...],
    salt: str,
    queue_max: int | None,
    bytes_max: int | None,
    deadline: int | None,
    mutation: pb.Mutation,
) -> None:
    """Send SLOT of MODEL copies of live requests, which are compared and never returned. The rule replaces the one that
    the slot has; bounds that are not given are the server's. It stays with the slot, whatever is loaded there, until it
    is cleared or the slot becomes the stable one."""
    try:
        rule = ShadowSpec(
            slot,
            share(sample, "--sample"),
            share(noise, "--noise"),
            salt,
            tuple(comparator(each, "--compare") for each in compare),
            queue_max or 0,
            bytes_max or 0,
            deadline or 0,
        )
    except SpecError as error:
        raise click.UsageError(str(error)) from None
    request = pb.SetShadowRequest(model=model, rule=rule_message(rule), mutation=mutation)
    session = session_of(context)
    move(session, "shadow set", lambda client: client.set_shadow(request).model, request, _now, slot=slot)


@shadow.command("clear", short_help="No more copies to a slot.")
@click.argument("model", shell_complete=completion.models)
@click.argument("slot", shell_complete=completion.slots)
@mutation_options()
@session_options
@click.pass_context
def clear_rule(context: click.Context, model: str, slot: str, mutation: pb.Mutation) -> None:
    """Take the shadow rule of SLOT of MODEL away. Where there is none, nothing changes."""
    request = pb.ClearShadowRequest(model=model, slot=slot, mutation=mutation)
    move(
        session_of(context), "shadow clear", lambda client: client.clear_shadow(request).model, request, _now, slot=slot
    )


def _now(model: pb.Model) -> str:
    rules = [f"{slot} gets copies of {rule.brief()}" for slot, rule in shadows_of(model).items()]
    return "; ".join([now_split(model), *(rules or ["no slot gets copies"])])


shadow.add_command(shadow_watch.watch)
