"""What is traced of calls over a real socket: headers, statuses, streams, and what is kept although nothing was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from support.edge import Edge, Gate, Served, edge, eventually, infer_request, signature
from support.traces import KeptTraces
from turnout.backends.synthetic import SyntheticModel
from turnout.core.tensors import InferenceResponse
from turnout.runtime.jobs import SlotLimits
from turnout.transport.tracing import _headers
from turnout_wire.gen import grpc_service_pb2 as pb

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ((), (None, "")),
        ((("user-agent", "x"), ("traceparent", PARENT)), (PARENT, "")),
        ((("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", "b=2")), (PARENT, "a=1,b=2")),
        ((("traceparent", PARENT), ("traceparent", PARENT)), ("", "")),
        ((("traceparent", b"\xff"), ("tracestate", b"\xff")), ("", "")),
    ],
)
def test_headers_are_read_by_hand(
    metadata: tuple[tuple[str, str | bytes], ...], expected: tuple[str | None, str]
) -> None:
    assert _headers(metadata) == expected


async def test_an_answered_request_is_told_with_its_times_and_its_batch() -> None:
    tracer = KeptTraces()
    async with edge(tracer=tracer) as server:
        await server.stub.ModelInfer(infer_request(request_id="r"), metadata=(("traceparent", PARENT),))
    assert tracer.headers == [(PARENT, "")]
    [ended], [batch] = tracer.requests, tracer.batches
    assert (ended.method, ended.status, ended.captured) == ("ModelInfer", "OK", "")
    assert ended.request is not None and ended.request.inference_id == "r" and ended.request.trace == ended.trace
    assert isinstance(ended.outcome, InferenceResponse)
    timings = ended.outcome.timings
    assert timings.batch == batch.trace and list(batch.links) == [ended.trace]
    assert ended.started_ns <= timings.started_ns - timings.queue_ns <= timings.started_ns <= ended.ended_ns


async def test_nothing_is_told_of_a_request_that_is_not_traced() -> None:
    tracer = KeptTraces(sampled=False)
    async with edge(tracer=tracer) as server:
        await server.stub.ModelInfer(infer_request())
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.ModelInfer(infer_request(model="unknown"))
    assert not tracer.requests and not tracer.batches
    assert tracer.room == 100, "a client's own mistake is not worth keeping"


async def test_a_server_that_does_not_trace_does_not_look_at_headers() -> None:
    tracer = KeptTraces(on=False, slow_ns=0)
    async with edge({"m": Served(SyntheticModel(signature(), poison=1e6))}, tracer=tracer) as server:
        await server.stub.ModelInfer(infer_request())
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.ModelInfer(infer_request(1e6))
    assert not tracer.headers and not tracer.requests


Spoil = Callable[[pb.ModelInferRequest], object]


@pytest.mark.parametrize(
    ("model", "value", "status", "understood"),
    [
        ("unknown", 1.0, "NOT_FOUND", False),
        ("m", 1e6, "INTERNAL", True),
    ],
)
async def test_a_traced_failure_has_the_status_that_the_client_gets(
    model: str, value: float, status: str, understood: bool
) -> None:
    tracer = KeptTraces()
    async with edge({"m": Served(SyntheticModel(signature(), poison=1e6))}, tracer=tracer) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await server.stub.ModelInfer(infer_request(value, model=model))
    [ended] = tracer.requests
    assert failure.value.code().name == ended.status == status
    assert (ended.request is not None) is understood


async def test_overload_has_the_status_that_it_is_configured_to_have() -> None:
    tracer = KeptTraces()
    gate = Gate()
    models = {"m": Served(SyntheticModel(signature(), wait=gate))}
    limits = SlotLimits(1, 1 << 30)
    async with edge(models, tracer=tracer, limits=limits, overload=grpc.StatusCode.UNAVAILABLE) as server:
        gate.shut()
        running = asyncio.ensure_future(_answer(server))
        await gate.reached()
        waiting = asyncio.ensure_future(_answer(server))
        await eventually(server.queued_rows)
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.ModelInfer(infer_request())
        gate.open()
        await asyncio.gather(running, waiting)
    assert [ended.status for ended in tracer.requests] == ["UNAVAILABLE", "OK", "OK"]


async def _answer(server: Edge) -> None:
    await server.stub.ModelInfer(infer_request())


@pytest.mark.parametrize(("deadline_s", "status"), [(None, "CANCELLED"), (0.2, "DEADLINE_EXCEEDED")])
async def test_a_client_that_leaves_and_a_deadline_are_told_apart(deadline_s: float | None, status: str) -> None:
    tracer = KeptTraces()
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}, tracer=tracer) as server:
        gate.shut()
        call = server.stub.ModelInfer(infer_request(), timeout=deadline_s)
        await gate.reached()
        if deadline_s is None:
            call.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call
        await eventually(lambda: tracer.requests)
        gate.open()
    [ended] = tracer.requests
    assert ended.status == status and not isinstance(ended.outcome, InferenceResponse)


async def test_each_request_of_a_stream_is_told() -> None:
    tracer = KeptTraces()
    async with edge({"m": Served(SyntheticModel(signature(), poison=1e6))}, tracer=tracer) as server:
        call = server.stub.ModelStreamInfer(metadata=(("traceparent", PARENT),))
        for value in (1.0, 1e6):
            await call.write(infer_request(value))
        await call.done_writing()
        answers = [answer async for answer in call]
    assert [bool(answer.error_message) for answer in answers] == [False, True]
    assert {(ended.method, ended.status) for ended in tracer.requests} == {
        ("ModelStreamInfer", "OK"),
        ("ModelStreamInfer", "INTERNAL"),
    }
    assert tracer.headers == [(PARENT, "")] * 2


async def test_slow_and_failed_requests_are_kept_while_there_is_room() -> None:
    tracer = KeptTraces(sampled=False, room=2)
    async with edge({"m": Served(SyntheticModel(signature(), poison=1e6))}, tracer=tracer) as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.ModelInfer(infer_request(1e6))
        tracer.slow_ns = 0
        for _ in range(2):
            await server.stub.ModelInfer(infer_request(), metadata=(("traceparent", PARENT),))
    assert [(ended.captured, ended.status) for ended in tracer.requests] == [("failed", "INTERNAL"), ("slow", "OK")]
    assert tracer.headers[-1] == (PARENT, "")
    assert not tracer.batches, "batches are told of where a request in them was traced from the start"


async def test_a_fault_of_our_own_is_logged_with_its_trace() -> None:
    class Broken:
        def route(self, model: str) -> None:
            raise RuntimeError("a fault")

    tracer = KeptTraces()
    async with edge(tracer=tracer, dispatcher=Broken()) as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.ModelInfer(infer_request())
        [ended] = tracer.requests
        assert server.seen.traces == [ended.trace]
        assert ended.status == "INTERNAL"
