"""The table of reasons, row by row over a real socket, and the guards around handlers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError

from support.edge import Edge, FakeContext, Gate, Served, edge, eventually, infer_request, signature
from support.world import Seen
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import Reason, ServingError
from turnout.runtime.jobs import SlotLimits
from turnout.transport import codec, status
from turnout.transport.status import STATUS, guarded, guarded_stream
from turnout_wire.gen import grpc_service_pb2 as pb

Trigger = Callable[[Edge, pb.ModelInferRequest], Any]

# What each reason is to a client, and how to bring it about. Written out: the table itself is what is tested.
ROWS: dict[Reason, tuple[grpc.StatusCode, str]] = {
    Reason.INVALID_REQUEST: (grpc.StatusCode.INVALID_ARGUMENT, "has no output 'nobody'"),
    Reason.NOT_FOUND: (grpc.StatusCode.NOT_FOUND, "unknown model 'nobody'"),
    Reason.NOT_READY: (grpc.StatusCode.UNAVAILABLE, "slot 'v1' of model 'm' is FAILED: bad file"),
    Reason.QUEUE_FULL: (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue of model 'm' is full"),
    Reason.DEADLINE_EXCEEDED: (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of request 'r'"),
    Reason.EXECUTION_FAILED: (grpc.StatusCode.INTERNAL, "model 'm' failed to run"),
    Reason.UNSUPPORTED: (grpc.StatusCode.UNIMPLEMENTED, "Turnout has no shared memory"),
    Reason.RESPONSE_TOO_LARGE: (grpc.StatusCode.INVALID_ARGUMENT, "above gRPC's limit"),
}


def test_the_table_has_every_reason() -> None:
    assert set(STATUS) == set(Reason) == set(ROWS)
    assert {reason: code for reason, (code, _) in ROWS.items()} == STATUS


@contextlib.asynccontextmanager
async def ready_to_refuse(reason: Reason, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Edge, Any]]:
    """A server, and a request that it will refuse for this reason."""
    now_ns = 10**12
    gate = Gate()
    served = Served(
        SyntheticModel(signature(), wait=gate, poison=13.0),
        config="max_batch_size: 8 version_policy { all {} }",
        versions=(1, 2),
        failing={1: "bad file"},
    )
    async with edge({"m": served}, limits=SlotLimits(1, 1 << 20), clock_ns=lambda: now_ns) as server:
        request = infer_request(request_id="r")
        before = None
        if reason in (Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED):
            gate.shut()
            before = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
            await gate.reached()
        match reason:
            case Reason.INVALID_REQUEST:
                request.outputs.add(name="nobody")
            case Reason.NOT_FOUND:
                request.model_name = "nobody"
            case Reason.NOT_READY:
                request.model_version = "1"
            case Reason.QUEUE_FULL:
                queued = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
                await eventually(lambda: server.queued_rows() == 1)
            case Reason.DEADLINE_EXCEEDED:
                request.parameters["timeout"].int64_param = 1
            case Reason.EXECUTION_FAILED:
                request = infer_request(13.0, request_id="r")
            case Reason.UNSUPPORTED:
                request.outputs.add(name="y").parameters["shared_memory_offset"].int64_param = 1
            case Reason.RESPONSE_TOO_LARGE:
                monkeypatch.setattr(codec, "MESSAGE_BYTES_MAX", 10)

        call = server.stub.ModelInfer(request)
        if reason is Reason.DEADLINE_EXCEEDED:
            task = asyncio.ensure_future(call)
            await eventually(lambda: server.queued_rows() == 1)
            now_ns += 1000
            gate.open()
            await asyncio.wait({task})
        yield server, call
        gate.open()
        if before is not None:
            await before
        if reason is Reason.QUEUE_FULL:
            await queued


@pytest.mark.parametrize("reason", Reason)
async def test_every_row_over_the_wire(reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    code, words = ROWS[reason]
    async with ready_to_refuse(reason, monkeypatch) as (server, call):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert not server.seen.handler_failures
        trailing = dict(refused.value.trailing_metadata())
    assert trailing["turnout-reason"] == reason.name
    pushback = trailing.get("grpc-retry-pushback-ms")
    assert refused.value.code() is code
    assert words in refused.value.details()
    assert (pushback is not None) == (reason is Reason.QUEUE_FULL)


# Guards


async def refused_by(handler: Any, seen: Seen, guard: Any = guarded) -> tuple[Any, ...]:
    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await guard("Method", handler, seen)(b"", context)
    assert context.ended is not None
    return context.ended


def raising(error: BaseException) -> Any:
    async def handler(raw: bytes, context: Any) -> bytes:
        raise error

    return handler


@pytest.mark.parametrize("guard", [guarded, guarded_stream])
@pytest.mark.parametrize("error", [RuntimeError("/secret"), KeyError("/secret"), MemoryError("/secret")])
async def test_unexpected_exception_becomes_an_id(error: Exception, guard: Any) -> None:
    seen = Seen()
    code, details, metadata = await refused_by(raising(error), seen, guard)
    ((method, error_id, told),) = seen.handler_failures
    assert (method, told) == ("Method", error)
    assert (code, details) == (grpc.StatusCode.INTERNAL, f"internal error in Method (error id {error_id})")
    assert len(error_id) == 16 and "/secret" not in details and metadata == (("turnout-reason", "EXECUTION_FAILED"),)


@pytest.mark.parametrize("guard", [guarded, guarded_stream])
async def test_undecodable_message_is_the_client_s_fault(guard: Any) -> None:
    seen = Seen()
    code, details, _ = await refused_by(raising(DecodeError("/secret")), seen, guard)
    assert (code, seen.handler_failures) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert details == "the message is no Method request: it does not parse"


@pytest.mark.parametrize("guard", [guarded, guarded_stream])
async def test_cancellation_passes_through(guard: Any) -> None:
    context, seen = FakeContext(), Seen()
    with pytest.raises(asyncio.CancelledError):
        await guard("Method", raising(asyncio.CancelledError()), seen)(b"", context)
    assert (context.ended, seen.handler_failures) == (None, [])


@pytest.mark.parametrize("guard", [guarded, guarded_stream])
async def test_abort_passes_through_and_is_not_told_twice(guard: Any) -> None:
    seen = Seen()
    code, details, metadata = await refused_by(raising(ServingError(Reason.QUEUE_FULL, "full", 250)), seen, guard)
    assert (code, details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert metadata == (("turnout-reason", "QUEUE_FULL"), ("grpc-retry-pushback-ms", "250"))
    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await guard("Method", raising(grpc.aio.AbortError()), seen)(b"", context)
    assert (context.ended, seen.handler_failures) == (None, [])


async def test_long_text_is_cut_between_characters() -> None:
    """By characters where it is made, and here by bytes, since characters may have four."""
    seen = Seen()
    for letter in ("é", "☃", "\U0001f600"):
        _, details, _ = await refused_by(raising(ServingError(Reason.NOT_FOUND, "1" + letter * 5000)), seen)
        kept = details.removeprefix("1").removesuffix("...")
        assert set(kept) == {letter} and details.endswith("...")
        assert status._TEXT_BYTES_MAX - 4 < len(details.encode()) <= status._TEXT_BYTES_MAX + 3
    _, details, _ = await refused_by(raising(ServingError(Reason.NOT_FOUND, "x" * 5000)), seen)
    assert details == "x" * 1500 + " ..."
    _, details, _ = await refused_by(raising(ServingError(Reason.NOT_FOUND, "x" * 1500)), seen)
    assert details == "x" * 1500


async def test_what_a_client_wrote_is_quoted_printable() -> None:
    _, details, _ = await refused_by(raising(ServingError(Reason.NOT_FOUND, "no '\x1b[31m\r\n\u202e'")), Seen())
    assert details == r"no '\x1b[31m\r\n\u202e'"
