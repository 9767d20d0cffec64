"""Server reflection over the public descriptors: grpcio's servicer behind our guard, ended when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from turnout.core.errors import Reason, ServingError
from turnout.transport.health import HEALTH_SERVICE
from turnout.transport.status import Context, refuse
from turnout_wire.descriptors import PUBLIC_SET, public_pool
from turnout_wire.service import SERVICE

REFLECTION_PATH = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"


class Reflection:
    """Says which services there are, and their files, under public names: by default those of the data plane."""

    def __init__(self, services: tuple[str, ...] = (SERVICE, HEALTH_SERVICE), public_set: str = PUBLIC_SET) -> None:
        names = (*services, reflection.SERVICE_NAME)
        more = (health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb)
        pool = public_pool(*more, public_set=public_set)
        self._servicer = reflection.aio.ReflectionServicer(names, pool=pool)
        self._open: set[asyncio.Task[None]] = set()
        self._closed = False

    def close(self) -> None:
        """End every stream: an idle one would hold up the server's stop for the whole grace."""
        self._closed = True
        for task in self._open:
            task.cancel()

    async def stream(self, raws: AsyncIterator[bytes], context: Context) -> None:
        answering = asyncio.ensure_future(self._answer(raws, context))
        self._open.add(answering)
        answering.add_done_callback(self._open.discard)
        if self._closed:
            answering.cancel()
        try:
            await asyncio.wait({answering})
        finally:
            answering.cancel()
        if answering.cancelled():
            await refuse(context, ServingError(Reason.NOT_READY, "the server stops: ask another one"))
        answering.result()

    async def _answer(self, raws: AsyncIterator[bytes], context: Context) -> None:
        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            async for raw in raws:
                yield reflection_pb2.ServerReflectionRequest.FromString(raw)

        async for reply in self._servicer.ServerReflectionInfo(requests(), context):
            await context.write(reply.SerializeToString())
