"""Names for shell completion, asked from the server; a server that does not answer at once completes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, get_completion_class

from turnout_client.admin import AdminClient
from turnout_client.ctl.session import session_of
from turnout_client.errors import AdminError
from turnout_client.plan import held, state_name, written
from turnout_wire.gen import slots_pb2 as pb

SHELLS = ("bash", "zsh", "fish")
_TIMEOUT_S = 0.8


def models(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(model.name) for model in _models(context) if model.name.startswith(incomplete)]


def slots(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of the model that was typed already."""
    return [
        CompletionItem(slot.name, help=f"{held(slot)} {state_name(slot)}".strip())
        for slot in _slots(context)
        if slot.name.startswith(incomplete)
    ]


def shares(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(f"{slot.value}=", help=slot.help) for slot in slots(context, parameter, incomplete)]


def revisions(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those that the repository has, and those that some slot holds."""
    found = {held(slot) for slot in _slots(context) if held(slot)} | set(_available(context))
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def _available(context: click.Context) -> Sequence[str]:
    try:
        with AdminClient(session_of(context).endpoints[0], _TIMEOUT_S) as client:
            return [written(each.revision) for each in client.available(context.params.get("model", ""))]
    except (AdminError, click.BadParameter):
        return ()


def _slots(context: click.Context) -> Sequence[pb.SlotStatus]:
    name = context.params.get("model")
    return next((model.slots for model in _models(context) if model.name == name), ())


def _models(context: click.Context) -> Sequence[pb.Model]:
    try:
        endpoint = session_of(context).endpoints[0]
        with AdminClient(endpoint, _TIMEOUT_S) as client:
            return client.models()
    except (AdminError, click.BadParameter):
        return ()


@click.command("completion", short_help="Print what makes a shell complete commands and names.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, and the server's models and slots.

    \b
    bash:  eval "$(turnoutctl completion bash)"
    zsh:   eval "$(turnoutctl completion zsh)"
    fish:  turnoutctl completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root()
    click.echo(kind(root.command, {}, "turnoutctl", "_TURNOUTCTL_COMPLETE").source())
