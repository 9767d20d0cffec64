"""What an admin RPC can end with, as one typed exception. What a person should do next is turnoutctl's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from turnout_wire.admin import DETAILS_KEY, error_info

_UNREACHABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


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


def _fields(call: Any) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            for detail in Status.FromString(value).details:
                bad = BadRequest()
                if detail.Unpack(bad):
                    found += [(violation.field, violation.description) for violation in bad.field_violations]
    return tuple(found)
