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
    """Exit statuses of turnoutctl; documented in the README."""

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
    if len(endpoints) == 1:
        return [ask(endpoints[0], timeout_s, action)]
    with ThreadPoolExecutor(len(endpoints)) as threads:
        return list(threads.map(lambda endpoint: ask(endpoint, timeout_s, action), endpoints))


def ask(endpoint: str, timeout_s: float, action: Callable[[AdminClient], T]) -> Outcome[T]:
    with AdminClient(endpoint, timeout_s) as client:
        started_ns = time.monotonic_ns()
        try:
            value = action(client)
        except AdminError as error:
            return Outcome(endpoint, None, error, time.monotonic_ns() - started_ns)
        return Outcome(endpoint, value, None, time.monotonic_ns() - started_ns)


def exit_status(errors: Sequence[AdminError | None]) -> Exit:
    """Of one entry per server; None: it was done."""
    failed = [error for error in errors if error is not None]
    if not failed:
        return Exit.OK
    if len(failed) < len(errors):
        return Exit.PARTIAL
    return Exit.UNREACHABLE if all(error.unreachable for error in failed) else Exit.REFUSED
