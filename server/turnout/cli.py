"""The `turnout` command. Needs nothing beyond the base install to say which extra serving needs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from turnout import __version__
from turnout.commands import quantize, verify

if TYPE_CHECKING:
    from turnout.config import Config
    from turnout.core.model import Artefact

_USAGE_ERROR = 2  # as argparse exits for a wrong flag
_START_ERROR = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Exit status: 0 stopped as asked, 1 could not start (or read a model), 2 wrong usage or configuration."""
    parser = argparse.ArgumentParser(
        prog="turnout", allow_abbrev=False, description="A typed gRPC server for ONNX models."
    )
    parser.add_argument("--version", action="version", version=f"turnout {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", allow_abbrev=False, help="serve a model repository until SIGTERM or Ctrl-C")
    show = commands.add_parser(
        "config", allow_abbrev=False, help="check the settings and print the effective ones as YAML"
    )
    manifest = commands.add_parser(
        "manifest",
        allow_abbrev=False,
        help="print the files and digests of every model version as JSON; exit status 1 if some cannot be read",
    )
    offline = {"quantize": quantize.add(commands), "verify": verify.add(commands)}
    for command in (serve, show, manifest, *offline.values()):
        only = quantize.SETTINGS if command in offline.values() else None
        if (missing := _add_settings(command, only)) is not None:
            command.set_defaults(missing=missing)
    # Before the parse, so that flags which only the server knows still lead to the sentence that helps.
    options, unknown = parser.parse_known_args(argv)
    if getattr(options, "missing", None):
        _fail(options.missing, _START_ERROR)
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)} (see turnout {options.command} --help)")
    config = _config(options)
    match options.command:
        case "config":
            _print_config(config)
        case "manifest":
            _print_manifests(config)
        case "quantize":
            sys.exit(quantize.run(options, config))
        case "verify":
            sys.exit(verify.run(options, config))
        case _:
            _serve(config)


def _add_settings(command: argparse.ArgumentParser, only: Collection[str] | None = None) -> str | None:
    """One flag per setting, or for some; returns what to install when the server's packages are not here."""
    try:
        from turnout.config import CONFIG_VARIABLE, ENV_PREFIX, Config
    except ModuleNotFoundError as error:
        return _what_to_install(error)
    command.add_argument("--config", type=Path, help=f"YAML file of settings [{CONFIG_VARIABLE}]")
    for name, field in Config.model_fields.items():
        if only is not None and name not in only:
            continue
        help_text = f"{field.description} (default: {field.default}) [{ENV_PREFIX}{name.upper()}]"
        kind: dict[str, Any] = {"metavar": "VALUE"}
        if field.annotation is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        command.add_argument(
            "--" + name.replace("_", "-"), default=argparse.SUPPRESS, help=help_text.replace("%", "%%"), **kind
        )
    return None


def _config(options: argparse.Namespace) -> Config:
    from turnout.config import CONFIG_VARIABLE, Config, ConfigError, load

    flags = {name: value for name, value in vars(options).items() if name in Config.model_fields}
    named = os.environ.get(CONFIG_VARIABLE)
    file = options.config or (Path(named) if named else None)
    try:
        return load(flags, os.environ, file)
    except ConfigError as error:
        _fail(str(error), _USAGE_ERROR)


def _print_config(config: Config) -> None:
    import yaml

    print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")


def _print_manifests(config: Config) -> None:
    """Of the versions that would be served; problems go to standard error, after all that could be read."""
    try:
        from turnout.app import repository
    except ModuleNotFoundError as error:
        _fail(_what_to_install(error), _START_ERROR)
    from turnout.core.errors import LoadError

    try:
        models = repository(config).models()
    except LoadError as error:
        _fail(str(error), _START_ERROR)
    entries = [entry for model in models for entry in model.entries()]
    manifests = [
        {
            "model": artefact.revision.model,
            "version": artefact.revision.version,
            "digest": manifest.digest,
            "files": [{"name": name, "size": file.size, "sha256": file.sha256} for name, file in manifest.named()],
            **_about_variant(artefact),
        }
        for artefact, manifest in entries
        if manifest is not None
    ]
    print(json.dumps(manifests, indent=2))
    problems = [f"{model.name}: {model.problem}" for model in models if model.problem]
    problems += [f"{a.revision}: {a.problem}" for a, _ in entries if a.problem]
    if problems:
        _fail("\n".join(problems), _START_ERROR)


def _about_variant(artefact: Artefact) -> dict[str, object]:
    """Why it may not serve unless forced, where it is a variant."""
    variant = artefact.revision.variant
    return {"variant": variant, "doubts": list(artefact.doubts)} if variant else {}


def _serve(config: Config) -> None:
    # A closed stream is None to Python; what is written to it belongs nowhere, and is no reason not to serve.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    # Until the loop takes signals itself, Ctrl-C ends the process at once: no import breaks with a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        import uvloop

        from turnout.app import StartError, serve
        from turnout.banner import announce
    except ModuleNotFoundError as error:
        _fail(_what_to_install(error), _START_ERROR)
    try:
        uvloop.run(serve(config, announce))
    except StartError as error:
        _fail(str(error), _START_ERROR)
    # A thread may still be inside ONNX Runtime (a run that hangs, a load that a signal cut short), whose destructors
    # would abort the process under it.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _what_to_install(error: ModuleNotFoundError) -> str:
    return (
        f"the server is not installed (no module '{error.name}'): "
        'pip install "turnout[server]" for CPU, or "turnout[server-gpu]" for NVIDIA GPUs'
    )


def _fail(message: str, status: int) -> NoReturn:
    print("\n".join(f"turnout: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
