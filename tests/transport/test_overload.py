"""Bounds before a request is read, and what still answers while they are met."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.edge import CallLimits, Edge, Gate, Served, edge, eventually, floats, infer_request, signature
from support.raw_http2 import RawCall
from turnout.backends.synthetic import SyntheticModel
from turnout.runtime.account import Outcome
from turnout.runtime.budget import Budget
from turnout.runtime.jobs import SlotLimits
from turnout_wire.gen import grpc_service_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def half_open(server: Edge) -> Any:
    """A call of which only the headers arrive."""
    return server.channel.stream_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)()


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, bool]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    pushback = dict(refused.value.trailing_metadata()).get("grpc-retry-pushback-ms")
    return refused.value.code(), refused.value.details() or "", pushback is not None


async def answers_otherwise(server: Edge) -> None:
    """Health, reflection and the catalogue, as load balancers and operators need them."""
    health = health_pb2_grpc.HealthStub(server.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == serving
    assert (await server.stub.ServerReady(pb.ServerReadyRequest())).ready
    listed = reflection_pb2.ServerReflectionRequest(list_services="")
    reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo(iter([listed]))
    assert [s.name for s in (await reflection.read()).list_services_response.service]
    reflection.cancel()


async def test_calls_beyond_the_bound_are_refused_without_being_read() -> None:
    gate = Gate()
    limits = CallLimits(calls_max=3, transfer_timeout_s=60)
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}, call_limits=limits) as server:
        gate.shut()
        running = asyncio.ensure_future(server.stub.ModelInfer(infer_request(1.0)))
        await gate.reached()
        stalled = [half_open(server) for _ in range(2)]
        await eventually(lambda: server.inference.calls == 3)
        assert server.fleet.under_way.count == 4, "each call before it is read, and the request that was"
        for call in (server.stub.ModelInfer(infer_request()), half_open(server)):  # the second sends no request at all
            assert await refusal(call) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "this server is full (limit: 3 calls), retry later",
                True,
            )
        await answers_otherwise(server)
        for call in stalled:
            call.cancel()
        await eventually(lambda: server.inference.calls == 1)
        assert server.fleet.under_way.count == 2
        gate.open()
        assert floats(await running) == [2.0] * 4
        assert floats(await server.stub.ModelInfer(infer_request(2.0))) == [4.0] * 4
    assert server.inference.calls == server.fleet.under_way.count == 0


async def test_a_client_that_stalls_gives_its_place_back() -> None:
    limits = CallLimits(calls_max=2, transfer_timeout_s=0.2)
    async with edge(call_limits=limits) as server:
        calls = [half_open(server), half_open(server)]
        for call in calls:
            code, details, _ = await refusal(call)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert details == "the request took longer than 0.2 s to arrive: send it faster"
        await eventually(lambda: server.inference.calls == 0)
        assert floats(await server.stub.ModelInfer(infer_request(2.0))) == [4.0] * 4
        late = half_open(server)
        assert (await refusal(late))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not server.seen.handler_failures


@pytest.mark.parametrize("streamed", [False, True])
async def test_answers_that_are_not_read_are_bounded_in_number_bytes_and_time(streamed: bool) -> None:
    """A client whose HTTP/2 window is 0 takes no byte of an answer."""
    wide = {"m": Served(SyntheticModel(signature(width=8192)))}
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 8192])
    request.raw_input_contents.append(bytes(4 * 8192))
    raw = request.SerializeToString()
    limits = CallLimits(calls_max=100, transfer_timeout_s=1.5, answer_bytes_max=3 * 4 * 8192)
    async with edge(wide, call_limits=limits) as server:

        def ask() -> RawCall:
            call = RawCall(server.address, STREAM if streamed else INFER, window=0)
            call.declare(len(raw))
            call.write(raw, end=True)
            return call

        calls = [await asyncio.to_thread(ask) for _ in range(3)]
        await eventually(lambda: server.ended(Outcome.SUCCESS) == 3)
        await eventually(lambda: server.inference.answer_bytes > limits.answer_bytes_max)
        assert server.inference.calls == 3
        code, details, pushback = await refusal(server.stub.ModelInfer(infer_request()))
        assert (code, pushback) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert details == "this server is full (limit: 98304 bytes of answers that were not read), retry later"
        await answers_otherwise(server)
        if streamed:
            for call in calls:
                call.close()
        # Else by time: the clients do nothing.
        await eventually(lambda: server.inference.calls == 0)
        assert server.inference.answer_bytes == server.fleet.under_way.count == 0
        assert (await server.stub.ModelInfer(request)).raw_output_contents[0] == bytes(4 * 8192)
        for call in calls:
            call.close()


async def test_a_call_without_a_request_is_refused() -> None:
    async with edge() as server:
        call = half_open(server)
        await call.done_writing()
        assert await refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, "the call has no request message", False)


async def test_a_request_of_any_age_may_run_longer_than_it_may_take_to_arrive() -> None:
    gate = Gate()
    limits = CallLimits(calls_max=2, transfer_timeout_s=0.05)
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}, call_limits=limits) as server:
        gate.shut()
        running = asyncio.ensure_future(server.stub.ModelInfer(infer_request(1.0)))
        await gate.reached()
        assert (await refusal(half_open(server)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.open()
        assert floats(await running) == [2.0] * 4


@pytest.mark.parametrize("overload", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
async def test_overload_has_the_status_that_the_operator_chose(overload: grpc.StatusCode) -> None:
    gate = Gate()
    served = {"m": Served(SyntheticModel(signature(), wait=gate))}
    async with edge(served, limits=SlotLimits(2, 1 << 20), overload=overload) as server:
        gate.shut()
        waiting = [asyncio.ensure_future(server.stub.ModelInfer(infer_request()))]
        await gate.reached()
        waiting.append(asyncio.ensure_future(server.stub.ModelInfer(infer_request(rows=2))))
        await eventually(lambda: server.queued_rows() == 2)
        expected = (overload, "the queue of model 'm' is full (limit: 2 rows), retry later", True)
        assert await refusal(server.stub.ModelInfer(infer_request())) == expected
        streamed = server.stub.ModelStreamInfer(metadata=(("triton_grpc_error", "true"),))
        await streamed.write(infer_request())
        assert await refusal(streamed.read()) == expected
        await answers_otherwise(server)
        gate.open()
        await asyncio.gather(*waiting)


async def test_the_budget_of_the_server_holds_over_models_and_streams() -> None:
    gate = Gate()
    served = {name: Served(SyntheticModel(signature(), wait=gate)) for name in ("m", "n")}
    budget = Budget(rows_max=1000, bytes_max=3 * 16)
    async with edge(served, budget=budget) as server:
        gate.shut()
        stream = server.stub.ModelStreamInfer()
        await stream.write(infer_request(rows=2))
        await gate.reached()
        waiting = asyncio.ensure_future(server.stub.ModelInfer(infer_request(model="n")))
        await gate.reached()
        code, details, pushback = await refusal(server.stub.ModelInfer(infer_request(model="n")))
        assert (code, pushback) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert details == "this server is full (limit: 48 bytes), retry later"
        await stream.write(infer_request(request_id="late"))
        await eventually(lambda: server.ended(Outcome.REJECTED) == 1)
        gate.open()
        await waiting
        assert (await stream.read()).error_message == ""
        assert (await stream.read()).error_message == details
        stream.cancel()
        await eventually(lambda: budget.rows == budget.bytes == 0)


async def test_clients_that_leave_in_the_middle_of_a_request_leave_nothing_behind() -> None:
    gate = Gate()
    budget = Budget(1 << 20, 1 << 40)
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}, budget=budget) as server:
        gate.shut()
        async with grpc.aio.insecure_channel(server.address) as channel:
            raw = infer_request(rows=2).SerializeToString()
            arriving = [channel.stream_unary(INFER)() for _ in range(20)]
            whole = [channel.unary_unary(INFER)(raw) for _ in range(20)]
            streams = [channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")() for _ in range(5)]
            for stream in streams:
                await stream.write(raw)
            await eventually(lambda: server.inference.calls == 45)
            assert arriving
            assert whole
        # The channel is closed: every call is gone.
        await eventually(lambda: server.inference.calls == 0)
        gate.open()
        await eventually(lambda: server.slot().leases == 0)
        assert (budget.rows, budget.bytes) == (0, 0)
        assert server.ended(Outcome.SUCCESS) == 0
        assert server.ended(Outcome.CANCELLED) > 0
        assert not server.seen.handler_failures
        await answers_otherwise(server)


async def test_classification_and_non_finite_answers_over_the_wire() -> None:
    async with edge() as server:
        request = infer_request(3.0)
        request.outputs.add(name="y").parameters["classification"].int64_param = 2
        answer = await server.stub.ModelInfer(request)
    (tensor,) = answer.outputs
    assert (tensor.datatype, list(tensor.shape)) == ("BYTES", [1, 2])
    assert answer.raw_output_contents[0] == b"\x0a\0\0\x006.000000:0\x0a\0\0\x006.000000:1"
