"""What an RPC can end with, as one typed exception for each plane. What a person should do next is turnoutctl's
business."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from turnout_wire.admin import DETAILS_KEY, error_info

_UNREACHABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
# CANCELLED by a server: gRPC's way to end what is under way when it stops at once.
RETRYABLE = ("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED")
_PUSHBACK = "grpc-retry-pushback-ms"  # trailing metadata
_REASON = "turnout-reason"  # trailing metadata
_ERROR_ID = re.compile(r"\(error id ([0-9a-f]{16})\)")


@dataclass(eq=False)  # not frozen: whoever raises it sets its traceback
class AdminError(Exception):
    """An admin RPC that did not end with OK.

    Attributes:
        code: the name of the gRPC status code.
        reason: ErrorInfo.reason; "": the error comes from gRPC itself or from another kind of server.
        metadata: of the ErrorInfo, such as current_etag.
        fields: which fields of the request are at fault, and why.
    """

    code: str
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.message

    @property
    def unreachable(self) -> bool:
        """No server answered, or none in time: nobody knows whether the request was carried out."""
        return not self.reason and self.code in _UNREACHABLE


def admin_error(error: grpc.RpcError) -> AdminError:
    """The typed form of what a call raised."""
    call: Any = error
    code, message = call.code().name, call.details() or ""
    try:
        info, fields = error_info(error), _fields(call)
    except DecodeError:  # not of a Turnout server: its code and text are what there is
        return AdminError(code, message)
    if info is None:
        return AdminError(code, message)
    return AdminError(code, message, info.reason, dict(info.metadata), fields)


@dataclass(eq=False)  # as above
class InferenceError(Exception):
    """A call of the data plane that did not end with an answer.

    Attributes:
        code: the name of the gRPC status code.
        reason: why a Turnout server refused, such as QUEUE_FULL or NOT_READY; "": the error comes from gRPC itself,
            from this client or from another kind of server.
        retry_after_s: when the server wants to be asked again; below zero: not at all; None: it did not say.
        error_id: under which the server's log has the details of an INTERNAL error.
    """

    code: str
    message: str
    reason: str = ""
    retry_after_s: float | None = None
    error_id: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def retryable(self) -> bool:
        """Whether it makes sense to send the same again: inference changes nothing on a server, so a request that may
        have run can run again. RESOURCE_EXHAUSTED without a pushback is a message above a limit, or a quota."""
        if self.code not in RETRYABLE:
            return False
        if self.retry_after_s is None:
            return self.code != "RESOURCE_EXHAUSTED"
        return self.retry_after_s >= 0

    @property
    def unreachable(self) -> bool:
        """No server answered, or none in time."""
        return not self.reason and self.code in _UNREACHABLE


def inference_error(error: grpc.RpcError) -> InferenceError:
    """The typed form of what a call of the data plane raised."""
    call: Any = error
    message = call.details() or ""
    trailing = dict(call.trailing_metadata() or ())
    after_ms = str(trailing.get(_PUSHBACK, ""))
    return InferenceError(
        call.code().name,
        message,
        str(trailing.get(_REASON, "")),
        # What is no number means, by gRPC's rule: do not retry.
        None if not after_ms else int(after_ms) / 1000 if after_ms.isdecimal() else -1.0,
        error_id_of(message),
    )


def client_closed() -> InferenceError:
    """What a call is told whose client is closed."""
    return InferenceError("CANCELLED", "the client was closed", retry_after_s=-1.0)


def error_id_of(message: str) -> str:
    found = _ERROR_ID.search(message)
    return found[1] if found else ""


def _fields(call: Any) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            for detail in Status.FromString(value).details:
                bad = BadRequest()
                if detail.Unpack(bad):
                    found += [(violation.field, violation.description) for violation in bad.field_violations]
    return tuple(found)
