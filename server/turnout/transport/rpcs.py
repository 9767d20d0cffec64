"""An RPC on the event loop: a task for its handler, and the context that this reads, writes and ends it with.

Handlers have the signature of `grpc.aio`'s, and contexts as much of its ServicerContext as handlers here use. All of it
happens on the loop thread; the thread of `completions` only waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from turnout.transport.completions import LATE_S

Metadata = tuple[tuple[str, str | bytes], ...]
_NO_DEADLINE_S = 1e15  # gRPC's "never" is far beyond
_NO_FLAGS = 0


@dataclass(frozen=True, slots=True)
class Method:
    """What serves one path.

    Attributes:
        run: takes the request and the context. It answers with the message that it returns, or writes its answers.
        reads: it reads the requests itself, and gets what gives them in the place of the request: the context. So it
            knows of a call before its message is there.
    """

    run: Callable[[Any, Any], Awaitable[bytes | None]]
    reads: bool = True


class ClientLeft(grpc.aio.BaseError):
    """What was written can reach nobody."""


class Owner(Protocol):
    """Whose RPC it is: the server."""

    @property
    def stopped(self) -> bool:
        """Nothing can be asked of gRPC any more."""

    def forget(self, rpc: Rpc) -> None:
        """The RPC has ended."""


class Rpc:
    """One RPC: the context of its handler."""

    __slots__ = (
        "_begun",
        "_call",
        "_callbacks",
        "_code",
        "_deadline_s",
        "_early",
        "_loop",
        "_metadata",
        "_owner",
        "_reading",
        "_receiving",
        "_running",
        "_task",
    )

    def __init__(self, owner: Owner, event: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._call = event.call
        self._metadata: Metadata = event.invocation_metadata
        self._deadline_s: float = event.call_details.deadline
        self._owner = owner
        self._callbacks: list[Callable[[Rpc], None]] = []
        self._begun = False  # its initial metadata has been sent
        self._code: grpc.StatusCode | None = None  # it ended with
        self._reading: asyncio.Future[bytes | None] | None = None
        self._receiving = False  # gRPC has been asked for a message
        self._early: list[bytes | None] = []  # the message that came before the handler asked for one
        self._running = False  # its handler has been called
        self._task: asyncio.Task[None] | None = None  # of its handler, until that has ended
        self._loop = loop

    def receive(self, *, first: bool) -> None:
        """Ask gRPC what becomes of the client, and for the first message. On the waiting thread."""
        self._start((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._closed, urgent=False)
        if first:
            self._receive()

    def begin(self, method: Method | None) -> None:
        self._task = self._loop.create_task(self._run(method))
        self._task.add_done_callback(self._handled)

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None: it has none."""
        return None if self._deadline_s > _NO_DEADLINE_S else max(self._deadline_s - time.time(), 0.0)

    def code(self) -> grpc.StatusCode | None:
        """What it was ended with."""
        return self._code

    def peer(self) -> str:
        """The client's address, as gRPC writes it."""
        return str(self._call.peer(), errors="replace")

    def peer_identities(self) -> Sequence[bytes] | None:
        """What the client's certificate says; None: it showed none."""
        identities: Sequence[bytes] | None = cygrpc.peer_identities(self._call)
        return identities

    def add_done_callback(self, callback: Callable[[Rpc], None]) -> None:
        """Called once gRPC is done with it: its status has been sent, or its client has left."""
        self._callbacks.append(callback)

    def read(self) -> asyncio.Future[bytes | None]:
        """The next message; None: there is none any more. One at a time."""
        reading: asyncio.Future[bytes | None] = self._loop.create_future()
        if self._early:
            reading.set_result(self._early.pop())
            return reading
        if self._reading is not None and not self._reading.done():
            raise RuntimeError("a message is being read already")
        self._reading = reading
        if not self._receiving:
            self._receive()
        return reading

    def __aiter__(self) -> Rpc:
        return self

    async def __anext__(self) -> bytes:
        message = await self.read()
        if message is None:
            raise StopAsyncIteration
        return message

    def write(self, message: bytes) -> asyncio.Future[None]:
        """Ends when gRPC has taken it, which it does as fast as the client reads. One at a time.

        Raises:
            ClientLeft: nobody reads.
        """
        writing: asyncio.Future[None] = self._loop.create_future()
        send = cygrpc.SendMessageOperation(message, _NO_FLAGS)
        self._send((send,), partial(self._written, writing))
        return writing

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """Raises:
        AbortError: always.
        """
        self._finish(code, details, trailing_metadata)
        raise grpc.aio.AbortError(code, details)

    def cancel(self) -> None:
        """End it, whether its handler is at work or its answer on the way."""
        if self._task is None:
            self._cancel()
        elif self._running:
            self._task.cancel()
        else:  # it begins in the loop's next turn: then the call is counted, and its end with it
            self._loop.call_soon(self._task.cancel)

    async def _run(self, method: Method | None) -> None:
        self._running = True
        try:
            if method is None:
                self._finish(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
                return
            request: Any = self
            if not method.reads and (request := await self.read()) is None:
                return  # the client left before it had sent it
            self._finish(grpc.StatusCode.OK, "", answer=await method.run(request, self))
        except (asyncio.CancelledError, grpc.aio.BaseError):
            pass
        except Exception as error:  # noqa: BLE001 - handlers are guarded: a fault of the guard itself
            self._loop.call_exception_handler({"message": "a handler failed", "exception": error})
            with contextlib.suppress(RuntimeError):  # then it is cancelled
                self._finish(grpc.StatusCode.UNKNOWN, "internal error")

    def _handled(self, _: object) -> None:
        self._task = None  # a cycle
        if self._code is None:  # cancelled, or failed beyond telling
            self._cancel()
            self._done()

    def _finish(
        self, code: grpc.StatusCode, details: str, trailing: Metadata = (), *, answer: bytes | None = None
    ) -> None:
        if self._code is not None:
            return
        status = cygrpc.SendStatusFromServerOperation(
            trailing, code.value[0], details.encode(errors="replace"), _NO_FLAGS
        )
        message = () if answer is None else (cygrpc.SendMessageOperation(answer, _NO_FLAGS),)
        self._send((*message, status), self._sent, urgent=False)
        self._code = code

    def _send(self, operations: Sequence[Any], handle: Callable[[Any], None], *, urgent: bool = True) -> None:
        first = () if self._begun else (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),)
        self._start((*first, *operations), handle, urgent=urgent)
        self._begun = True

    def _start(self, operations: Sequence[Any], handle: Callable[[Any], None], *, urgent: bool = True) -> None:
        """Raises:
        RuntimeError: gRPC does not take them now, or never: their event will not come.
        """
        if self._owner.stopped:
            raise RuntimeError("the server has stopped")
        if error := self._call.start_server_batch(operations, (handle, urgent)):
            raise RuntimeError(f"gRPC refused what was asked of a call (error {error})")

    def _cancel(self) -> None:
        self._call.cancel(cygrpc.StatusCode.cancelled, "cancelled by the server")

    def _closed(self, event: Any) -> None:
        if self._task is not None and self._code is None and event.batch_operations[0].cancelled():
            self.cancel()

    def _receive(self) -> None:
        self._receiving = True
        self._start((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._received)

    def _received(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is None:  # gRPC says so first, and then whether the client has left: that is told within LATE_S
            self._loop.call_later(2 * LATE_S, self._give, None)
        else:
            self._give(message)

    def _give(self, message: bytes | None) -> None:
        self._receiving = False
        reading, self._reading = self._reading, None
        if reading is None or reading.done():
            self._early.append(message)
        else:
            reading.set_result(message)

    def _written(self, writing: asyncio.Future[None], event: Any) -> None:
        if writing.done():
            return
        if event.success:
            writing.set_result(None)
        else:
            writing.set_exception(ClientLeft("the client has left"))

    def _sent(self, _: Any) -> None:
        self._done()

    def _done(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        try:
            for callback in callbacks:
                callback(self)
        finally:
            self._owner.forget(self)
