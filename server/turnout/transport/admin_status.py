"""The one table from a refusal to a gRPC status, its typed details, and the guard of every admin handler."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from turnout.core.errors import ControlError, Refusal
from turnout.runtime.ports import JournalError, Observer
from turnout.transport.status import Context, cut
from turnout_wire.admin import DETAILS_KEY, ERROR_DOMAIN

Code = grpc.StatusCode

ADMIN_STATUS: dict[Refusal, grpc.StatusCode] = {
    Refusal.ETAG_MISMATCH: Code.ABORTED,
    Refusal.OPERATION_IN_PROGRESS: Code.ABORTED,
    Refusal.ETAG_REQUIRED: Code.INVALID_ARGUMENT,
    Refusal.REQUEST_ID_REUSED: Code.INVALID_ARGUMENT,
    Refusal.INVALID_SPEC: Code.INVALID_ARGUMENT,
    Refusal.INVALID_REQUEST: Code.INVALID_ARGUMENT,
    Refusal.MODEL_NOT_FOUND: Code.NOT_FOUND,
    Refusal.SLOT_NOT_FOUND: Code.NOT_FOUND,
    Refusal.REVISION_NOT_FOUND: Code.NOT_FOUND,
    Refusal.SLOT_ROUTED: Code.FAILED_PRECONDITION,
    Refusal.SLOT_OCCUPIED: Code.FAILED_PRECONDITION,
    Refusal.SLOT_NOT_READY: Code.FAILED_PRECONDITION,
    Refusal.ROLLBACK_TARGET_UNLOADED: Code.FAILED_PRECONDITION,
    Refusal.GATE_FAILED: Code.FAILED_PRECONDITION,
    Refusal.SIGNATURE_MISMATCH: Code.FAILED_PRECONDITION,
    Refusal.MANIFEST_MISMATCH: Code.FAILED_PRECONDITION,
    Refusal.VARIANT_REFUSED: Code.FAILED_PRECONDITION,
    Refusal.DIGEST_MISMATCH: Code.ALREADY_EXISTS,
    Refusal.SLOT_MEMORY: Code.RESOURCE_EXHAUSTED,
    Refusal.STATE_STORE: Code.UNAVAILABLE,
    Refusal.TOKEN_EXPIRED: Code.OUT_OF_RANGE,
    Refusal.STOPPING: Code.UNAVAILABLE,
    Refusal.INTERNAL: Code.INTERNAL,
}
# What may be otherwise soon, and after how many seconds to look again.
_RETRY_S = {Refusal.OPERATION_IN_PROGRESS: 1, Refusal.STATE_STORE: 5, Refusal.STOPPING: 1}
_VALUE_CHARACTERS_MAX = 256  # of one entry of the details, which travel as metadata

Handler = Callable[[Any, Context], Awaitable[Any]]


def details_of(error: ControlError) -> Status:
    """The error as google.rpc.Status."""
    code = ADMIN_STATUS[error.refusal]
    status = Status(code=code.value[0], message=cut(error.message))
    metadata = {key: value[:_VALUE_CHARACTERS_MAX] for key, value in error.metadata.items()}
    status.details.add().Pack(ErrorInfo(reason=error.refusal.name, domain=ERROR_DOMAIN, metadata=metadata))
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=cut(error.message))
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    if error.refusal in _RETRY_S:
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=_RETRY_S[error.refusal])))
    return status


def guarded_admin(method: str, handler: Handler, observer: Observer) -> Handler:
    """The handler, with every exception turned into a status with details."""

    async def guard(request: Any, context: Context) -> Any:
        try:
            return await handler(request, context)
        except (asyncio.CancelledError, grpc.aio.BaseError):
            raise
        except Exception as error:  # noqa: BLE001 - nothing of it reaches the client
            await _refuse(context, _as_control(error, method, observer))

    return guard


def _as_control(error: Exception, method: str, observer: Observer) -> ControlError:
    if isinstance(error, ControlError):
        return error
    if isinstance(error, DecodeError):
        return ControlError(Refusal.INVALID_REQUEST, f"the message is no {method} request: it does not parse")
    error_id = secrets.token_hex(8)
    observer.handler_failed(method, error_id, error)
    if isinstance(error, JournalError):
        return ControlError(Refusal.STATE_STORE, f"the journal cannot be used now (error id {error_id})")
    return ControlError(Refusal.INTERNAL, f"internal error in {method} (error id {error_id})")


async def _refuse(context: Context, error: ControlError) -> NoReturn:
    status = details_of(error)
    metadata: Any = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(ADMIN_STATUS[error.refusal], status.message, metadata)
    raise AssertionError("abort returned")
