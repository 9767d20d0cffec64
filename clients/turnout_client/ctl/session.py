"""What one run of turnoutctl works with: its endpoints, how it answers, where it writes; and the options that set
these, before the command or after it."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from turnout_wire.gen import slots_pb2 as pb

ENDPOINT_VARIABLE = "TURNOUTCTL_ENDPOINT"
DEFAULT_ENDPOINT = "127.0.0.1:8003"
_PIPE_WIDTH = 80

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """The options that all commands have."""

    named: tuple[str, ...] = ()
    as_json: bool = False
    timeout_s: float | None = None
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Those that were named, else those of the environment, else the default.

        Raises:
            click.BadParameter: the environment names none that can be.
        """
        return self.named or endpoints_of((os.environ.get(ENDPOINT_VARIABLE, ""),)) or (DEFAULT_ENDPOINT,)

    @property
    def interactive(self) -> bool:
        """Whether something may move on the terminal."""
        return not self.as_json and self.err.is_terminal and self.out.is_terminal

    def say(self, text: str, style: str = "") -> None:
        self.out.print(Text(text, style), soft_wrap=not self.out.is_terminal)

    def complain(self, text: str) -> None:
        self.err.print(Text(text), soft_wrap=True)

    def print_json(self, document: object, indent: int | None = 2) -> None:
        click.echo(json.dumps(document, indent=indent, ensure_ascii=False))


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # A pipe has no width: 80 columns, unless COLUMNS says otherwise.
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not stream.isatty() and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    return console


def session_of(context: click.Context) -> Session:
    return context.ensure_object(Session)


def endpoints_of(text: tuple[str, ...]) -> tuple[str, ...]:
    """Each named once, in their order.

    Raises:
        click.BadParameter: one that is no HOST:PORT.
    """
    found: dict[str, None] = {}
    for named in text:
        for endpoint in filter(None, named.replace(",", " ").split()):
            host, _, port = endpoint.rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise click.BadParameter(f"'{endpoint}' is no HOST:PORT, such as {DEFAULT_ENDPOINT}")
            found[endpoint] = None
    return tuple(found)


def _set_endpoints(context: click.Context, _: click.Parameter, value: tuple[str, ...]) -> None:
    if found := endpoints_of(value):
        session_of(context).named = found


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        session_of(context).as_json = True


def _set_timeout(context: click.Context, _: click.Parameter, value: float | None) -> None:
    if value is not None:
        if not math.isfinite(value) or value <= 0:
            raise click.BadParameter("a number of seconds above 0")
        session_of(context).timeout_s = value


def session_options(command: F) -> F:
    """--endpoint, --json and --timeout."""
    for option in (
        click.option(
            "--timeout",
            type=float,
            metavar="SECONDS",
            expose_value=False,
            callback=_set_timeout,
            help="Bound of each call (default: 10, 600 where it waits for a load).",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Print one JSON document instead of text.",
        ),
        click.option(
            "--endpoint",
            "-e",
            multiple=True,
            metavar="HOST:PORT",
            expose_value=False,
            callback=_set_endpoints,
            help=f"Admin port of a server; repeat it for several (default: ${ENDPOINT_VARIABLE}, "
            f"else {DEFAULT_ENDPOINT}).",
        ),
    ):
        command = option(command)
    return command


def mutation_options(etag: bool = True) -> Callable[[F], F]:
    """What each command that changes something takes; it receives them as one `mutation`."""
    options = [
        click.option("--reason", default="", help="Why, for the journal (at most 1024 characters)."),
        click.option(
            "--request-id", default="", help="Does nothing twice: repeat a request with its id (default: new)."
        ),
        click.option(
            "--dry-run",
            "--validate-only",
            "dry_run",
            is_flag=True,
            help="Let the server check everything, and change nothing.",
        ),
    ]
    if etag:
        options.append(click.option("--etag", default="", help="Refuse unless it is still as it was read."))

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_mutation(*args: Any, reason: str, request_id: str, dry_run: bool, **rest: Any) -> Any:
            mutation = pb.Mutation(
                etag=rest.pop("etag", ""),
                request_id=request_id or str(uuid.uuid4()),
                validate_only=dry_run,
                reason=reason,
            )
            return command(*args, mutation=mutation, **rest)

        decorated: Any = with_mutation
        for option in reversed(options):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate
