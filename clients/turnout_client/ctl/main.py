"""The command `turnoutctl`: its subcommands, and what an end by error, interrupt or closed pipe looks like."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from turnout_client.ctl.apply import apply, export
from turnout_client.ctl.codegen import codegen
from turnout_client.ctl.completion import completion
from turnout_client.ctl.feedback import feedback
from turnout_client.ctl.loading import load, unload
from turnout_client.ctl.reading import history, status
from turnout_client.ctl.replicas import Exit
from turnout_client.ctl.revisions import revisions
from turnout_client.ctl.session import Session, session_options
from turnout_client.ctl.shadow import shadow
from turnout_client.ctl.traffic import rollback, swap, weights
from turnout_client.ctl.watch import watch

_DEBUG_VARIABLE = "TURNOUTCTL_DEBUG"


class _InOrder(click.Group):
    """Lists the commands in the order of their use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    "turnoutctl",
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 refused, 2 wrong usage, 3 no server answered, 4 done by some servers only, "
    "5 declined, 70 a bug, 130 interrupted.",
)
@session_options
@click.version_option(version("turnout"), prog_name="turnoutctl")
def turnoutctl() -> None:
    """See and change which revisions a Turnout server holds in its slots, and how a model's traffic is split over them.

    \b
    turnoutctl status                          what is loaded, and who gets what
    turnoutctl load digits green digits/2      load a revision; no traffic yet
    turnoutctl shadow set digits green         copies of requests, compared and never returned
    turnoutctl shadow watch digits             how far their answers agree
    turnoutctl weights digits green=10% blue=rest
    turnoutctl swap digits green               all traffic, in one assignment
    turnoutctl rollback digits                 and back
    """


for command in (
    status, revisions, load, unload, swap, rollback, weights, shadow, feedback, history, watch, apply, export,
    codegen, completion,
):  # fmt: skip
    turnoutctl.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        turnoutctl.main(arguments, prog_name="turnoutctl", obj=Session(), standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(Exit.USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("turnoutctl: interrupted; what a server has begun, it goes on with", err=True)
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:  # such as `| head`: nobody reads any more, which is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:
        if os.environ.get(_DEBUG_VARIABLE):
            raise
        click.echo(
            f"turnoutctl: this is a bug of turnoutctl: {type(error).__name__}: {error} "
            f"({_DEBUG_VARIABLE}=1 shows where)",
            err=True,
        )
        sys.exit(Exit.BUG)
