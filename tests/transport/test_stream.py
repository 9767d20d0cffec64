"""ModelStreamInfer: order, errors inside the stream, the bound on what is in flight, half-close and cancellation."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from support.edge import (
    Edge,
    FakeContext,
    Gate,
    Served,
    edge,
    eventually,
    floats,
    infer_request,
    settle,
    signature,
)
from turnout.backends.synthetic import SyntheticModel
from turnout.runtime.account import Outcome
from turnout.runtime.jobs import SlotLimits
from turnout_wire.gen import grpc_service_pb2 as pb

END_ON_ERROR = (("triton_grpc_error", "true"),)


def gated(**more: object) -> tuple[Gate, SyntheticModel]:
    gate = Gate()
    return gate, SyntheticModel(signature(), wait=gate, **more)  # type: ignore[arg-type]


async def read(
    call: grpc.aio.StreamStreamCall[pb.ModelInferRequest, pb.ModelStreamInferResponse],
) -> pb.ModelInferResponse:
    """The next answer, which must be none of an error."""
    reply = await call.read()
    assert isinstance(reply, pb.ModelStreamInferResponse), reply
    assert reply.error_message == ""
    return reply.infer_response


async def test_answers_keep_the_order_of_requests_whatever_finishes_first() -> None:
    gate, slow = gated()
    fast = SyntheticModel(signature())
    async with edge({"slow": Served(slow), "fast": Served(fast)}) as server:
        gate.shut()
        call = server.stub.ModelStreamInfer()
        for index, model in enumerate(["slow", "fast", "fast", "slow", "fast"]):
            await call.write(infer_request(float(index), model=model, request_id=f"r{index}"))
        await gate.reached()
        await eventually(lambda: server.ended(Outcome.SUCCESS, "fast") == 3)  # they have overtaken, unseen
        gate.open()
        answers = [await read(call) for _ in range(5)]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert [a.id for a in answers] == ["r0", "r1", "r2", "r3", "r4"]
    assert [floats(a)[0] for a in answers] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert all(a.parameters["triton_final_response"].bool_param for a in answers)
    assert [a.model_name for a in answers] == ["slow", "fast", "fast", "slow", "fast"]


async def test_requests_of_one_stream_share_a_batch() -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        call = server.stub.ModelStreamInfer()
        await call.write(infer_request(0.0))
        await gate.reached()
        for value in (1.0, 2.0, 3.0):
            await call.write(infer_request(value))
        await eventually(lambda: server.queued_rows() == 3)
        gate.open()
        assert [floats(await read(call))[0] for _ in range(4)] == [0.0, 2.0, 4.0, 6.0]
        await call.done_writing()
    assert model.runs == [1, 3]


async def test_errors_are_answers_and_the_stream_goes_on() -> None:
    async with edge({"m": Served(SyntheticModel(signature(), poison=13.0))}) as server:
        call = server.stub.ModelStreamInfer()
        bad_model = infer_request(model="nobody", request_id="bad-model")
        bad_model.model_version = "7"
        bad_input = infer_request(request_id="bad-input")
        bad_input.raw_input_contents[0] = b"123"
        sent = [infer_request(1.0, request_id="ok-1"), bad_model, bad_input, infer_request(13.0, request_id="poison")]
        for request in (*sent, infer_request(2.0, request_id="ok-2")):
            await call.write(request)
        await call.done_writing()
        replies = [reply async for reply in call]
        assert await call.code() is grpc.StatusCode.OK
        ((_, _, error_id, _),) = server.seen.failures
    assert [r.infer_response.id for r in replies] == ["ok-1", "bad-model", "bad-input", "poison", "ok-2"]
    assert [r.error_message for r in replies] == [
        "",
        "unknown model 'nobody', this server has 'm'",
        replies[2].error_message,
        f"model 'm' failed to run this request (error id {error_id})",
        "",
    ]
    assert replies[2].error_message.startswith("input 'x': raw contents hold 3 bytes")
    wrong = replies[1].infer_response
    assert (wrong.model_name, wrong.model_version) == ("nobody", "7")
    assert all(r.infer_response.parameters["triton_final_response"].bool_param for r in replies)
    assert not wrong.outputs and not wrong.raw_output_contents


async def test_garbage_in_a_stream_is_one_error_among_answers() -> None:
    async with edge() as server:
        call = server.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )()
        for raw in (b"\xff\xff\xff", infer_request(request_id="ok").SerializeToString()):
            await call.write(raw)
        await call.done_writing()
        replies = [reply async for reply in call]
        assert not server.seen.handler_failures
    assert [r.error_message for r in replies] == ["the message is no ModelStreamInfer request: it does not parse", ""]
    assert replies[1].infer_response.id == "ok"


async def test_an_exception_in_a_stream_leaves_an_id_and_the_stream_open() -> None:
    class Broken:
        def route(self, model: str) -> None:
            pass

        def infer(self, request: object, on_done: object) -> None:
            raise RuntimeError("/secret of another tenant")

    async with edge(dispatcher=Broken()) as server:
        call = server.stub.ModelStreamInfer()
        await call.write(infer_request())
        await call.write(infer_request())
        await call.done_writing()
        replies = [reply async for reply in call]
        assert await call.code() is grpc.StatusCode.OK
        told = server.seen.handler_failures
    assert [str(error) for _, _, error in told] == ["/secret of another tenant"] * 2
    assert [r.error_message for r in replies] == [
        f"internal error in ModelStreamInfer (error id {error_id})" for _, error_id, _ in told
    ]


async def test_first_error_ends_the_stream_where_the_client_asked_for_that() -> None:
    async with edge() as server:
        call = server.stub.ModelStreamInfer(metadata=END_ON_ERROR)
        for index, model in enumerate(["m", "nobody", "m"]):
            await call.write(infer_request(float(index), model=model))
        assert floats(await read(call))[0] == 0.0
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        await eventually(lambda: server.slot().leases == 0)
    assert ended.value.code() is grpc.StatusCode.NOT_FOUND
    assert ended.value.details() == "unknown model 'nobody', this server has 'm'"


async def test_the_error_that_ends_a_stream_keeps_its_metadata() -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}, limits=SlotLimits(1, 1 << 20)) as server:
        gate.shut()
        before = [asyncio.ensure_future(server.stub.ModelInfer(infer_request()))]
        await gate.reached()
        before.append(asyncio.ensure_future(server.stub.ModelInfer(infer_request())))
        await eventually(lambda: server.queued_rows() == 1)
        call = server.stub.ModelStreamInfer(metadata=END_ON_ERROR)
        await call.write(infer_request())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
        gate.open()
        await asyncio.gather(*before)
    assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(ended.value.trailing_metadata())["grpc-retry-pushback-ms"]) >= 10


@pytest.mark.parametrize("value", ["false", "True", "1"])
async def test_only_true_ends_streams(value: str) -> None:
    async with edge() as server:
        call = server.stub.ModelStreamInfer(metadata=(("triton_grpc_error", value),))
        await call.write(infer_request(model="nobody"))
        await call.write(infer_request(1.0))
        await call.done_writing()
        replies = [reply async for reply in call]
    assert [bool(r.error_message) for r in replies] == [True, False]


async def test_half_close_finishes_what_is_in_flight() -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        call = server.stub.ModelStreamInfer()
        for value in (1.0, 2.0, 3.0):
            await call.write(infer_request(value))
        await call.done_writing()
        await gate.reached()
        assert not call.done()
        gate.open()
        answers = [floats(reply.infer_response)[0] async for reply in call]
        assert await call.code() is grpc.StatusCode.OK
    assert answers == [2.0, 4.0, 6.0]


async def test_empty_stream_ends_well() -> None:
    async with edge() as server:
        call = server.stub.ModelStreamInfer()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_cancelled_stream_drops_all_its_queued_requests() -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        call = server.stub.ModelStreamInfer()
        await call.write(infer_request())
        await gate.reached()
        for _ in range(5):
            await call.write(infer_request())
        await eventually(lambda: server.queued_rows() == 5)
        call.cancel()
        await eventually(lambda: server.queued_rows() == 0)
        assert server.ended(Outcome.CANCELLED) == 5
        gate.open()
        await eventually(lambda: server.slot().leases == 0)
        assert server.ended(Outcome.CANCELLED) == 6
        assert server.ended(Outcome.SUCCESS) == 0
    assert model.runs == [1]  # nothing that was queued has run


# Without a network: what the handler reads, and when


class Requests:
    """Requests of a client that never waits; counts how many were taken."""

    def __init__(self, *requests: pb.ModelInferRequest, stays_open: bool = False) -> None:
        self.taken = 0
        self._requests = requests
        self._stays_open = stays_open

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for request in self._requests:
            self.taken += 1
            yield request.SerializeToString()
        if self._stays_open:
            await asyncio.Event().wait()


def answers_of(context: FakeContext) -> list[float]:
    replies = [pb.ModelStreamInferResponse.FromString(raw) for raw in context.written]
    return [floats(reply.infer_response)[0] for reply in replies]


async def open_stream(server: Edge, requests: Requests, context: FakeContext) -> asyncio.Task[None]:
    return asyncio.ensure_future(server.inference.stream(requests.__aiter__(), context))  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [1, 2, 5])
async def test_no_more_than_the_bound_is_read_ahead(bound: int) -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}, stream_inflight_max=bound) as server:
        gate.shut()
        requests, context = Requests(*(infer_request(float(i)) for i in range(12))), FakeContext()
        stream = await open_stream(server, requests, context)
        await gate.reached()
        await settle()
        assert requests.taken == bound
        assert context.written == []
        gate.open()
        await stream
    assert requests.taken == 12
    assert answers_of(context) == [2.0 * i for i in range(12)]


async def test_a_client_that_does_not_read_its_answers_is_not_read_either() -> None:
    class Stuck(FakeContext):
        def __init__(self) -> None:
            super().__init__()
            self.reads = asyncio.Event()

        async def write(self, message: bytes) -> None:
            await self.reads.wait()
            await super().write(message)

    async with edge(stream_inflight_max=3) as server:
        requests, context = Requests(*(infer_request(float(i)) for i in range(9))), Stuck()
        stream = await open_stream(server, requests, context)
        await eventually(lambda: server.ended(Outcome.SUCCESS) == 3)
        await settle()
        assert requests.taken == 3
        context.reads.set()
        await stream
    assert answers_of(context) == [2.0 * i for i in range(9)]


async def test_cancelling_the_handler_leaves_no_task_and_no_lease() -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        before = asyncio.all_tasks()
        requests = Requests(*(infer_request() for _ in range(4)), stays_open=True)
        stream = await open_stream(server, requests, FakeContext())
        await gate.reached()
        await settle()
        stream.cancel()
        await asyncio.wait({stream})
        assert stream.cancelled()
        assert asyncio.all_tasks() <= before
        assert server.queued_rows() == 0
        gate.open()
        await eventually(lambda: server.slot().leases == 0)
        assert server.ended(Outcome.CANCELLED) == 4


async def test_an_error_of_reading_ends_the_stream_after_what_was_read() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield infer_request(1.0).SerializeToString()
        raise RuntimeError("the connection is gone")

    async with edge() as server:
        context = FakeContext()
        with pytest.raises(RuntimeError, match="is gone"):
            await server.inference.stream(failing(), context)  # type: ignore[arg-type]
    assert answers_of(context) == [2.0]


# Stopping


async def test_stop_answers_what_was_read_and_ends_streams_as_unavailable() -> None:
    gate, model = gated()
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        busy = server.stub.ModelStreamInfer()
        idle = server.stub.ModelStreamInfer()
        await idle.write(infer_request(7.0, rows=2))
        await gate.reached()
        for value in (1.0, 2.0):
            await busy.write(infer_request(value))
        await eventually(lambda: server.queued_rows() == 2)
        stopping = asyncio.ensure_future(server.server.stop(60))
        await settle()
        assert not stopping.done()
        gate.open()
        assert floats(await read(idle))[0] == 14.0
        assert [floats(await read(busy))[0] for _ in range(2)] == [2.0, 4.0]
        await asyncio.wait_for(stopping, 20)  # and not the whole grace, though both clients keep their streams open
        for call in (busy, idle):
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            assert ended.value.details() == "the server stops: open a stream to another one"


async def test_a_stream_that_comes_after_the_stop_is_refused() -> None:
    async with edge() as server:
        server.inference.close()
        call = server.stub.ModelStreamInfer()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_fault_in_telling_a_fault_ends_the_stream_and_holds_nobody_up() -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("/secret")

    async with edge() as server:
        server.inference._protocol.encode_stream_error = fails  # type: ignore[method-assign, assignment]
        call = server.stub.ModelStreamInfer()
        await call.write(infer_request(1))
        await call.write(infer_request(model="nobody"))
        await call.write(infer_request(3))
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async with asyncio.timeout(10):
                _ = [reply async for reply in call]
        assert ended.value.code() is grpc.StatusCode.INTERNAL and "secret" not in str(ended.value.details())
        await eventually(lambda: server.inference.calls == 0)


async def test_what_a_client_that_left_has_asked_is_not_held_until_it_is_collected() -> None:
    gate, model = gated()
    inputs: list[weakref.ref[Any]] = []
    async with edge({"m": Served(model, config="max_batch_size: 1")}) as server:
        exchanges = server.inference._exchanges
        decode = exchanges.decode

        def noted(*arguments: Any) -> Any:
            request = decode(*arguments)
            inputs.append(weakref.ref(request.inputs["x"]))
            return request

        exchanges.decode = noted  # type: ignore[method-assign]
        gate.shut()
        gc.disable()
        try:
            call = server.stub.ModelStreamInfer()
            for number in range(6):
                await call.write(infer_request(number))
            await gate.reached()
            await eventually(lambda: server.queued_rows() == 5)
            call.cancel()
            await eventually(lambda: server.queued_rows() == 0)
            await eventually(lambda: sum(each() is not None for each in inputs) <= 1)  # the one that runs
        finally:
            gc.enable()
            gate.open()
