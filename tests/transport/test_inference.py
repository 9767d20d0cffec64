"""ModelInfer over a real socket: answers, identity, cancellation, deadlines, and what clients learn of failures."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from support.edge import WAIT_S_MAX, Gate, Served, edge, eventually, floats, infer_request, signature
from turnout.backends.synthetic import SyntheticModel
from turnout.core.routing import Interval, Pin, StickyKey
from turnout.runtime.account import Outcome
from turnout.runtime.jobs import SlotLimits
from turnout.transport import codec
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS
from turnout_wire.tensors import DataType, from_raw, to_bytes

SECRET = "/home/turnout/secret of another tenant"


async def test_answer_carries_model_version_and_identity() -> None:
    async with edge() as server:
        answer = await server.stub.ModelInfer(infer_request(1.5, rows=2, request_id="r-1"))
    assert floats(answer) == [3.0] * 8
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "r-1")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [("y", "FP32", [2, 4])]
    assert {key: value.WhichOneof("parameter_choice") for key, value in answer.parameters.items()} == {
        "turnout_slot": "string_param",
        "turnout_revision": "string_param",
        "turnout_generation": "int64_param",
        "inference_id": "string_param",
    }
    assert answer.parameters["turnout_slot"].string_param == "blue"
    assert answer.parameters["turnout_revision"].string_param == "m/1"
    assert answer.parameters["turnout_generation"].int64_param == 1
    assert answer.parameters["inference_id"].string_param == "r-1"


async def test_inference_id_is_minted_where_the_request_has_no_id() -> None:
    async with edge() as server:
        answers = [await server.stub.ModelInfer(infer_request()) for _ in range(2)]
    minted = [answer.parameters["inference_id"].string_param for answer in answers]
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in minted) and len(set(minted)) == 2
    assert [answer.id for answer in answers] == ["", ""]  # the client's field stays the client's


async def test_identity_can_be_left_out() -> None:
    async with edge(identity=False) as server:
        answer = await server.stub.ModelInfer(infer_request(request_id="r"))
    assert not answer.parameters
    assert (answer.model_version, answer.id) == ("1", "r")


async def test_version_and_slot_pins() -> None:
    config = "max_batch_size: 8 version_policy { all {} }"
    async with edge({"m": Served(config=config, versions=(1, 2))}) as server:
        newest = await server.stub.ModelInfer(infer_request())
        older = infer_request()
        older.model_version = "1"
        pinned = await server.stub.ModelInfer(older)
        by_slot = await server.stub.ModelInfer(infer_request(), metadata=(("turnout-slot", "v1"),))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(older, metadata=(("turnout-slot", "blue"),))
    assert [a.model_version for a in (newest, pinned, by_slot)] == ["2", "1", "1"]
    assert [a.parameters["turnout_slot"].string_param for a in (newest, pinned, by_slot)] == ["blue", "v1", "v1"]
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "version 1 in slot 'blue'" in refused.value.details()


async def test_variant_pins() -> None:
    async with edge({"m": Served(versions=(1,))}) as server:

        async def code_of(parameter: Any = None, **metadata: str) -> tuple[str, str]:
            request = infer_request()
            if parameter is not None:
                kind = "string_param" if isinstance(parameter, str) else "int64_param"
                setattr(request.parameters["turnout_variant"], kind, parameter)
            pins = [(name.replace("_", "-"), value) for name, value in metadata.items()]
            try:
                answer = await server.stub.ModelInfer(request, metadata=pins)
            except grpc.aio.AioRpcError as error:
                return error.code().name, error.details() or ""
            return "OK", answer.parameters["turnout_revision"].string_param

        for own in ({"parameter": "none"}, {"turnout_variant": "none"}, {"turnout_variant": ""}):
            assert await code_of(**own) == ("OK", "m/1")
        code, said = await code_of(turnout_variant="int8", parameter="none")
        assert code == "NOT_FOUND", "metadata goes first"
        assert said == "model 'm' has no ready variant 'int8', ready are m/1 in slot 'blue'"
        for wrong in ({"turnout_variant": "INT8"}, {"parameter": "int8/1"}):
            code, said = await code_of(**wrong)
            assert code == "INVALID_ARGUMENT" and "is no variant: lower-case letters" in said
        code, said = await code_of(parameter=8)
        assert code == "INVALID_ARGUMENT" and "'turnout_variant' is no string_param" in said


async def test_the_route_says_where_keys_and_pins_are_read() -> None:
    async with edge({"m": Served(versions=(1, 2))}) as server:
        model = server.fleet.model("m")
        assert model.route is not None
        blue, other = model.route.targets
        half = (Interval(0, 5_000, other), Interval(5_000, 10_000, blue))
        pins = (Pin("x-team", "qa", "v1"),)
        route = replace(model.route, generation=2, intervals=half, pins=pins)

        async def slot_of(key: str = "", **metadata: str) -> str:
            request = infer_request()
            if key:
                request.parameters["sticky_key"].string_param = key
            pairs = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
            answer = await server.stub.ModelInfer(request, metadata=pairs)
            return answer.parameters["turnout_slot"].string_param

        model.assign(route)
        keys = {slot: next(k for k in map(str, range(99)) if route.decide(None, None, 0, k).slot == slot)
                for slot in ("blue", "v1")}  # fmt: skip
        for slot, key in keys.items():
            assert await slot_of(key) == await slot_of(turnout_sticky_key=key) == slot
        assert await slot_of(keys["blue"], turnout_sticky_key=keys["v1"]) == "v1", "metadata goes first"
        assert await slot_of(keys["blue"], x_team="qa") == "v1"
        assert await slot_of(keys["v1"], x_team="others") == "v1"
        assert await slot_of(turnout_slot="@stable") == "blue"
        assert await slot_of(turnout_slot="@candidate") == "v1"
        model.assign(replace(route, sticky=StickyKey("x-user", "")))
        assert await slot_of(keys["blue"], turnout_sticky_key=keys["blue"]) == "v1", "neither is read: the coin is 0"
        assert await slot_of(x_user=keys["blue"]) == "blue"


@pytest.mark.parametrize("wrong", ["long", "number"])
async def test_a_sticky_key_has_bounds(wrong: str) -> None:
    request = infer_request()
    if wrong == "long":
        request.parameters["sticky_key"].string_param = "k" * 257
    else:
        request.parameters["sticky_key"].int64_param = 7
    async with edge() as server:
        with pytest.raises(grpc.aio.AioRpcError, match="sticky") as refused:
            await server.stub.ModelInfer(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("datatype", "form"),
    [(d, form) for d in DataType for form in ("raw", "typed") if form == "raw" or d.contents_field],
)
async def test_every_datatype(datatype: DataType, form: str) -> None:
    """The synthetic model answers x + x, or x itself where there is no sum."""
    values = {"BOOL": [True, False, True, True], "BYTES": [b"", "é".encode(), b"a\0b", b"x" * 300]}.get(
        datatype.value, [0, 1, 2, 3]
    )
    array = np.array(values, dtype=datatype.dtype).reshape(1, 4)
    message = pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype.value, shape=[1, 4])
    if form == "raw":
        message.raw_input_contents.append(to_bytes(array, datatype))
    else:
        getattr(tensor.contents, str(datatype.contents_field)).extend(values)
    async with edge({"m": Served(SyntheticModel(signature(datatype)))}) as server:
        answer = await server.stub.ModelInfer(message)
    assert answer.outputs[0].datatype == datatype.value
    assert list(answer.outputs[0].shape) == [1, 4]
    assert not answer.outputs[0].HasField("contents")  # always raw
    copied = datatype in (DataType.BOOL, DataType.BYTES, DataType.BF16)
    got = from_raw(answer.raw_output_contents[0], datatype, [1, 4])
    assert got.tolist() == (array if copied else array + array).tolist()


async def test_cancelled_call_never_runs() -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        first = server.stub.ModelInfer(infer_request(1.0))
        waiting = asyncio.ensure_future(first)
        await gate.reached()
        second = server.stub.ModelInfer(infer_request(2.0, rows=3))
        await eventually(lambda: server.queued_rows() == 3)
        assert second.cancel()
        await eventually(lambda: server.queued_rows() == 0)
        assert server.ended(Outcome.CANCELLED) == 1
        gate.open()
        assert floats(await waiting) == [2.0] * 4
        assert server.slot().leases == 0
    assert model.runs == [1]


async def test_call_cancelled_while_it_runs_is_counted_and_keeps_its_slot_until_the_end() -> None:
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}) as server:
        gate.shut()
        call = server.stub.ModelInfer(infer_request())
        task = asyncio.ensure_future(call)
        await gate.reached()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        health = await server.stub.ServerReady(pb.ServerReadyRequest())  # the cancellation came before this call
        assert health.ready and server.slot().leases == 1
        gate.open()
        await eventually(lambda: server.slot().leases == 0)
        assert server.ended(Outcome.CANCELLED) == 1
        assert server.ended(Outcome.SUCCESS) == 0


async def test_while_it_stops_the_server_refuses_what_comes_and_answers_what_it_has() -> None:
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}) as server:
        gate.shut()
        taken = asyncio.ensure_future(server.stub.ModelInfer(infer_request(3.0)))
        await gate.reached()
        stopping = asyncio.ensure_future(server.server.stop(WAIT_S_MAX))
        await asyncio.sleep(0)
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await server.stub.ModelInfer(infer_request())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert refused.value.details() == "the server stops: send the request to another one"
        assert not stopping.done()
        gate.open()
        assert floats(await taken) == [6.0] * 4
        await stopping


async def test_client_deadline_that_passes_in_the_queue() -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        first = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
        await gate.reached()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await server.stub.ModelInfer(infer_request(), timeout=0.1)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: server.queued_rows() == 0)
        gate.open()
        await first
        assert server.ended(Outcome.CANCELLED) + server.ended(Outcome.EXPIRED) == 1
    assert model.runs == [1]


async def test_timeout_parameter_that_passes_in_the_queue() -> None:
    now_ns = 10**12
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model)}, clock_ns=lambda: now_ns) as server:
        gate.shut()
        first = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
        await gate.reached()
        second = asyncio.ensure_future(server.stub.ModelInfer(infer_request(request_id="r-2", timeout=1000)))
        third = asyncio.ensure_future(server.stub.ModelInfer(infer_request(3.0, timeout=1001)))
        await eventually(lambda: server.queued_rows() == 2)
        now_ns += 1_000_000  # just late for one, just in time for the other
        gate.open()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await second
        assert floats(await third) == [6.0] * 4
        await first
        assert server.ended(Outcome.EXPIRED) == 1
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "'r-2'" in late.value.details() and "'m'" in late.value.details()
    assert model.runs == [1, 1]


async def test_full_queue_says_when_to_retry() -> None:
    gate = Gate()
    async with edge({"m": Served(SyntheticModel(signature(), wait=gate))}, limits=SlotLimits(2, 1 << 20)) as server:
        gate.shut()
        first = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
        await gate.reached()
        queued = asyncio.ensure_future(server.stub.ModelInfer(infer_request(rows=2)))
        await eventually(lambda: server.queued_rows() == 2)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(infer_request())
        gate.open()
        await asyncio.gather(first, queued)
        assert server.ended(Outcome.REJECTED) == 1
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 rows" in refused.value.details()
    pushback = dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]
    assert 10 <= int(pushback) <= 10_000


async def test_failing_run_leaves_an_id_and_no_words() -> None:
    async with edge({"m": Served(SyntheticModel(signature(), poison=13.0))}) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.stub.ModelInfer(infer_request(13.0))
        assert floats(await server.stub.ModelInfer(infer_request(1.0))) == [2.0] * 4
        ((revision, rows, error_id, error),) = server.seen.failures
        assert server.ended(Outcome.FAILED) == 1
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert failed.value.details() == f"model 'm' failed to run this request (error id {error_id})"
    assert (str(revision), rows) == ("m/1", 1) and "poison 13.0" in str(error)


async def test_bad_request_fails_alone_in_its_batch() -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate, poison=13.0)
    async with edge({"m": Served(model)}) as server:
        gate.shut()
        first = asyncio.ensure_future(server.stub.ModelInfer(infer_request(0.0)))
        await gate.reached()
        values = [1.0, 13.0, 3.0, 4.0]
        calls = [asyncio.ensure_future(server.stub.ModelInfer(infer_request(value))) for value in values]
        await eventually(lambda: server.queued_rows() == 4)
        gate.open()
        await first
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [floats(a)[0] if isinstance(a, Message) else a.code() for a in answers] == [
        2.0,
        grpc.StatusCode.INTERNAL,
        6.0,
        8.0,
    ]
    assert model.runs[:2] == [1, 4]


async def test_output_of_another_kind_than_declared_is_an_internal_error() -> None:
    """The answer cannot be written: the client gets an id, and the observer the reason."""

    class Liar(SyntheticModel):
        def run(self, inputs, outputs):  # type: ignore[no-untyped-def]
            return [np.full((len(inputs["x"]), 4), 0.5, np.float64)]

    async with edge({"m": Served(Liar(signature()))}) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await server.stub.ModelInfer(infer_request())
        ((method, error_id, error),) = server.seen.handler_failures
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert failed.value.details() == f"internal error in ModelInfer (error id {error_id})"
    assert method == "ModelInfer" and "float64" in str(error)


@pytest.mark.parametrize("rpc", [name for name, m in METHODS.items() if m.request.DESCRIPTOR.fields and not m.stream])
async def test_garbage_is_no_request(rpc: str) -> None:
    async with edge() as server:
        call = server.channel.unary_unary(METHODS[rpc].path)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\xff\xff\xff")
        assert not server.seen.handler_failures
    unsupported = refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert unsupported or refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert rpc in refused.value.details()
    assert unsupported == rpc.startswith(("SystemShared", "CudaShared", "Trace", "Log"))


async def test_message_above_the_limit_is_refused_by_size() -> None:
    async with edge(message_bytes_max=10_000) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(infer_request(rows=1000))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "10000" in refused.value.details()


async def test_answer_above_the_limit_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MESSAGE_BYTES_MAX", 1000)
    async with edge() as server:
        assert floats(await server.stub.ModelInfer(infer_request(rows=2)))[0] == 2.0
        message = infer_request(rows=8)
        monkeypatch.setattr(codec, "MESSAGE_BYTES_MAX", 200)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(message)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the answer of" in refused.value.details() and "200" in refused.value.details()


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("length", [2_000, 100_000])
async def test_long_names_do_not_hide_the_status(letter: str, length: int) -> None:
    """A status message travels as metadata, which the client bounds: beyond, it would report its own error instead."""
    message = infer_request()
    message.inputs[0].name = letter * length
    message.inputs[0].datatype = "FP33"
    async with edge() as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(message)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"input '{letter * 50}")


class _Broken:
    """A dispatcher or fleet with a bug, whose text must stay inside."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(SECRET)

    def __iter__(self) -> object:
        raise RuntimeError(SECRET)


