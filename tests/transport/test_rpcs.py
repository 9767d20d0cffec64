"""The server on gRPC's completion queue: what handlers see of a call, how calls end, and what is relied on of gRPC's
layer below its public servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from support.edge import eventually
from turnout.transport import rpc_server
from turnout.transport.rpc_server import RpcServer
from turnout.transport.rpcs import ClientLeft, Method, Rpc

Handler = Callable[[Any, Rpc], Awaitable[bytes | None]]


@contextlib.asynccontextmanager
async def serving(**methods: Method) -> AsyncIterator[tuple[RpcServer, grpc.aio.Channel]]:
    """A server with these methods at `/test/NAME`, and a channel to it."""
    server = RpcServer(lambda path: methods.get(path.removeprefix("/test/")), [("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield server, channel
    finally:
        await server.stop(0)


def rpcs_alive() -> int:
    return sum(isinstance(one, Rpc) for one in gc.get_objects())


@contextlib.asynccontextmanager
async def collecting_nothing() -> AsyncIterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def echo(request: bytes, rpc: Rpc) -> bytes:
    return request


async def join(requests: Rpc, rpc: Rpc) -> bytes:
    return b",".join([one async for one in requests])


async def back(requests: Rpc, rpc: Rpc) -> None:
    async for one in requests:
        await rpc.write(one)


ECHO = Method(echo, reads=False)


@pytest.mark.parametrize("request_", [b"abc", b"", b"x" * 3_000_000])
async def test_a_request_and_its_answer(request_: bytes) -> None:
    async with serving(Echo=ECHO) as (_, channel):
        assert await channel.unary_unary("/test/Echo")(request_) == request_


async def test_each_kind_of_method() -> None:
    async def count(request: bytes, rpc: Rpc) -> None:
        for number in range(int(request)):
            await rpc.write(str(number).encode())

    async with serving(Join=Method(join), Back=Method(back), Count=Method(count, reads=False)) as (_, channel):
        assert await channel.stream_unary("/test/Join")(iter([b"a", b"", b"c"])) == b"a,,c"
        assert [one async for one in channel.stream_stream("/test/Back")(iter([b"a", b"", b"c"]))] == [b"a", b"", b"c"]
        assert [one async for one in channel.unary_stream("/test/Count")(b"3")] == [b"0", b"1", b"2"]
        assert [one async for one in channel.stream_stream("/test/Back")(iter([]))] == []


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    """More than gRPC hands over before the loop has looked at the first."""
    async with serving(Echo=ECHO) as (_, channel):
        call = channel.unary_unary("/test/Echo")
        answers = await asyncio.gather(*(call(str(number).encode()) for number in range(1000)))
    assert answers == [str(number).encode() for number in range(1000)]


async def test_what_a_handler_sees_of_its_call() -> None:
    seen: dict[str, Any] = {}

    async def look(request: bytes, rpc: Rpc) -> bytes:
        seen.update(
            metadata=dict(rpc.invocation_metadata()),
            remaining_s=rpc.time_remaining(),
            peer=rpc.peer(),
            identities=rpc.peer_identities(),
        )
        return b""

    async with serving(Look=Method(look, reads=False)) as (_, channel):
        call = channel.unary_unary("/test/Look")
        await call(b"", metadata=(("a-name", "a value"), ("raw-bin", b"\x00\xff")), timeout=5)
        assert seen["metadata"]["a-name"] == "a value"
        assert seen["metadata"]["raw-bin"] == b"\x00\xff"
        assert 4 < seen["remaining_s"] <= 5
        assert seen["peer"].startswith("ipv4:127.0.0.1:")
        assert seen["identities"] is None
        await call(b"")
        assert seen["remaining_s"] is None


async def test_a_status_with_a_text_and_metadata() -> None:
    async def refuse(request: bytes, rpc: Rpc) -> bytes:
        await rpc.abort(grpc.StatusCode.NOT_FOUND, "no «model»", (("a-reason", "GONE"), ("raw-bin", b"\x00\xff")))
        raise AssertionError("abort returned")

    async with serving(Refuse=Method(refuse, reads=False)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/Refuse")(b"")
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.NOT_FOUND, "no «model»")
        assert dict(error.value.trailing_metadata()) == {"a-reason": "GONE", "raw-bin": b"\x00\xff"}


async def test_an_unknown_path() -> None:
    async with serving() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/None")(b"")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_fault_of_a_handler_is_told_to_the_loop_and_not_to_the_client() -> None:
    async def fail(request: bytes, rpc: Rpc) -> bytes:
        raise ValueError("a secret")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with serving(Fail=Method(fail, reads=False), Echo=ECHO) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/Fail")(b"")
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNKNOWN, "internal error")
        assert await channel.unary_unary("/test/Echo")(b"x") == b"x"
    assert [str(one) for one in told] == ["a secret"]


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    begun = asyncio.Event()
    ended: list[str] = []

    async def wait(request: bytes, rpc: Rpc) -> bytes:
        rpc.add_done_callback(lambda _: ended.append("done"))
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return b""

    async with serving(Wait=Method(wait, reads=False)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/Wait")(b"", timeout=0.1)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: ended == ["cancelled", "done"])
        begun.clear()
        call = channel.unary_unary("/test/Wait")(b"")
        await asyncio.wait_for(begun.wait(), 5)
        call.cancel()
        await eventually(lambda: ended == ["cancelled", "done"] * 2)


async def test_who_writes_to_a_client_that_has_left_hears_so() -> None:
    left: list[type[BaseException]] = []

    async def write_on(request: bytes, rpc: Rpc) -> None:
        try:
            while True:
                await rpc.write(b"x" * 10_000)
        except BaseException as error:
            left.append(type(error))
            raise

    async with serving(Write=Method(write_on, reads=False)) as (_, channel):
        call = channel.unary_stream("/test/Write")(b"")
        await call.read()
        call.cancel()
        await eventually(lambda: left)
    assert left[0] in (ClientLeft, asyncio.CancelledError)


async def test_a_client_that_does_not_read_is_written_to_no_further() -> None:
    written = 0

    async def write_on(request: bytes, rpc: Rpc) -> None:
        nonlocal written
        while True:
            await rpc.write(b"x" * 100_000)
            written += 1

    async with serving(Write=Method(write_on, reads=False)) as (_, channel):
        call = channel.unary_stream("/test/Write")(b"")
        await call.read()
        await eventually(lambda: written)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)
        assert written < 1000, "100 MB that nobody has asked for"
        call.cancel()


async def test_a_call_is_known_before_its_message_is_there() -> None:
    """Else one that sends only its headers would be under nobody's eyes."""
    begun = asyncio.Event()

    async def wait(requests: Rpc, rpc: Rpc) -> bytes:
        begun.set()
        return b"" if await rpc.read() is None else b"x"

    async with serving(Wait=Method(wait)) as (_, channel):
        call = channel.stream_unary("/test/Wait")()
        await asyncio.wait_for(begun.wait(), 5)
        await call.write(b"a")
        assert await call == b"x"


