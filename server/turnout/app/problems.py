"""Why a server cannot start, before and after its models are loaded: said once, with the remedy."""

from __future__ import annotations

import itertools
import socket

from turnout.config import Config
from turnout.runtime.fleet import Fleet
from turnout.telemetry.logs import LogObserver

OPS_REMEDY = "--ops-host or --ops-port, or use --no-ops"
_EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared, never listened on


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


def refuse_problems(config: Config, fleet: Fleet, known: bool, observer: LogObserver) -> None:
    """A first start with nothing to serve is a mistake. What a journal says (`known`) was acknowledged once, if only by
    an unload of everything: then the server comes up, so that operators reach it to repair that."""
    problems = [f"  {model.name}: {model.problem}" for model in fleet if model.problem]
    slots = [slot for model in fleet for slot in model.slots.values()]
    problems += [f"  {slot.revision}: {slot.message}" for slot in slots if slot.message]
    serves = any(model.ready_slots() for model in fleet)
    if serves and not (problems and config.strict):
        return
    if not serves and known and not config.strict and (config.admin or config.model_control == "explicit"):
        observer.noticed("nothing is served: no slot is READY after the start, load one")
        return
    what = f"not all of '{config.model_repository}' can be served, as --strict asks:"
    if not serves:
        what = f"no model of '{config.model_repository}' can be served:"
        if known:
            problems.append("  to repair what the journal says while it runs, start with --admin and without --strict")
    raise StartError("\n".join([what, *(sorted(problems) or ["  it has no folders"])]))


def refuse_used_ports(config: Config) -> None:
    """Find a used port, or one for two servers, before models are loaded, which can take minutes; listening itself
    checks again."""
    addresses = [(config.host, config.grpc_port, "--host or --grpc-port")]
    if config.admin:
        addresses.append((config.admin_host, config.admin_port, "--admin-host or --admin-port, or use --no-admin"))
    if config.ops:
        addresses.append((config.ops_host or config.host, config.ops_port, OPS_REMEDY))
    for (host, port, _), (other, other_port, remedy) in itertools.combinations(addresses, 2):
        if port and port == other_port and (host == other or not {host, other}.isdisjoint(_EVERY_ADDRESS)):
            raise StartError(f"port {port} is asked for twice, on {host} and on {other}; choose another {remedy}")
    for host, port, remedy in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise unusable(host, port, error, remedy) from None


def unusable(host: str, port: int, error: OSError, remedy: str) -> StartError:
    return StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another {remedy}")