async def test_exceptions_of_every_handler_stay_inside() -> None:
    ok = {"ServerLive", "ServerMetadata"}  # they ask nobody
    off = {"RepositoryModelLoad", "RepositoryModelUnload"}  # unless --model-control lets them
    requests = dict.fromkeys(METHODS, b"") | {"ModelInfer": infer_request().SerializeToString()}
    async with edge(dispatcher=_Broken(), fleet=_Broken()) as server:
        for name, raw in requests.items():
            if METHODS[name].stream:
                continue
            call = server.channel.unary_unary(METHODS[name].path)
            if name in ok:
                await call(raw)
                continue
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call(raw)
            if name in off:
                assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            elif failed.value.code() is not grpc.StatusCode.UNIMPLEMENTED:
                assert failed.value.code() is grpc.StatusCode.INTERNAL
                method, error_id, error = server.seen.handler_failures[-1]
                assert failed.value.details() == f"internal error in {name} (error id {error_id})"
                assert (method, str(error)) == (name, SECRET)
        told = [method for method, _, _ in server.seen.handler_failures]
    assert sorted(told) == [
        "ModelConfig",
        "ModelInfer",
        "ModelMetadata",
        "ModelReady",
        "ModelStatistics",
        "RepositoryIndex",
        "ServerReady",
    ]


async def test_refusal_of_the_dispatcher_is_no_handler_failure() -> None:
    async with edge() as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.ModelInfer(infer_request(model="nobody"))
        assert not server.seen.handler_failures
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "unknown model 'nobody', this server has 'm'"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_timeout_that_passes_in_the_queue_is_told_when_it_passes(stream: bool) -> None:
    """Not only when an executor becomes free: the run before it never ends here."""
    gate = Gate()
    served = Served(SyntheticModel(signature(), wait=gate))
    async with edge({"m": served}) as server:
        gate.shut()
        running = asyncio.ensure_future(server.stub.ModelInfer(infer_request()))
        await gate.reached()
        late = infer_request()
        late.parameters["timeout"].int64_param = 50_000
        async with asyncio.timeout(20):
            if stream:
                call = server.stub.ModelStreamInfer()
                await call.write(late)
                words = (await call.read()).error_message
            else:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await server.stub.ModelInfer(late)
                assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                words = refused.value.details()
        assert "passed before model 'm' could run it" in words
        assert server.queued_rows() == 0
        assert server.ended(Outcome.EXPIRED) == 1
        gate.open()
        await running
        assert server.ended(Outcome.SUCCESS) == 1
