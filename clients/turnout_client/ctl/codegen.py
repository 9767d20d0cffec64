"""`turnoutctl codegen`: writes the files that `stubs` makes of a model of a running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from turnout_client.ctl import completion
from turnout_client.ctl.replicas import Exit
from turnout_client.ctl.session import Session, endpoints_of, session_of
from turnout_client.errors import InferenceError

SERVER_VARIABLE = "TURNOUTCTL_SERVER"
DEFAULT_SERVER = "127.0.0.1:8001"
_TIMEOUT_S = 10.0


@click.command(short_help="Write a typed .proto and Python client of a model.")
@click.argument("model", shell_complete=completion.models)
@click.option(
    "--server",
    "-s",
    metavar="HOST:PORT",
    help=f"Inference port of a server (default: ${SERVER_VARIABLE}, else {DEFAULT_SERVER}).",
    envvar=SERVER_VARIABLE,
    default=DEFAULT_SERVER,
)
@click.option("--version", "of_version", default="", help="Of this version (default: the one with the most traffic).")
@click.option(
    "--out",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder to write to; made where it is missing (default: the current one).",
)
@click.pass_context
def codegen(context: click.Context, model: str, server: str, of_version: str, out: Path) -> None:
    """Write MODEL.proto, a service with a field for each tensor, which the server has beside the generic one, and
    MODEL_client.py, which calls MODEL with numpy arrays by name. The same model gives the same files, byte for byte."""
    from turnout_client.ctl.stubs import stubs  # numpy: other commands, and completion, need not wait for it

    session = session_of(context)
    endpoint, *others = endpoints_of((server,)) or ("",)
    if others or not endpoint:
        raise click.BadParameter("give one HOST:PORT", param_hint="'--server'")
    try:
        texts = stubs(endpoint, model, of_version, session.timeout_s or _TIMEOUT_S)
    except InferenceError as error:
        _refused(session, endpoint, error)
    files = [out / name for name in texts]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in zip(files, texts.values(), strict=True):
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{out}: {error.strerror}: choose a folder with --out") from None
    if session.as_json:
        session.print_json({"command": "codegen", "ok": True, "exit_status": 0, "files": [str(file) for file in files]})
    else:
        session.say(f"{model}: {', '.join(map(str, files))}")


def _refused(session: Session, endpoint: str, error: InferenceError) -> NoReturn:
    status = Exit.UNREACHABLE if error.unreachable else Exit.REFUSED
    message = f"{error.code}: {error.message}"
    if session.as_json:
        document = {"command": "codegen", "ok": False, "exit_status": int(status), "error": message}
        session.print_json(document)
    else:
        session.complain(f"turnoutctl: {endpoint}: {message}")
        if error.unreachable or error.code == "UNIMPLEMENTED":
            session.complain("  next: is the server there, and is this its inference port (--grpc-port)?")
    sys.exit(status)
