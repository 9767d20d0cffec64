"""Packed streams: several requests in a message, several answers, and all else as in ModelStreamInfer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from support.edge import Gate, Served, edge, eventually, floats, infer_request, signature
from turnout.backends.synthetic import SyntheticModel
from turnout.runtime.jobs import SlotLimits
from turnout_wire import packed
from turnout_wire.gen import grpc_service_pb2 as oip
from turnout_wire.gen import packed_pb2 as pb


def stream(channel: grpc.aio.Channel, **more: Any) -> Any:
    return channel.stream_stream(
        packed.PATH,
        request_serializer=pb.InferRequests.SerializeToString,
        response_deserializer=pb.InferResponses.FromString,
    )(**more)


def several(*requests: oip.ModelInferRequest) -> pb.InferRequests:
    return pb.InferRequests(requests=requests)


async def replies(call: Any) -> list[oip.ModelStreamInferResponse]:
    return [each async for message in call for each in message.responses]


def ids(answers: Sequence[oip.ModelStreamInferResponse]) -> list[str]:
    return [each.infer_response.id for each in answers]


async def test_each_request_is_answered_in_order_and_fails_alone() -> None:
    async with edge() as server:
        call = stream(server.channel)
        bad = infer_request(model="nobody", request_id="b")
        await call.write(several(infer_request(1, request_id="a"), bad, infer_request(3, request_id="c")))
        await call.write(several())  # nothing is asked
        await call.write(several(infer_request(4, request_id="d")))
        await call.done_writing()
        answers = await replies(call)
        assert await call.code() is grpc.StatusCode.OK
    assert ids(answers) == ["a", "b", "c", "d"]
    assert [bool(each.error_message) for each in answers] == [False, True, False, False]
    assert [floats(each.infer_response)[0] for each in answers if not each.error_message] == [2.0, 6.0, 8.0]


async def test_answers_that_are_ready_together_share_a_message() -> None:
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate), config="max_batch_size: 1")}) as server:
        gate.shut()
        call = stream(server.channel)
        asked = [infer_request(n, request_id=str(n)) for n in range(4)]
        # The first waits in the model, and those behind it that are refused at once wait for it.
        refused = [infer_request(model="nobody", request_id=f"n{n}") for n in range(40)]
        await call.write(several(asked[0], *refused))
        await gate.reached()
        await eventually(lambda: server.counts.refused.get(("_OTHER", "not_found")) == 40)
        gate.open()
        await call.done_writing()
        messages = [message async for message in call]
    assert [len(message.responses) for message in messages] == [41]
    assert ids(messages[0].responses) == ["0", *(f"n{n}" for n in range(40))]


async def test_at_its_bound_a_stream_takes_no_more_of_a_message() -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model, config="max_batch_size: 1")}, stream_inflight_max=3) as server:
        gate.shut()
        call = stream(server.channel)
        await call.write(several(*(infer_request(n, request_id=str(n)) for n in range(9))))
        await gate.reached()
        await eventually(lambda: server.queued_rows() == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.queued_rows() == 2, "one runs, two wait, six are still in their message"
        gate.open()
        await call.done_writing()
        assert ids(await replies(call)) == [str(n) for n in range(9)]


async def test_large_answers_do_not_share_a_message() -> None:
    limits = SlotLimits(1 << 20, 1 << 30)
    async with edge({"m": Served(config="max_batch_size: 8192")}, limits=limits) as server:
        call = stream(server.channel)
        await call.write(several(*(infer_request(n, rows=8192, request_id=str(n)) for n in range(5))))  # 128 KiB each
        await call.done_writing()
        messages = [message async for message in call]
    assert [each for message in messages for each in ids(message.responses)] == [str(n) for n in range(5)]
    assert not any(each.error_message for message in messages for each in message.responses)
    assert max(len(message.responses) for message in messages) <= 2


async def test_a_message_that_is_none_ends_the_stream_after_the_answers_before_it() -> None:
    async with edge() as server:
        raw = server.channel.stream_stream(packed.PATH)()  # no serialisers: bytes both ways
        await raw.write(packed.pack([infer_request(1, request_id="a").SerializeToString()]))
        first = await raw.read()
        assert ids(pb.InferResponses.FromString(first).responses) == ["a"]
        await raw.write(b"\x0a\x05abc")
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await raw.read()
        assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no InferRequests" in str(ended.value.details())
        assert not server.seen.handler_failures


async def test_triton_grpc_error_ends_a_packed_stream_at_the_first_failure() -> None:
    async with edge() as server:
        call = stream(server.channel, metadata=(("triton_grpc_error", "true"),))
        bad = infer_request(model="nobody", request_id="b")
        await call.write(several(infer_request(1, request_id="a"), bad, infer_request(3, request_id="c")))
        await call.done_writing()
        answers = []
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for message in call:
                answers += message.responses
        assert ended.value.code() is grpc.StatusCode.NOT_FOUND
        assert ids(answers) == ["a"]


async def test_others_have_their_turn_within_a_large_message() -> None:
    turns: list[int] = []
    turn = 0
    async with edge(limits=SlotLimits(1 << 20, 1 << 30)) as server:
        exchanges = server.inference._exchanges
        decode = exchanges.decode

        def noted(*arguments: Any) -> Any:
            turns.append(turn)
            return decode(*arguments)

        exchanges.decode = noted  # type: ignore[method-assign]
        small = [infer_request(n, request_id=str(n)) for n in range(40)]
        large = [infer_request(n, request_id="x" * 70_000) for n in range(4)]  # refused, once it has been read
        call = stream(server.channel)
        for asked in (small, large):
            turns.clear()
            await call.write(several(*asked))
            while len(turns) < len(asked):
                turn += 1
                await asyncio.sleep(0)
            per_turn = [turns.count(each) for each in set(turns)]
            assert max(per_turn) <= (16 if asked is small else 1)
        await call.done_writing()
        assert len(await replies(call)) == 44


async def test_a_client_that_leaves_takes_all_of_a_message_along() -> None:
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate), config="max_batch_size: 1")}) as server:
        gate.shut()
        call = stream(server.channel)
        await call.write(several(*(infer_request(n, request_id=str(n)) for n in range(5))))
        await gate.reached()
        await eventually(lambda: server.queued_rows() == 4)
        call.cancel()
        await eventually(lambda: server.queued_rows() == 0)
        gate.open()
        await eventually(lambda: server.inference.calls == 0 and server.inference.answer_bytes == 0)
