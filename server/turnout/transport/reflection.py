"""Server reflection over the public descriptors and those of models' own services: grpcio's servicer behind our guard,
ended when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from turnout.core.errors import Reason, ServingError
from turnout.transport.health import HEALTH_SERVICE
from turnout.transport.status import Context, refuse
from turnout_wire.descriptors import PUBLIC_SET, public_pool
from turnout_wire.packed import SERVICE as PACKED_SERVICE
from turnout_wire.service import SERVICE
from turnout_wire.typed import PACKAGE, ModelService, file_descriptor, file_name

REFLECTION_PATH = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"


class Reflection:
    """Says which services there are, and their files, under public names: by default those of the data plane."""

    def __init__(
        self, services: tuple[str, ...] = (SERVICE, PACKED_SERVICE, HEALTH_SERVICE), public_set: str = PUBLIC_SET
    ) -> None:
        self._names = (*services, reflection.SERVICE_NAME)
        more = (health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb)
        self._pool = _Pools(public_pool(*more, public_set=public_set))
        self._servicer = reflection.aio.ReflectionServicer(self._names, pool=self._pool)
        self._open: set[asyncio.Task[None]] = set()
        self._closed = False

    def serve_also(self, models: Iterable[ModelService]) -> None:
        """The models' own services, in the place of those that were told before."""
        self._pool.models = {service.name: service for service in models}
        names = [service.full_name for service in self._pool.models.values()]
        self._servicer = reflection.aio.ReflectionServicer((*self._names, *names), pool=self._pool)

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
        async def only(raw: bytes) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest.FromString(raw)

        async for raw in raws:  # each by the servicer of now: services come and go while a stream is open
            async for reply in self._servicer.ServerReflectionInfo(only(raw), context):
                await context.write(reply.SerializeToString())


class _Pools:
    """As much of a DescriptorPool as the servicer asks for. A model's file imports nothing, so it gets a pool of its
    own when somebody asks: a model that comes costs nothing here, and one that changes is no second definition."""

    def __init__(self, public: DescriptorPool) -> None:
        self.models: dict[str, ModelService] = {}
        self._public = public

    def __getattr__(self, name: str) -> Any:
        return getattr(self._public, name)  # extensions, which models have none of

    def FindFileByName(self, file: str) -> FileDescriptor:
        for service in self.models.values():
            if file_name(service) == file:
                return _pool(service).FindFileByName(file)  # type: ignore[no-untyped-call, no-any-return]
        return self._public.FindFileByName(file)  # type: ignore[no-untyped-call, no-any-return]

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        name = symbol.removeprefix(f"{PACKAGE}.").partition(".")[0]
        for service in (name, name.removesuffix("Request"), name.removesuffix("Response")):
            if symbol.startswith(f"{PACKAGE}.") and service in self.models:
                return _pool(self.models[service]).FindFileContainingSymbol(symbol)  # type: ignore[no-untyped-call, no-any-return]
        return self._public.FindFileContainingSymbol(symbol)  # type: ignore[no-untyped-call, no-any-return]


def _pool(service: ModelService) -> DescriptorPool:
    pool = DescriptorPool()
    pool.AddSerializedFile(file_descriptor(service).SerializeToString())  # type: ignore[no-untyped-call]
    return pool
