"""The gRPC server of the admin plane, on a port of its own: SlotService, FeedbackService and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from turnout.runtime.counts import Counts
from turnout.runtime.ports import Observer
from turnout.transport.admin import SlotHandlers
from turnout.transport.admin_status import Handler, guarded_admin
from turnout.transport.comparisons import ComparisonHandlers
from turnout.transport.counting import counted
from turnout.transport.reflection import REFLECTION_PATH, Reflection
from turnout.transport.server import PortInUse, listen_address
from turnout.transport.status import Context, guarded_stream
from turnout_wire.admin import FEEDBACK_METHODS, FEEDBACK_SERVICE, METHODS, SERVICE
from turnout_wire.descriptors import ADMIN_SET

_MESSAGE_BYTES_MAX = 1 << 20  # the largest request is a list of weights and pins
_CALLS_MAX = 256  # beyond it gRPC answers RESOURCE_EXHAUSTED; streams count
_STREAMS_MAX = 128  # watches and reflection, which stay: they must leave room for a rollback


class AdminServer:
    """Listens on one port."""

    def __init__(
        self, slots: SlotHandlers, comparisons: ComparisonHandlers, observer: Observer, counts: Counts
    ) -> None:
        self._streams = _Streams()
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.enable_channelz", 0),
            ],
            maximum_concurrent_rpcs=_CALLS_MAX,
        )
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        served = {**slots.handlers(), "WatchComparisons": comparisons.watch, "RecordFeedback": comparisons.record}
        for name, handler in served.items():
            method = (METHODS | FEEDBACK_METHODS)[name]
            guarded = guarded_admin(name, handler, observer)
            if method.stream:
                stream = counted(method.path, self._streams.bounded(guarded), counts)
                handlers[method.path] = grpc.unary_stream_rpc_method_handler(stream)
            else:
                handlers[method.path] = grpc.unary_unary_rpc_method_handler(counted(method.path, guarded, counts))
        reflection = Reflection((SERVICE, FEEDBACK_SERVICE), ADMIN_SET)
        reflect = guarded_stream("ServerReflectionInfo", reflection.stream, observer)
        bounded = counted(REFLECTION_PATH, self._streams.bounded(reflect), counts)
        handlers[REFLECTION_PATH] = grpc.stream_stream_rpc_method_handler(bounded)
        self._server.add_generic_rpc_handlers((_Paths(handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen and serve; returns the port.

        Raises:
            PortInUse: another process listens there, or the address is not this machine's.
        """
        address = listen_address(host, port)
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            raise PortInUse(f"cannot listen on {address}: choose another --admin-host or --admin-port, or --no-admin")
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """End streams, let other calls finish for up to `grace_s` seconds."""
        self._streams.close()
        await self._server.stop(grace_s)


class _Paths(grpc.GenericRpcHandler):
    """Method handlers by path."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]) -> None:
        self._get = handlers.get

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._get(handler_call_details.method)


class _Streams:
    """Streams under way: bounded apart from other calls, and ended when the server stops. None ends by itself."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()
        self._closed = False

    def close(self) -> None:
        self._closed = True
        for task in self._open:
            task.cancel()

    def bounded(self, handler: Handler) -> Handler:
        async def stream(request: Any, context: Context) -> None:
            if len(self._open) >= _STREAMS_MAX:
                await context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{len(self._open)} streams (watches, reflection) are under way, the limit is {_STREAMS_MAX}: "
                    "end one, or ask with GetModel",
                )
            task: asyncio.Task[None] = asyncio.ensure_future(handler(request, context))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            if self._closed:
                task.cancel()
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
            if task.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops: ask another one")
            task.result()

        return stream
