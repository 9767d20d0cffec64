"""Why Turnout refuses: the reasons a request can fail, as data. Which gRPC status each becomes is transport's table."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from turnout.core.ids import printable

if TYPE_CHECKING:
    from turnout.core.assignment import Assignment

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
    quote what the client wrote: it is made printable here, and cut where it is too long to be read.

    Attributes:
        assignment: who was to answer, where that had been decided; set on the way out.
    """

    def __init__(self, reason: Reason, message: str, retry_after_ms: int | None = None) -> None:
        self.message = _shown(message)
        super().__init__(self.message)
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.assignment: Assignment | None = None


class LoadError(Exception):
    """A model that cannot be loaded. The message is shown in the start-up table and in RepositoryIndex, and may quote
    what a file says: it is made printable here, and cut where it is too long to be read."""

    def __init__(self, message: str) -> None:
        super().__init__(_shown(message))


class Refusal(Enum):
    """Why a change to slots or traffic is refused, by the name that clients read. One row each in
    `transport/admin_status.py`."""

    ETAG_MISMATCH = "the object is no longer what the etag says"
    OPERATION_IN_PROGRESS = "another change of the object is under way"
    ETAG_REQUIRED = "there is no etag"
    REQUEST_ID_REUSED = "the request id came before with another request"
    INVALID_SPEC = "what is asked for is not well-formed"
    INVALID_REQUEST = "the message itself is not well-formed"
    MODEL_NOT_FOUND = "no such model"
    SLOT_NOT_FOUND = "no such slot"
    REVISION_NOT_FOUND = "no such revision in the repository"
    SLOT_ROUTED = "the slot has traffic or a shadow rule, or is kept for a rollback"
    SLOT_OCCUPIED = "the slot holds a revision"
    SLOT_NOT_READY = "the slot cannot serve"
    ROLLBACK_TARGET_UNLOADED = "there is nothing loaded to go back to"
    GATE_FAILED = "the revision did not pass a check of its load"
    SIGNATURE_MISMATCH = "the revision takes or gives other tensors than the stable one"
    MANIFEST_MISMATCH = "the files are not what their SHA256SUMS says"
    DIGEST_MISMATCH = "the same revision with other files"
    VARIANT_REFUSED = "the variant has not shown that it answers like its version"
    SLOT_MEMORY = "no room for another resident slot"
    STATE_STORE = "the journal cannot be written"
    TOKEN_EXPIRED = "the resume token is too old"  # noqa: S105
    STOPPING = "the server stops"
    INTERNAL = "the server's own fault"


class ControlError(Exception):
    """A change that Turnout refuses, or could not carry out. The message goes to the client, as a ServingError's does.

    Attributes:
        metadata: names and values for programs, such as the current etag.
        field: of the request, that is at fault; "": none in particular.
    """

    def __init__(self, refusal: Refusal, message: str, field: str = "", **metadata: object) -> None:
        self.message = _shown(message)
        super().__init__(self.message)
        self.refusal = refusal
        self.field = field
        self.metadata = {key: str(value) for key, value in metadata.items()}


def _shown(message: str) -> str:
    shown = printable(message[: _CHARACTERS_MAX + 1])
    return shown if len(shown) <= _CHARACTERS_MAX else f"{shown[:_CHARACTERS_MAX]} ..."
