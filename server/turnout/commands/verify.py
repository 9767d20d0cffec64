"""`turnout verify`: how far two revisions are from each other, in answers, time and memory."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from turnout.commands.quantize import SETTINGS
from turnout.commands.telling import Told, say

if TYPE_CHECKING:
    from turnout.app.verifying import Asked
    from turnout.config import Config

__all__ = ["SETTINGS", "add", "run"]

_KINDS = ("scores", "values")
_SECONDS = 1.0  # at each batch size: 10 to 2000 rounds


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's own flags; the settings are added by the caller."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        allow_abbrev=False,
        help="compare two revisions on samples: answers, latency and memory, as a table, JSON or an HTML page",
        description="Exit status: 0 within the budget; 1 over it, or they cannot be compared; 2 wrong usage.",
    )
    parser.add_argument("reference", metavar="MODEL/VERSION[@VARIANT]", help="what is right, such as digits/2")
    parser.add_argument(
        "candidate", metavar="OTHER", help="such as digits/3, digits/2@int8, or @int8 of the same version"
    )
    parser.add_argument(
        "--samples", type=Path, metavar="PATH", help="an npz of arrays input.NAME, or a folder of such (golden.npz)"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="NPZ", help="right answers in an array labels (those in samples)"
    )
    parser.add_argument("--agreement-min", type=float, default=0.99, metavar="SHARE", help="of classes, labels (0.99)")
    parser.add_argument(
        "--error-max", type=float, default=0.05, metavar="SHARE", help="of values, over the largest element (0.05)"
    )
    parser.add_argument(
        "--output-kind", action="append", default=[], metavar="NAME=KIND", help="values for rows that are no scores"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=_SECONDS,
        metavar="S",
        help="of measuring at each batch size (1); 0: answers only",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with plots, complete in itself")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser


def run(options: argparse.Namespace, config: Config) -> int:
    """The exit status."""
    from turnout.app import verifying
    from turnout.variants.page import page
    from turnout.variants.recipes import QuantizeError
    from turnout.variants.terminal import shown
    from turnout.variants.whole_file import write_whole

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        asked = _asked(options)
        with Told.on(sys.stderr) as told:
            found = verifying.verify(config, asked, told)
        if options.html is not None:
            write_whole(options.html, page(found))
    except QuantizeError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"--html '{options.html}' cannot be written: {error.strerror}")
    except KeyboardInterrupt as error:
        _failed("interrupted, nothing was written")
        return 128 + int(error.args[0] if error.args else signal.SIGINT)
    if options.json:
        say(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        page_line = [] if options.html is None else [f"page       {options.html}"]
        say(shown(found, sys.stdout), *page_line)
    if found.failures:
        print(f"turnout: {found.candidate.revision} is over its budget:", file=sys.stderr)
        for line in found.failures:
            print(f"turnout:   {line}", file=sys.stderr)
    return 1 if found.failures else 0


def _asked(options: argparse.Namespace) -> Asked:
    from turnout.app.verifying import Asked
    from turnout.core.parity import Kind
    from turnout.core.variants import Budget
    from turnout.variants.recipes import QuantizeError

    if not 0 <= options.seconds <= 3600:
        raise QuantizeError(f"--seconds is {options.seconds:g}, it must be from 0 to 3600")
    if options.html is not None and not os.access(options.html.absolute().parent, os.W_OK):
        raise QuantizeError(f"--html '{options.html}': its folder is not there, or cannot be written to")
    kinds = {}
    for each in options.output_kind:
        output, equals, kind = each.rpartition("=")
        if not equals or kind not in _KINDS:
            raise QuantizeError(f"--output-kind '{each}': write NAME=KIND, the kinds are {' and '.join(_KINDS)}")
        kinds[output] = Kind(kind)
    try:
        budget = Budget(options.agreement_min, options.error_max)
    except ValueError as error:
        raise QuantizeError(f"--{str(error).replace('_', '-')}") from None
    time_ns = round(options.seconds * 1e9)
    return Asked(options.reference, options.candidate, options.samples, options.labels, budget, kinds, time_ns)


def _failed(message: str) -> int:
    print("\n".join(f"turnout: {line}" for line in message.splitlines()), file=sys.stderr)
    return 1


def _stop(number: int, _: object) -> NoReturn:
    """As Ctrl-C ends a program: by what lets the process that measures memory be ended."""
    raise KeyboardInterrupt(number)
