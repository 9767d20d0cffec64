"""One action on several servers at once, what came of it on each, and the exit status that says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from turnout_client.admin import AdminClient
from turnout_client.errors import AdminError

T = TypeVar("T")


class Exit(IntEnum):
    """Exit statuses of turnoutctl; documented in docs/turnoutctl.md."""

    OK = 0
    REFUSED = 1  # by each server, or an apply that may not be done
    USAGE = 2
    UNREACHABLE = 3  # no server answered
    PARTIAL = 4  # some servers did it, some did not
    DECLINED = 5  # the answer to a question was no
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What one server made of it: a value or an error."""

    endpoint: str
    value: T | None
    error: AdminError | None
    elapsed_ns: int


def ask_all(endpoints: Sequence[str], timeout_s: float, action: Callable[[AdminClient], T]) -> list[Outcome[T]]:
    """In the order of the endpoints."""
    clients = [AdminClient(endpoint, timeout_s) for endpoint in endpoints]
    try:
        if len(clients) == 1:
            return [_ask(clients[0], action)]
        with ThreadPoolExecutor(len(clients)) as threads:
            futures = [threads.submit(_ask, client, action) for client in clients]
            try:
                return [future.result() for future in futures]
            except BaseException:
                _close(clients)  # Ctrl-C: a call under way would keep its thread, and that the process
                raise
    finally:
        _close(clients)


def ask(endpoint: str, timeout_s: float, action: Callable[[AdminClient], T]) -> Outcome[T]:
    return ask_all([endpoint], timeout_s, action)[0]


def _ask(client: AdminClient, action: Callable[[AdminClient], T]) -> Outcome[T]:
    started_ns = time.monotonic_ns()
    try:
        value = action(client)
    except AdminError as error:
        return Outcome(client.endpoint, None, error, time.monotonic_ns() - started_ns)
    return Outcome(client.endpoint, value, None, time.monotonic_ns() - started_ns)


def _close(clients: Sequence[AdminClient]) -> None:
    for client in clients:
        client.close()


def exit_status(errors: Sequence[AdminError | None]) -> Exit:
    """Of one entry per server; None: it was done."""
    failed = [error for error in errors if error is not None]
    if not failed:
        return Exit.OK
    if len(failed) < len(errors):
        return Exit.PARTIAL
    return Exit.UNREACHABLE if all(error.unreachable for error in failed) else Exit.REFUSED