async def test_calls_that_never_send_a_message_are_known_however_many_follow() -> None:
    begun = 0

    async def wait(requests: Rpc, rpc: Rpc) -> bytes:
        nonlocal begun
        begun += 1
        return await rpc.read() or b""

    async with serving(Wait=Method(wait)) as (_, channel):
        calls = []
        while len(calls) < 300 and begun < 10:
            calls.append(channel.stream_unary("/test/Wait")())
            await asyncio.sleep(0.002)
        assert len(calls) < 300, "each one puts off when the loop hears of those before it"
        for call in calls:
            call.cancel()


async def test_a_call_that_is_cancelled_at_once_is_seen() -> None:
    """Whoever counts calls does so in the handler. gRPC does not send those that are cancelled before they leave."""
    arrived = begun = ended = 0

    async def count(requests: Rpc, rpc: Rpc) -> bytes:
        nonlocal begun, ended
        begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
        return b""

    def method(path: str) -> Method:
        nonlocal arrived
        arrived += 1
        return Method(count)

    server = RpcServer(method, [])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for number in range(200):
            call = channel.stream_unary("/test/Count")()
            await asyncio.sleep(0.0005 * (number % 10))
            call.cancel()
        await eventually(lambda: arrived > 100)
    await server.stop(0)
    assert arrived == begun == ended


