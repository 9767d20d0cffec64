"""What is sent again, when and how often: by gRPC for unary calls, by the pool for streams, and the same for both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from support.edge import eventually
from support.fake_inference import IMAGE, KINDS, TRANSPORTS, AnyClient, Refusal, fake_server
from turnout_client import InferenceError, Retry, Streams
from turnout_client.aio_streams import _Stream
from turnout_client.retrying import Alone, stream_ended
from turnout_wire.gen import grpc_service_pb2 as pb

Code = grpc.StatusCode
QUICK = Retry(backoff_s=0.01, backoff_s_max=0.02)
both = pytest.mark.parametrize("kind", KINDS)
ways = pytest.mark.parametrize("transport", TRANSPORTS)
streamed = pytest.mark.parametrize("transport", TRANSPORTS[1:])


def client(kind: str, transport: str, endpoint: Any, **settings: Any) -> AnyClient:
    return AnyClient(kind, endpoint, transport=transport, **{"retry": QUICK, **settings})


@both
@ways
@pytest.mark.parametrize(
    ("refusal", "sent"),
    [
        (Refusal(Code.UNAVAILABLE), 2),
        (Refusal(Code.CANCELLED), 2),
        (Refusal(Code.RESOURCE_EXHAUSTED, pushback_ms=1), 2),
        (Refusal(Code.RESOURCE_EXHAUSTED, pushback_ms=-1), 1),
        (Refusal(Code.UNAVAILABLE, pushback_ms=-1), 1),
        (Refusal(Code.INVALID_ARGUMENT), 1),
        (Refusal(Code.NOT_FOUND), 1),
        (Refusal(Code.INTERNAL), 1),
        (Refusal(Code.DEADLINE_EXCEEDED), 1),
    ],
)
async def test_what_is_sent_again(kind: str, transport: str, refusal: Refusal, sent: int) -> None:
    async with fake_server(refusal) as server, client(kind, transport, server.address) as calling:
        if sent == 1:
            error = await calling.failure("m", IMAGE)
            assert (error.code, error.message) == (refusal.code.name, "no")
        else:
            assert (await calling.infer("m", IMAGE))["x"].tolist() == IMAGE["x"].tolist()
        assert len(server.received) == sent
        assert all(received.streamed == (transport != "unary") for received in server.received)


@both
@ways
async def test_attempts_are_counted(kind: str, transport: str) -> None:
    async with fake_server(*[Refusal()] * 5) as server, client(kind, transport, server.address) as calling:
        error = await calling.failure("m", IMAGE)
        assert error.code == "UNAVAILABLE" and error.retryable
        assert len(server.received) == QUICK.attempts_max
        async with client(kind, transport, server.address, retry=None) as once:
            await once.failure("m", IMAGE)
    assert len(server.received) == QUICK.attempts_max + 1


@both
@ways
async def test_a_pushback_is_waited_for(kind: str, transport: str) -> None:
    refusal = Refusal(Code.RESOURCE_EXHAUSTED, pushback_ms=150)
    async with fake_server(refusal) as server, client(kind, transport, server.address) as calling:
        began = time.monotonic()
        await calling.infer("m", IMAGE)
        assert time.monotonic() - began >= 0.145
        assert len(server.received) == 2


@both
@ways
async def test_nothing_is_sent_past_the_deadline(kind: str, transport: str) -> None:
    refusal = Refusal(Code.RESOURCE_EXHAUSTED, pushback_ms=5000)
    async with fake_server(refusal) as server, client(kind, transport, server.address) as calling:
        began = time.monotonic()
        error = await calling.failure("m", IMAGE, timeout_s=0.1)
        assert time.monotonic() - began < 2
        # gRPC waits for the deadline; the pool says at once why there is no answer.
        assert error.code == ("DEADLINE_EXCEEDED" if transport == "unary" else "RESOURCE_EXHAUSTED")
        assert error.retry_after_s == (None if transport == "unary" else 5.0)
        assert len(server.received) == 1


@both
@ways
async def test_the_budget_bounds_what_is_sent_again(kind: str, transport: str) -> None:
    """Of 20 tokens, 10 may go. The first failure of each call takes one too."""
    retry = Retry(backoff_s=0.01, backoff_s_max=0.01, tokens_max=20, token_ratio=0.001)
    async with fake_server(*[Refusal()] * 100) as server, client(kind, transport, server.address, retry=retry) as to:
        sent = []
        for _ in range(6):
            before = len(server.received)
            await to.failure("m", IMAGE)
            sent.append(len(server.received) - before)
        # Tokens after each call: 16, 12, then 11 and 10: not more than half.
        assert sent == [4, 4, 2, 1, 1, 1]
        server.script.clear()
        assert await to.infer("m", IMAGE)


@both
async def test_a_large_request_is_sent_once(kind: str) -> None:
    small = Retry(backoff_s=0.01, message_bytes_max=10_000)
    large = {"x": IMAGE["x"].repeat(1000, axis=0)}
    async with fake_server(Refusal()) as server, client(kind, "unary", server.address, retry=small) as calling:
        assert (await calling.failure("m", large)).code == "UNAVAILABLE"
        assert len(server.received) == 1


@both
@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.CANCELLED, Code.OK])
@streamed
async def test_a_stream_that_ends_costs_no_call(kind: str, code: grpc.StatusCode, transport: str) -> None:
    """Both requests of the stream go again, in a new one."""
    ends = Refusal(Code.ABORTED if code is Code.OK else code, ends=True)
    async with (
        fake_server(ends) as server,
        client(kind, transport, server.address, streams=Streams(streams_max=1)) as calling,
    ):
        server.gate.clear()
        asking = [asyncio.ensure_future(calling.infer("m", IMAGE)) for _ in range(3)]
        await until(lambda: server.received)
        await asyncio.sleep(0.05)
        server.gate.set()
        answers = await asyncio.gather(*asking)
        assert [answer["x"].tolist() for answer in answers] == [IMAGE["x"].tolist()] * 3
        again = server.received[1:]
        # What may be about another request goes alone; what may be about packed streams, in one of the protocol.
        assert all(received.streamed == (code is not Code.OK or transport == "packed") for received in again)
        assert len(again) == 3


@both
@streamed
async def test_a_server_without_streams_is_called(kind: str, transport: str) -> None:
    async with fake_server(streams=False) as server, client(kind, transport, server.address) as calling:
        assert await calling.infer("m", IMAGE)
        assert [received.streamed for received in server.received] == [False]


@both
async def test_streams_to_a_server_that_packs_none_are_of_the_protocol(kind: str) -> None:
    """Found out by the first one, and no attempt of its requests."""
    async with fake_server(packs=False) as server, client(kind, "packed", server.address, retry=None) as calling:
        answers = await asyncio.gather(*(calling.infer("m", IMAGE) for _ in range(20)))
        assert len(answers) == 20 and await calling.infer("m", IMAGE)
        assert len(server.received) == 21 and all(received.streamed for received in server.received)


@both
@pytest.mark.parametrize("code", [Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED, Code.INTERNAL])
async def test_packed_streams_that_somebody_refuses_cost_no_request_and_no_budget(kind: str, code: Code) -> None:
    retry = Retry(backoff_s=0.01, tokens_max=2, token_ratio=0.001)
    async with fake_server() as server, client(kind, "packed", server.address, retry=retry) as calling:
        server.packed_refusal = Refusal(code)
        for _ in range(3):
            await asyncio.gather(*(calling.infer("m", IMAGE) for _ in range(20)))
        assert len(server.received) == 60 and all(received.streamed for received in server.received)


@both
@streamed
async def test_a_server_that_gives_no_ids_is_called(kind: str, transport: str) -> None:
    async with fake_server() as server, client(kind, transport, server.address) as calling:
        server.ids = False
        assert await calling.infer("m", IMAGE)
        streamed = [received.streamed for received in server.received]
        assert streamed == ([True, True, False] if transport == "packed" else [True, False])


@both
@streamed
async def test_a_stream_that_cannot_be_read_is_ended_and_its_requests_go_alone(kind: str, transport: str) -> None:
    async with fake_server() as server, client(kind, transport, server.address) as calling:
        server.garbled = True
        assert await calling.infer("m", IMAGE)
        assert [received.streamed for received in server.received] == [False]
        await eventually(lambda: server.ended == len(server.streams) == (2 if transport == "packed" else 1))


@pytest.mark.parametrize("code", ["INTERNAL", "UNAVAILABLE"])
def test_each_request_of_a_stream_that_ended_gets_an_exception_of_its_own(code: str) -> None:
    error = InferenceError(code, "broken", "WHY", error_id="1")
    one, other = stream_ended(error), stream_ended(error)
    if isinstance(one, Alone) and isinstance(other, Alone):  # raised by several tasks, with a traceback for each
        assert one.error is not other.error and (one.error.reason, one.error.error_id) == ("WHY", "1")
    assert one is not other


class Early:
    """A stream that takes requests while `free` is set, and is answered with the ids that are put into `answers`."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.answers: asyncio.Queue[str] = asyncio.Queue()
        self.written: list[bytes] = []

    async def write(self, message: bytes) -> None:
        await self.free.wait()
        self.written.append(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            reply = pb.ModelStreamInferResponse()
            reply.infer_response.id = await self.answers.get()
            yield reply.SerializeToString()

    def cancel(self) -> None:
        self.answers.put_nowait("nobody's")


async def test_an_answer_to_what_was_not_asked_yet_stops_no_stream() -> None:
    call = Early()
    stream = _Stream(call, False, float("inf"), lambda: None, lambda _: None)
    futures = {name: asyncio.get_running_loop().create_future() for name in "abc"}
    for name in "ab":
        stream.send(name, name.encode(), futures[name])
    call.answers.put_nowait("b")
    await asyncio.wait_for(futures["b"], 5)
    call.free.set()
    stream.send("c", b"c", futures["c"])
    await eventually(lambda: call.written == [b"a", b"c"], 2)
    for name in "ac":
        call.answers.put_nowait(name)
        await asyncio.wait_for(futures[name], 5)
    await stream.close()


@both
@streamed
async def test_a_stream_s_budget_bounds_what_goes_alone(kind: str, transport: str) -> None:
    retry = Retry(backoff_s=0.01, tokens_max=2, token_ratio=0.001)
    ends = Refusal(Code.INTERNAL, ends=True, text="broken")
    script = [ends] * (2 if transport == "packed" else 1)  # the first one may have ended because it is packed
    async with fake_server(*script) as server, client(kind, transport, server.address, retry=retry) as calling:
        error = await calling.failure("m", IMAGE)
        assert (error.code, error.message) == ("INTERNAL", "broken")
        assert len(server.received) == len(script)


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not within 2 s")
