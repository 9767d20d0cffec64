"""Why Turnout refuses: the reasons a request can fail, as data. Which gRPC status each becomes is transport's table."""

from __future__ import annotations

from enum import Enum, auto

from turnout.core.ids import printable

_CHARACTERS_MAX = 1500


class Reason(Enum):
    """Why a request got no answer from a model. One row each in `transport/status.py`."""

    INVALID_REQUEST = auto()  # the client must change the request
    NOT_FOUND = auto()  # no such model, version or slot
    NOT_READY = auto()  # it exists, and cannot serve now
    QUEUE_FULL = auto()  # the slot's queue is at its bound
    DEADLINE_EXCEEDED = auto()  # expired before it ran
    EXECUTION_FAILED = auto()  # the model run failed
    UNSUPPORTED = auto()  # Turnout does not do this
    RESPONSE_TOO_LARGE = auto()  # the answer does not fit a gRPC message


class ServingError(Exception):
    """A request that Turnout refuses or could not serve. The message goes to the client: no path, no stack. It may
    quote what the client wrote: it is made printable here, and cut where it is too long to be read."""

    def __init__(self, reason: Reason, message: str, retry_after_ms: int | None = None) -> None:
        self.message = _shown(message)
        super().__init__(self.message)
        self.reason = reason
        self.retry_after_ms = retry_after_ms


class LoadError(Exception):
    """A model that cannot be loaded. The message is shown in the start-up table and in RepositoryIndex, and may quote
    what a file says: it is made printable here, and cut where it is too long to be read."""

    def __init__(self, message: str) -> None:
        super().__init__(_shown(message))


def _shown(message: str) -> str:
    shown = printable(message[: _CHARACTERS_MAX + 1])
    return shown if len(shown) <= _CHARACTERS_MAX else f"{shown[:_CHARACTERS_MAX]} ..."
