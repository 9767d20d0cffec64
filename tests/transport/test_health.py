"""grpc.health.v1: Check and Watch for the server, the service and each model."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.edge import FakeContext, Served, edge
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import SERVICE

Status = health_pb2.HealthCheckResponse
NAMES = ["", SERVICE, "m", f"{SERVICE}/m"]


def health(channel: grpc.aio.Channel) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(channel)


def about(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", NAMES)
async def test_check_follows_readiness(service: str) -> None:
    async with edge() as server:
        assert (await health(server.channel).Check(about(service))).status == Status.SERVING
        server.server.set_not_ready()
        assert (await health(server.channel).Check(about(service))).status == Status.NOT_SERVING
        assert (await server.stub.ServerReady(pb.ServerReadyRequest())).ready is False
        assert (await server.stub.ServerLive(pb.ServerLiveRequest())).live is True


async def test_a_model_that_cannot_serve_is_not_serving_while_the_server_is() -> None:
    models = {"m": Served(), "sick": Served(failing={1: "no"}), "lost": Served(problem="no file")}
    async with edge(models) as server:
        for name in ("sick", "lost"):
            assert (await health(server.channel).Check(about(name))).status == Status.NOT_SERVING
        assert (await health(server.channel).Check(about(""))).status == Status.SERVING


async def test_a_server_without_any_model_that_can_serve_is_not_serving() -> None:
    async with edge({"sick": Served(failing={1: "no"})}) as server:
        for name in ("", SERVICE):
            assert (await health(server.channel).Check(about(name))).status == Status.NOT_SERVING
        assert (await server.stub.ServerReady(pb.ServerReadyRequest())).ready is False


async def test_check_of_an_unknown_service() -> None:
    async with edge() as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health(server.channel).Check(about("somebody.else.Service"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "unknown service 'somebody.else.Service'"


@pytest.mark.parametrize("service", NAMES)
async def test_watcher_sees_the_change_once(service: str) -> None:
    async with edge() as server:
        watch = health(server.channel).Watch(about(service))
        assert (await watch.read()).status == Status.SERVING
        server.health.set_serving(True)  # no change: nothing is sent
        server.server.set_not_ready()
        assert (await watch.read()).status == Status.NOT_SERVING
        server.health.set_serving(True)
        assert (await watch.read()).status == Status.SERVING
        watch.cancel()


async def test_watch_of_an_unknown_service_stays_open() -> None:
    async with edge() as server:
        watch = health(server.channel).Watch(about("nobody"))
        assert (await watch.read()).status == Status.SERVICE_UNKNOWN
        assert not watch.done()
        watch.cancel()


@pytest.mark.parametrize("rpc", ["Check", "Watch"])
async def test_garbage_is_no_request(rpc: str) -> None:
    async with edge() as server:
        path = f"/grpc.health.v1.Health/{rpc}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            if rpc == "Check":
                await server.channel.unary_unary(path)(b"\xff\xff")
            else:
                await server.channel.unary_stream(path)(b"\xff\xff").read()
        assert not server.seen.handler_failures
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == f"the message is no {rpc} request: it does not parse"


class _BrokenFleet:
    def model(self, name: str) -> None:
        raise RuntimeError("/secret")


@pytest.mark.parametrize("rpc", ["Check", "Watch"])
async def test_exception_stays_inside(rpc: str) -> None:
    async with edge(fleet=_BrokenFleet()) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            if rpc == "Check":
                await health(server.channel).Check(about("m"))
            else:
                await health(server.channel).Watch(about("m")).read()
        ((method, error_id, error),) = server.seen.handler_failures
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert failed.value.details() == f"internal error in {rpc} (error id {error_id})"
    assert (method, str(error)) == (rpc, "/secret")


async def test_watcher_whose_first_answer_is_still_on_its_way_sees_the_change_before_the_end() -> None:
    class Slow(FakeContext):
        async def write(self, message: bytes) -> None:
            await asyncio.sleep(0)
            await super().write(message)

    async with edge() as server:
        context = Slow()
        watch = asyncio.ensure_future(server.health.watch(b"", context))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        server.health.close()
        await watch
    seen = [health_pb2.HealthCheckResponse.FromString(raw).status for raw in context.written]
    assert seen == [Status.SERVING, Status.NOT_SERVING]


async def test_watchers_do_not_hold_up_the_stop() -> None:
    """A watch never ends by itself, so the grace would pass in full at every stop."""
    async with edge() as server:
        watch = health(server.channel).Watch(about(""))
        assert (await watch.read()).status == Status.SERVING
        await asyncio.wait_for(server.server.stop(60), 20)
        assert (await watch.read()).status == Status.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
