"""The one table from a reason to a gRPC status, and the guard that every handler runs in.

What a client reads is a ServingError's own message, or an opaque error id: never the text of another exception.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from turnout.core.errors import Reason, ServingError
from turnout.core.tracing import TraceContext
from turnout.runtime.ports import Observer

REASON_KEY = "turnout-reason"  # trailing metadata: gRPC's own errors have the same statuses


class Context(Protocol):
    """What handlers do with their call: of gRPC's own contexts, and `rpcs.Rpc`, what is used here."""

    def invocation_metadata(self) -> Any: ...

    def time_remaining(self) -> float | None: ...

    def code(self) -> Any: ...

    def peer(self) -> str: ...

    def peer_identities(self) -> Any: ...

    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...

    def read(self) -> Awaitable[Any]: ...

    def write(self, message: bytes) -> Awaitable[None]: ...

    async def abort(self, code: grpc.StatusCode, details: str = ..., trailing_metadata: Any = ...) -> Any: ...

    def cancel(self) -> Any: ...


UnaryHandler = Callable[[Any, Context], Awaitable[bytes]]
StreamHandler = Callable[[Any, Context], Awaitable[None]]  # writes its answers itself

# A status text travels as metadata, percent-encoded into up to three times its bytes. Above 8 KiB a client may report
# that, and not the status.
_TEXT_BYTES_MAX = 2000

STATUS: dict[Reason, grpc.StatusCode] = {
    Reason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.EXECUTION_FAILED: grpc.StatusCode.INTERNAL,
    Reason.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.RESPONSE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
}


# What --overload-code can name.
OVERLOAD_CODES = {
    "resource_exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}
StatusTable = Mapping[Reason, grpc.StatusCode]


def status_table(overload: grpc.StatusCode) -> StatusTable:
    """The table with another status for overload, such as Triton's."""
    return {**STATUS, Reason.QUEUE_FULL: overload}


async def refuse(context: Context, error: ServingError, table: StatusTable = STATUS) -> NoReturn:
    """End the call with the error's status; clients that retry are told when, and all that it was this server."""
    metadata: tuple[tuple[str, str], ...] = ((REASON_KEY, error.reason.name),)
    if error.retry_after_ms is not None:
        metadata += (("grpc-retry-pushback-ms", str(error.retry_after_ms)),)
    await context.abort(table[error.reason], cut(error.message), metadata)
    raise AssertionError("abort returned")


def cut(text: str) -> str:
    """What clients wrote into names may be long; the rest of the sentence is not."""
    raw = text.encode(errors="replace")
    return raw[:_TEXT_BYTES_MAX].decode(errors="ignore") + ("..." if len(raw) > _TEXT_BYTES_MAX else "")


def as_refusal(error: Exception, method: str, observer: Observer, trace: TraceContext | None = None) -> ServingError:
    """Any exception of a handler as what the client may know of it; an unexpected one goes to the observer."""
    if isinstance(error, ServingError):
        return error
    if isinstance(error, DecodeError):
        return ServingError(Reason.INVALID_REQUEST, f"the message is no {method} request: it does not parse")
    error_id = secrets.token_hex(8)
    observer.handler_failed(method, error_id, error, trace)
    return ServingError(Reason.EXECUTION_FAILED, f"internal error in {method} (error id {error_id})")


def guarded(method: str, handler: UnaryHandler, observer: Observer, table: StatusTable = STATUS) -> UnaryHandler:
    """The handler, with every exception turned into a status."""

    async def guard(request: Any, context: Context) -> bytes:
        try:
            return await handler(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - nothing of it reaches the client
            await refuse(context, as_refusal(error, method, observer), table)

    return guard


def guarded_stream(
    method: str, handler: StreamHandler, observer: Observer, table: StatusTable = STATUS
) -> StreamHandler:
    """The same for a handler that writes its answers itself. gRPC's own errors are about a client that has left."""

    async def guard(request: Any, context: Context) -> None:
        try:
            await handler(request, context)
        except (asyncio.CancelledError, grpc.aio.BaseError):
            raise
        except Exception as error:  # noqa: BLE001 - nothing of it reaches the client
            await refuse(context, as_refusal(error, method, observer), table)

    return guard
