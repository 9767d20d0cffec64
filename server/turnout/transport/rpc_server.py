"""A gRPC server on the event loop: accepts RPCs, begins their handlers, and stops. What an RPC is, is told by `rpcs`.

All of it happens on the loop thread but for the first look at a call, which is the waiting thread's: see `completions`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from turnout.transport.completions import Completions
from turnout.transport.rpcs import Method, Rpc

_ACCEPTS = 128  # RPCs, and first messages, that gRPC may hand over before the loop has looked at the first of them
_LAST_WORD_S = 5.0  # of handlers that were cancelled when the server stopped


class RpcServer:
    """Serves RPCs by the handlers of their paths.

    Args:
        method: of a path, on any thread; None: there is none.
    """

    def __init__(self, method: Callable[[str], Method | None], options: Sequence[tuple[str, int]]) -> None:
        self._method = method
        self._server = cygrpc.Server(tuple(options), False)
        self._completions = Completions(self._arrived)
        self._server.register_completion_queue(self._completions.queue)
        self._rpcs: set[Rpc] = set()
        self._none_left = asyncio.Event()
        self._started = False
        self._stopping: asyncio.Task[None] | None = None
        self.stopped = False  # nothing can be asked of gRPC any more

    def add_insecure_port(self, address: str) -> int:
        """The port that is listened on; 0: the address cannot be had."""
        try:
            return int(self._server.add_http2_port(address.encode()))
        except RuntimeError:
            return 0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._started = True
        self._server.start()
        for _ in range(_ACCEPTS):
            self._accept()
        self._completions.start()

    async def stop(self, grace_s: float) -> None:
        """Take no further RPCs, let those under way finish for up to `grace_s` seconds, then cancel the rest."""
        if not self._started:
            await self._completions.stop()
            return
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop())
        try:
            await asyncio.wait_for(asyncio.shield(self._stopping), grace_s)
        except TimeoutError:
            self._server.cancel_all_calls()
            await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        ended = asyncio.Event()
        self._server.shutdown(self._completions.queue, (lambda _: ended.set(), True))
        await ended.wait()
        self._server.destroy()
        if self._rpcs:  # cancelled: their handlers have a last word
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_left.wait(), _LAST_WORD_S)
        self.stopped = True
        await self._completions.stop()

    def forget(self, rpc: Rpc) -> None:
        """An RPC has ended."""
        self._rpcs.discard(rpc)
        if self._stopping is not None and not self._rpcs:
            self._none_left.set()

    def _accept(self) -> None:
        self._server.request_call(self._completions.queue, self._completions.queue, None)

    def _arrived(self, event: Any) -> Callable[[Any], None]:
        """On the waiting thread. A call's first message is asked for at once: the loop is told of both together."""
        method = self._method(event.call_details.method.decode(errors="replace"))
        rpc = Rpc(self, event, self._loop)
        rpc.receive(first=method is not None)
        return partial(self._begin, rpc, method)

    def _begin(self, rpc: Rpc, method: Method | None, _: Any) -> None:
        if self._stopping is None:
            self._accept()
        self._rpcs.add(rpc)
        rpc.begin(method)