async def test_a_server_may_cancel_a_call_at_work_and_one_whose_answer_nobody_takes() -> None:
    known: list[Rpc] = []
    done: list[Rpc] = []

    async def begin(request: bytes, rpc: Rpc) -> bytes:
        known.append(rpc)
        rpc.add_done_callback(done.append)
        if request == b"wait":
            await asyncio.Event().wait()
        return b"x" * 50_000_000

    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
    server = RpcServer(lambda _: Method(begin, reads=False), [("grpc.max_send_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        for request in (b"wait", b"answer"):
            call = channel.unary_stream("/test/Begin")(request)  # the answer is not read before somebody asks for it
            await eventually(lambda: len(known) == 1)
            await asyncio.sleep(0.05)
            assert not done
            known[0].cancel()
            await eventually(lambda: done == known)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call.read()
            assert error.value.code() is grpc.StatusCode.CANCELLED
            known.clear()
            done.clear()
    await server.stop(0)


async def test_one_message_at_a_time_is_read() -> None:
    refused: list[str] = []

    async def twice(requests: Rpc, rpc: Rpc) -> bytes:
        first = rpc.read()
        try:
            rpc.read()
        except RuntimeError as error:
            refused.append(str(error))
        return await first or b""

    async with serving(Twice=Method(twice)) as (_, channel):
        call = channel.stream_unary("/test/Twice")()
        await asyncio.sleep(0.05)
        await call.write(b"a")
        assert await call == b"a"
    assert refused == ["a message is being read already"]


async def test_stopping_lets_calls_finish_within_the_grace_and_takes_no_others() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, rpc: Rpc) -> bytes:
        begun.set()
        await go_on.wait()
        return b"finished"

    async with serving(Wait=Method(wait, reads=False)) as (server, channel):
        call = channel.unary_unary("/test/Wait")(b"")
        await asyncio.wait_for(begun.wait(), 5)
        stopping = asyncio.ensure_future(server.stop(30))
        await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/Wait")(b"", timeout=5)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        go_on.set()
        assert await call == b"finished"
        await asyncio.wait_for(stopping, 5)
        await server.stop(0)  # a second time: nothing is left to do


async def test_stopping_without_grace_cancels_what_is_under_way() -> None:
    ended: list[str] = []

    async def wait(requests: Rpc, rpc: Rpc) -> bytes:
        rpc.add_done_callback(lambda _: ended.append("done"))
        try:
            return await rpc.read() or await rpc.read() or b""
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # the last word of a handler may take a moment
            ended.append("cancelled")
            raise

    async with serving(Wait=Method(wait)) as (server, channel):
        calls = [channel.stream_unary("/test/Wait")() for _ in range(20)]
        await asyncio.gather(*(call.wait_for_connection() for call in calls))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await server.stop(0)
        assert time.monotonic() - started < 5
        assert sorted(ended) == ["cancelled"] * 20 + ["done"] * 20
        for call in calls:
            assert await call.code() is not grpc.StatusCode.OK


async def test_what_grpc_refuses_is_an_error_and_ends_the_call() -> None:
    """A second write while one is under way, an answer behind one, an answer that is none, metadata that is none."""
    refused: list[str] = []

    async def two(request: bytes, rpc: Rpc) -> None:
        writing = rpc.write(b"x" * 50_000_000)
        try:
            await rpc.write(b"y")
        except RuntimeError as error:
            refused.append(str(error))
        writing.cancel()

    async def behind(request: bytes, rpc: Rpc) -> bytes:
        rpc.write(b"x" * 50_000_000).cancel()
        return b"y"

    async def text(request: bytes, rpc: Rpc) -> Any:
        return "no bytes"

    async def metadata(request: bytes, rpc: Rpc) -> None:
        await rpc.abort(grpc.StatusCode.INTERNAL, "x", (("Bad Key", "x"),))

    async def surrogate(request: bytes, rpc: Rpc) -> None:
        await rpc.abort(grpc.StatusCode.NOT_FOUND, "bad \udcff text")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    handlers = (two, behind, text, metadata, surrogate)
    async with serving(**{one.__name__: Method(one, reads=False) for one in handlers}) as (server, channel):
        codes = [await channel.unary_stream(f"/test/{one.__name__}")(b"").code() for one in handlers[2:]]
        assert codes[0] is grpc.StatusCode.UNKNOWN
        assert codes[1] in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
        assert codes[2] is grpc.StatusCode.NOT_FOUND
        for one in handlers[:2]:
            call = channel.unary_stream(f"/test/{one.__name__}")(b"")
            await asyncio.sleep(0.1)
            call.cancel()
        await eventually(lambda: not server._rpcs)
    assert len(refused) == 1


async def test_a_handler_that_does_not_end_when_it_is_cancelled_cannot_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc_server, "_LAST_WORD_S", 0.05)
    begun, go_on = asyncio.Event(), asyncio.Event()
    late: list[Exception] = []

    async def deaf(request: bytes, rpc: Rpc) -> None:
        begun.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        try:
            await rpc.write(b"x")
        except Exception as error:
            late.append(error)

    async with serving(Deaf=Method(deaf, reads=False)) as (server, channel):
        call = channel.unary_stream("/test/Deaf")(b"")
        await asyncio.wait_for(begun.wait(), 5)
        await asyncio.wait_for(server.stop(0), 5)
        go_on.set()
        await eventually(lambda: late)
        assert str(late[0]) == "the server has stopped"
        assert await call.code() is not grpc.StatusCode.OK


async def test_a_second_stop_may_shorten_the_grace() -> None:
    begun = asyncio.Event()

    async def wait(request: bytes, rpc: Rpc) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with serving(Wait=Method(wait, reads=False)) as (server, channel):
        call = channel.unary_stream("/test/Wait")(b"")
        await asyncio.wait_for(begun.wait(), 5)
        patient = asyncio.ensure_future(server.stop(60))
        await asyncio.sleep(0)
        await asyncio.wait_for(server.stop(0), 5)
        await asyncio.wait_for(patient, 5)
        assert await call.code() is not grpc.StatusCode.OK


_LEFT_BEHIND = """
import asyncio, grpc, grpc.aio
from turnout.transport.rpc_server import RpcServer
from turnout.transport.rpcs import Method

async def wait(requests, rpc):
    await rpc.read()

async def main():
    server = RpcServer(lambda _: Method(wait), [])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    calls = [channel.stream_unary("/test/Wait")() for _ in range(5)]
    await asyncio.sleep(0.2)

asyncio.run(main())
print("the loop has ended")
"""


def test_a_process_ends_though_nobody_stopped_its_server() -> None:
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", _LEFT_BEHIND], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout) == (0, "the loop has ended\n"), ended.stderr


async def test_a_server_that_never_started_stops() -> None:
    server = RpcServer(lambda _: None, [])
    await server.stop(0)


async def test_an_address_that_another_has() -> None:
    one, other = (RpcServer(lambda _: None, [("grpc.so_reuseport", 0)]) for _ in range(2))
    port = one.add_insecure_port("127.0.0.1:0")
    assert port
    assert other.add_insecure_port(f"127.0.0.1:{port}") == 0
    await other.stop(0)
    await one.stop(0)


async def test_nothing_is_left_of_calls_however_they_ended() -> None:
    """Nor does anything wait for the collector: calls may hold large messages."""

    async def refuse(request: bytes, rpc: Rpc) -> bytes:
        await rpc.abort(grpc.StatusCode.NOT_FOUND, "no")
        return b""

    async def wait(request: bytes, rpc: Rpc) -> bytes:
        rpc.add_done_callback(lambda _: None)
        await asyncio.Event().wait()
        return b""

    methods = {
        "Echo": ECHO,
        "Back": Method(back),
        "Refuse": Method(refuse, reads=False),
        "Wait": Method(wait, reads=False),
    }
    gc.collect()
    before = rpcs_alive()
    async with collecting_nothing(), serving(**methods) as (_, channel):
        for _ in range(20):
            await channel.unary_unary("/test/Echo")(b"")
            for path in ("/test/Refuse", "/test/None"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(path)(b"")
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test/Wait")(b"", timeout=0.02)
            stream = channel.stream_stream("/test/Back")()
            await stream.write(b"a")
            assert await stream.read() == b"a"
            stream.cancel()
        await eventually(lambda: rpcs_alive() <= before)
