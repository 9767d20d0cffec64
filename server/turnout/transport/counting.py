"""Every call, with its method, its status and how long its handler took. The outermost layer of a handler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from turnout.runtime.counts import Counts
from turnout.transport.calls import EARLY_NS
from turnout.transport.status import Context

T = TypeVar("T")
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def counted(
    path: str, handler: Callable[[Any, Context], Awaitable[T]], counts: Counts
) -> Callable[[Any, Context], Awaitable[T]]:
    """The guarded handler of this path, which ends calls by returning, or by `context.abort`."""
    method = path.removeprefix("/")

    async def count(request: Any, context: Context) -> T:
        started_ns = time.monotonic_ns()
        status = "OK"
        try:
            return await handler(request, context)
        except asyncio.CancelledError:
            status = _left(context)
            raise
        except grpc.aio.AbortError:
            status = _name(context.code())
            raise
        except grpc.aio.BaseError:  # the client has left while it was written to, or refused
            status = _left(context)
            raise
        finally:
            counts.call(method, status, time.monotonic_ns() - started_ns)

    return count


def _left(context: Context) -> str:
    """How a call ended whose client waits no more."""
    remaining_s = context.time_remaining()
    return "CANCELLED" if remaining_s is None or remaining_s * 1e9 > EARLY_NS else "DEADLINE_EXCEEDED"


def _name(code: Any) -> str:
    """gRPC gives its status as a number or as the code itself, which its stubs do not tell."""
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")
