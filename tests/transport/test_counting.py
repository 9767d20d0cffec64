"""Every call is counted by method and status, and every request that no slot has seen by model and reason."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.edge import CallLimits, Edge, FakeContext, Gate, Served, edge, eventually, infer_request, signature
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import Reason, ServingError
from turnout.runtime.counts import Counts
from turnout.transport.counting import counted
from turnout_wire.gen import grpc_service_pb2 as pb

INFER = "inference.GRPCInferenceService/ModelInfer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"
READY = "inference.GRPCInferenceService/ModelReady"
CHECK = "grpc.health.v1.Health/Check"


def calls(counts: Counts) -> dict[tuple[str, str], int]:
    return {key: durations.sketch.count for key, durations in counts.calls.items()}


async def code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


async def test_calls_by_method_and_status() -> None:
    async with edge() as server:
        for _ in range(2):
            await server.stub.ModelInfer(infer_request())
        await code(server.stub.ModelInfer(infer_request(model="other")))
        await code(server.stub.ModelInfer(pb.ModelInferRequest(model_name="m")))
        await server.stub.ModelReady(pb.ModelReadyRequest(name="m"))
        health = health_pb2_grpc.HealthStub(server.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        await code(health.Check(health_pb2.HealthCheckRequest(service="other")))
        stream = server.stub.ModelStreamInfer(iter([infer_request(), infer_request(model="other")]))
        assert [bool(answer.error_message) async for answer in stream] == [False, True]
        await eventually(lambda: (STREAM, "OK") in server.counts.calls)
        assert calls(server.counts) == {
            (INFER, "OK"): 2,
            (INFER, "NOT_FOUND"): 1,
            (INFER, "INVALID_ARGUMENT"): 1,
            (READY, "OK"): 1,
            (CHECK, "OK"): 1,
            (CHECK, "NOT_FOUND"): 1,
            (STREAM, "OK"): 1,
        }


async def test_a_client_that_leaves_and_one_whose_time_is_over() -> None:
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}) as server:
        gate.shut()
        running = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
        await gate.reached()
        running.cancel()
        await eventually(lambda: (INFER, "CANCELLED") in server.counts.calls)
        assert await code(server.stub.ModelInfer(infer_request(), timeout=0.2)) is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: (INFER, "DEADLINE_EXCEEDED") in server.counts.calls)
        gate.open()
        assert server.counts.calls[INFER, "DEADLINE_EXCEEDED"].total_ns > 100_000_000
        assert server.counts.refused == {}, "the slot has seen both"


async def test_another_overload_code_is_counted_as_it_is() -> None:
    limits = CallLimits(calls_max=0, transfer_timeout_s=60)
    async with edge(call_limits=limits, overload=grpc.StatusCode.UNAVAILABLE) as server:
        assert await code(server.stub.ModelInfer(infer_request())) is grpc.StatusCode.UNAVAILABLE
        assert calls(server.counts) == {(INFER, "UNAVAILABLE"): 1}
        assert server.counts.refused == {("_OTHER", "queue_full"): 1}


async def refusals(server: Edge) -> dict[tuple[str, str], int]:
    return dict(server.counts.refused)


async def test_requests_that_no_slot_has_seen() -> None:
    async with edge({"m": Served(), "broken": Served(problem="no file")}) as server:
        many = [infer_request(model=f"client's {number}") for number in range(20)]
        for request in (*many, infer_request(model="broken"), infer_request(request_id="x" * 70_000)):
            await code(server.stub.ModelInfer(request))
        infer = server.channel.stream_unary("/" + INFER)
        await code(infer(iter([b"\xff\xff"])))
        await code(infer(iter([])))
        stream = server.stub.ModelStreamInfer(iter([infer_request(model="other")]))
        assert [bool(answer.error_message) async for answer in stream] == [True]
        wrong_shape = infer_request()
        wrong_shape.inputs[0].shape[1] = 2
        await code(server.stub.ModelInfer(wrong_shape))
        server.inference.close()
        assert await code(server.stub.ModelInfer(infer_request())) is grpc.StatusCode.UNAVAILABLE
        counted_here = await refusals(server)
    # Whatever clients call models, there is one label for all of them.
    assert counted_here[("_OTHER", "not_found")] == 21
    assert counted_here[("broken", "not_found")] == 1
    assert counted_here[("_OTHER", "invalid_request")] == 2
    assert counted_here[("_OTHER", "not_ready")] == 1
    assert {model for model, _ in counted_here} == {"_OTHER", "broken", "m"}


async def test_a_slot_that_is_gone_between_look_and_lease() -> None:
    """Part of a split that is not READY: `find` sees another slot that is."""

    class OneOfTwo:
        def __init__(self, real: Any) -> None:
            self._real = real
            self.knows = real.knows
            self.find = real.find
            self.route = real.route

        def infer(self, request: Any, settle: Any) -> Any:
            raise ServingError(Reason.NOT_READY, "slot 'green' is FAILED")

    async with edge() as server:
        exchanges = server.inference._exchanges
        exchanges._dispatcher = OneOfTwo(exchanges._dispatcher)  # type: ignore[assignment]
        assert await code(server.stub.ModelInfer(infer_request())) is grpc.StatusCode.UNAVAILABLE
        assert await refusals(server) == {("m", "not_ready"): 1}


@pytest.mark.parametrize(
    ("raised", "remaining_s", "status"),
    [
        (None, None, "OK"),
        (asyncio.CancelledError(), None, "CANCELLED"),
        (asyncio.CancelledError(), 3.0, "CANCELLED"),
        (asyncio.CancelledError(), -0.1, "DEADLINE_EXCEEDED"),
        (grpc.aio.UsageError("the call is closed"), None, "CANCELLED"),
    ],
)
async def test_how_a_handler_ends(raised: BaseException | None, remaining_s: float | None, status: str) -> None:
    counts = Counts()

    async def handler(request: Any, context: Any) -> bytes:
        if raised is not None:
            raise raised
        return b""

    call = counted("/p.S/M", handler, counts)(b"", FakeContext(remaining_s=remaining_s))  # type: ignore[arg-type]
    if raised is None:
        assert await call == b""
    else:
        with pytest.raises(type(raised)):
            await call
    assert calls(counts) == {("p.S/M", status): 1}
