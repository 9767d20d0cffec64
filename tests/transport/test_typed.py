"""A model's own service over a real socket: every datatype, shapes, errors named after fields, models that change."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.edge import DECODE_LIMITS, WAIT_S_MAX, Gate, Served, edge, eventually, infer_request, signature
from support.traces import KeptTraces
from support.typed import TypedClient, reflect, services
from turnout.backends.synthetic import SyntheticModel
from turnout.core.ids import Revision
from turnout.core.routing import Interval
from turnout.core.tensors import InferenceRequest, InferenceResponse, Signature, TensorSpec, Timings
from turnout.runtime.account import Outcome
from turnout.runtime.jobs import SlotLimits
from turnout.transport.typed_codec import TypedCodec
from turnout_wire.tensors import DataType
from turnout_wire.typed import KINDS, Tensor, model_service
from turnout_wire.varint import to_varint

# Per kind: what a client sends, what y = x + x gives (BOOL, BYTES and BF16 are copied).
VALUES: dict[str, tuple[Any, Any]] = {
    "bool": ([True, False, True], [True, False, True]),
    "bytes": (b"\x01\x02\x7f", b"\x02\x04\xfe"),
    "uint32": ([1, 300, 32767], [2, 600, 65534]),
    "sint32": ([-64, 0, 63], [-128, 0, 126]),
    "fixed32": ([1, 2, 2**31 - 1], [2, 4, 2**32 - 2]),
    "fixed64": ([1, 2, 2**63 - 1], [2, 4, 2**64 - 2]),
    "sfixed32": ([-5, 0, 2**29], [-10, 0, 2**30]),
    "sfixed64": ([-5, 0, 2**61], [-10, 0, 2**62]),
    "float": ([0.5, -1.25, 3.0], [1.0, -2.5, 6.0]),
    "double": ([0.1, -1e300, 3.0], [0.2, -2e300, 6.0]),
    "string": (["a", "", "ü€"], ["a", "", "ü€"]),
}


def service_of(model: str) -> str:
    return "turnout.models." + "".join(word.capitalize() for word in model.split("_"))


def open_model(*shape: int, datatype: DataType = DataType.FP32, optional: bool = False) -> SyntheticModel:
    spec = TensorSpec("x", datatype, shape, optional=optional)
    return SyntheticModel(Signature((spec,), (replace(spec, name="y", optional=False),)))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_every_datatype_in_and_out() -> None:
    models = {f"m_{d.value.lower()}": Served(SyntheticModel(signature(d, 3))) for d in DataType}
    async with edge(models) as server:
        for datatype in DataType:
            client = await TypedClient.of(server.channel, service_of(f"m_{datatype.value.lower()}"))
            given, wanted = VALUES[KINDS[datatype]]
            if datatype in (DataType.BF16,):
                wanted = given
            answer = await client.predict(client.Request(x=given))
            got = answer.y if isinstance(wanted, bytes) else list(answer.y)
            assert got == wanted, datatype
            several = await client.predict(client.Request(x=given * 2))
            assert len(several.y) == 2 * len(wanted), datatype


async def test_the_answer_says_who_gave_it() -> None:
    async with edge() as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        answer = await client.predict(client.Request(x=[1, 2, 3, 4], request_id="r-1"))
        other = await client.predict(client.Request(x=[1, 2, 3, 4]))
    said = (answer.request_id, answer.inference_id, answer.model_version, answer.slot, answer.revision)
    assert said == ("r-1", "r-1", "1", "blue", "m/1")
    assert (answer.generation, answer.error_code, answer.error_message) == (1, 0, "")
    assert (other.request_id, len(other.inference_id)) == ("", 16)
    async with edge(identity=False) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        answer = await client.predict(client.Request(x=[1, 2, 3, 4], request_id="r-1"))
    assert (answer.request_id, answer.model_version, answer.slot, answer.inference_id) == ("r-1", "1", "", "")


async def test_pins_and_sticky_keys_are_those_of_the_generic_service() -> None:
    config = "max_batch_size: 8 version_policy { all {} }"
    async with edge({"m": Served(config=config, versions=(1, 2))}) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        x = [1.0] * 4
        pinned = await client.predict(client.Request(x=x, model_version="1"))
        by_slot = await client.predict(client.Request(x=x), metadata=(("turnout-slot", "v1"),))
        assert [a.slot for a in (pinned, by_slot)] == ["v1", "v1"]
        error = await refused(client.predict(client.Request(x=x, model_version="9")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        model = server.fleet.model("m")
        assert model.route is not None
        blue, older = model.route.targets
        half = replace(model.route, intervals=(Interval(0, 5000, blue), Interval(5000, 10000, older)))
        model.assign(half)
        for user in map(str, range(20)):
            generic = infer_request()
            generic.parameters["sticky_key"].string_param = user
            by_parameter = (await server.stub.ModelInfer(generic)).parameters["turnout_slot"].string_param
            by_field = await client.predict(client.Request(x=x, sticky_key=user))
            by_metadata = await client.predict(client.Request(x=x), metadata=(("turnout-sticky-key", user),))
            assert by_field.slot == by_metadata.slot == by_parameter
        assert {"blue", "v1"} == set(model.routed)


async def test_shapes_follow_or_are_given() -> None:
    models = {
        "open": Served(open_model(-1, -1, -1)),
        "fixed": Served(open_model(2, 3), config=""),
        "scalar": Served(open_model(), config=""),
    }
    async with edge(models) as server:
        client = await TypedClient.of(server.channel, "turnout.models.Open")
        answer = await client.predict(client.Request(x=range(12), x_shape=[2, 3, 2]))
        assert (list(answer.y), list(answer.y_shape)) == ([2.0 * n for n in range(12)], [2, 3, 2])
        empty = await client.predict(client.Request(x_shape=[2, 0, 2]))
        assert (list(empty.y), list(empty.y_shape)) == ([], [2, 0, 2])
        for shape in ([], [12], [2, 3, 3], [-2, -3, 2], [2, 3, 2] * 20):
            error = await refused(client.predict(client.Request(x=range(12), x_shape=shape)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "field 'x' of OpenRequest has 12 values, and x_shape is" in error.details()
        client = await TypedClient.of(server.channel, "turnout.models.Fixed")
        assert list((await client.predict(client.Request(x=range(6)))).y) == [0, 2, 4, 6, 8, 10]
        error = await refused(client.predict(client.Request(x=range(7))))
        assert "field 'x' of FixedRequest has 7 values, and shape [2, 3] takes 6" in error.details()
        client = await TypedClient.of(server.channel, "turnout.models.Scalar")
        assert list((await client.predict(client.Request(x=[4]))).y) == [8]


@pytest.mark.parametrize(
    ("datatype", "values", "says"),
    [
        (DataType.FP32, [1.0] * 5, "field 'x' of MRequest has 5 values, and shape [-1, 4] takes a multiple of 4"),
        (DataType.FP32, [], "field 'x' of MRequest is empty: send the values of shape [-1, 4], row by row"),
        (DataType.INT8, [1, 2, 3, 128], "field 'x' has the value 128, which INT8 cannot hold"),
        (DataType.UINT16, [1, 2, 3, 65536], "field 'x' has the value 65536, which UINT16 cannot hold"),
        (DataType.FP16, [1, 2, 3, 70000], "field 'x' has the value 70000.0, which FP16 cannot hold"),
        (DataType.BYTES, [""] * 1004, "field 'x' of MRequest is too long: with it the request has 1004 strings"),
        (DataType.INT16, [0] * 1004, "with it the request has 1004 numbers, the limit is 1000"),
        (DataType.FP32, [1.0] * 36, "the request has 9 rows, the model takes from 1 to 8"),
    ],
)
async def test_an_error_names_the_field(datatype: DataType, values: list[Any], says: str) -> None:
    async with edge({"m": Served(SyntheticModel(signature(datatype)))}) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        error = await refused(client.predict(client.Request(x=values)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert says in error.details()
        await eventually(lambda: ("turnout.models.M/Predict", "INVALID_ARGUMENT") in server.counts.calls)
        in_slot = sum(server.ended(outcome) for outcome in Outcome)
        assert in_slot + sum(server.counts.refused.values()) == 1  # counted once, where ModelInfer's would be


async def test_a_message_that_is_none_and_one_in_another_encoding() -> None:
    models = {"m": Served(), "flag": Served(SyntheticModel(signature(DataType.BOOL, 2)))}
    async with edge(models) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        number = client.Request.DESCRIPTOR.fields_by_name["x"].number
        tag, numbers = to_varint(number << 3 | 2), np.arange(1, 5, dtype="<f4").tobytes()
        # The last: values that end within a piece, though the pieces together are whole.
        for broken in (b"\xff", tag + b"\x03abc", tag + b"\x06" + numbers[:6] + tag + b"\x0a" + numbers[6:]):
            error = await refused(client.predict(broken))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "the message is no turnout.models.M/Predict request" in error.details()
        pieces = tag + b"\x08" + numbers[:8] + tag + b"\x08" + numbers[8:]
        assert list((await client.predict(pieces)).y) == [2, 4, 6, 8]
        single = to_varint(number << 3 | 5)
        unpacked = b"".join(single + numbers[at : at + 4] for at in range(0, 16, 4))
        assert list((await client.predict(unpacked)).y) == [2, 4, 6, 8]
        scattered = (
            b"".join(to_varint(number << 3 | 2) + b"\x04" + numbers[at : at + 4] for at in range(0, 16, 4)) * 8
        )  # 32 pieces
        for much in (b"\x78\x01", to_varint(number << 3 | 2) + b"\x00"):  # unknown fields, pieces of nothing
            assert list((await client.predict(much * 100 + scattered)).y) == [2, 4, 6, 8] * 8
        client = await TypedClient.of(server.channel, "turnout.models.Flag")
        tag = to_varint(client.Request.DESCRIPTOR.fields_by_name["x"].number << 3 | 2)
        assert list((await client.predict(tag + b"\x03\x80\x01\x00")).y) == [True, False]  # true in two bytes


def test_what_a_message_has_beside_its_fields_costs_no_python_objects() -> None:
    service = model_service("m", [Tensor("x", DataType.FP32, (-1, 4))], [])
    codec = TypedCodec(service, DECODE_LIMITS)
    single = to_varint(service.inputs[0].number << 3 | 5) + np.float32(2).tobytes()
    whole = to_varint(service.inputs[0].number << 3 | 2) + b"\x10" + np.ones(4, "<f4").tobytes()
    codec.read(whole)
    for much in (b"\x78\x01" * 200_000 + whole, single * 40_000):
        tracemalloc.start()
        try:
            received = codec.read(much)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert received.request(None).inputs["x"].size in (4, 40_000)
        assert peak < 3 * len(much)  # the values, and the message in its usual encoding; an object each is 20 times it


@pytest.mark.parametrize("datatype", [DataType.INT8, DataType.INT16, DataType.UINT16])
def test_an_answer_in_small_integers_costs_no_python_objects(datatype: DataType) -> None:
    service = model_service("m", [], [Tensor("y", datatype, (-1,))])
    codec, spec = TypedCodec(service, DECODE_LIMITS), TensorSpec("y", datatype, (-1,))
    limits = np.iinfo(datatype.dtype)
    values = np.arange(limits.min, limits.max + 1).astype(datatype.dtype)
    every = np.tile(values, 2**17 // values.size)
    revision, timings = Revision("m", 1, "", "0" * 64), Timings(1, 2, 3, 4, 1)
    request = InferenceRequest(model="m", inputs={}, outputs=(), request_id="", inference_id="i")
    response = InferenceResponse(revision, "blue", 1, ((spec, every),), timings)
    codec.encode(request, response, identity=True)
    tracemalloc.start()
    try:
        answer = codec.encode(request, response, identity=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(codec._messages[2].FromString(answer).y) == every.tolist()
    assert peak < 24 * every.size  # bytes; a list of objects takes 36 for each value, but for INT8's smallest


async def test_a_tensor_may_be_called_as_a_method_of_messages() -> None:
    names = ["SerializeToString", "FromString", "DESCRIPTOR", "extend"]
    specs = tuple(TensorSpec(name, DataType.FP32, (-1, 1)) for name in names)
    async with edge({"m": Served(SyntheticModel(Signature(specs, specs)))}) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        answer = await client.predict(client.Request(**{name: [n] for n, name in enumerate(names)}))
        assert [list(getattr(answer, name)) for name in names] == [[0], [2], [4], [6]]


async def test_deadline_cancellation_and_bounds_are_those_of_the_generic_service() -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model)}, limits=SlotLimits(2, 1 << 30)) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        gate.shut()
        running = asyncio.ensure_future(client.predict(client.Request(x=[1] * 4)))
        await gate.reached()
        late = asyncio.ensure_future(client.predict(client.Request(x=[1] * 4), timeout=0.2))
        left = client.predict(client.Request(x=[1] * 4))
        await eventually(lambda: server.queued_rows() == 2)
        full = await refused(client.predict(client.Request(x=[1] * 4)))
        assert full.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(full.trailing_metadata())["grpc-retry-pushback-ms"]
        left.cancel()
        assert (await refused(late)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: server.queued_rows() == 0)
        await eventually(lambda: server.inference.calls == 1)
        gate.open()
        await asyncio.wait_for(running, WAIT_S_MAX)
        wanted = {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
        path = "turnout.models.M/Predict"
        await eventually(lambda: {status for method, status in server.counts.calls if method == path} == wanted)


async def test_a_traced_request_is_told_with_the_method_that_was_called() -> None:
    tracer = KeptTraces()
    async with edge(tracer=tracer) as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        await client.predict(client.Request(x=[1] * 4, request_id="r"))
        await refused(client.predict(client.Request(x=[1] * 3)))
        assert [answer.request_id async for answer in client.predict_stream([client.Request(x=[1] * 4)])] == [""]
    told = [(ended.method, ended.status) for ended in tracer.requests]
    unary, stream = "turnout.models.M/Predict", "turnout.models.M/PredictStream"
    assert told == [(unary, "OK"), (unary, "INVALID_ARGUMENT"), (stream, "OK")]


async def test_a_stream_answers_in_order_and_an_error_is_an_answer() -> None:
    async with edge() as server:
        client = await TypedClient.of(server.channel, "turnout.models.M")
        requests = [client.Request(x=[n] * (4 if n != 1 else 3), request_id=f"r{n}") for n in range(4)]
        answers = [answer async for answer in client.predict_stream(iter(requests))]
        assert [answer.request_id for answer in answers] == ["r0", "r1", "r2", "r3"]
        assert [answer.error_code for answer in answers] == [0, 3, 0, 0]
        assert "field 'x' of MRequest has 3 values" in answers[1].error_message
        assert [answer.error_reason for answer in answers] == ["", "INVALID_REQUEST", "", ""]
        assert list(answers[3].y) == [6] * 4
        stream = client.predict_stream(metadata=(("triton_grpc_error", "true"),))
        await stream.write(requests[0])
        assert (await stream.read()).request_id == "r0"
        await stream.write(requests[1])
        error = await refused(stream.read())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_services_come_change_and_go_with_their_models() -> None:
    async with edge({"m": Served(versions=(1, 2)), "other": Served()}) as server:
        assert set(await services(server.channel)) >= {"turnout.models.M", "turnout.models.Other"}
        before = await TypedClient.of(server.channel, "turnout.models.M")
        handler = server.services.handlers["/turnout.models.Other/Predict"]
        model = server.fleet.model("m")
        cargo = server.slot().cargo
        assert cargo is not None
        changed = Signature((TensorSpec("x", DataType.FP32, (-1, 4)),), (TensorSpec("z", DataType.FP32, (-1, 4)),), 8)
        object.__setattr__(cargo.spec, "signature", changed)
        server.services.refresh()
        assert server.services.handlers["/turnout.models.Other/Predict"] is handler  # not touched
        after = await TypedClient.of(server.channel, "turnout.models.M")
        assert [f.name for f in after.Response.DESCRIPTOR.fields][-1] == "z"
        assert [f.name for f in before.Response.DESCRIPTOR.fields][-1] == "y"
        # A slot with another signature than the service's: asked for by a pin, and refused by name.
        error = await refused(after.predict(after.Request(x=[1] * 4), metadata=(("turnout-slot", "v1"),)))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "m/1 in slot 'v1' gives no output 'z' of FP32 [-1, 4]" in error.details()
        assert any(method == "turnout.models.M/Predict" for method, _ in server.counts.calls)
        del server.fleet._models["m"]
        server.services.refresh()
        assert not any(method.startswith("turnout.models.M/") for method, _ in server.counts.calls)
        assert "turnout.models.M" not in await services(server.channel)
        error = await refused(after.predict(after.Request(x=[1] * 4)))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert model.name == "m"


async def test_an_open_stream_of_reflection_hears_of_services_that_come_and_go() -> None:
    async with edge({"m": Served(), "other": Served()}) as server:
        stream = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo()
        for wanted in ({"turnout.models.M", "turnout.models.Other"}, {"turnout.models.Other"}):
            await stream.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
            reply = await asyncio.wait_for(stream.read(), WAIT_S_MAX)
            listed = {service.name for service in reply.list_services_response.service}
            assert {name for name in listed if name.startswith("turnout.models.")} == wanted
            server.fleet._models.pop("m", None)
            server.services.refresh()
        stream.cancel()


async def test_reflection_finds_files_and_symbols_of_models_and_of_the_protocol() -> None:
    async with edge() as server:
        for symbol in ("turnout.models.M", "turnout.models.MRequest", "turnout.models.MResponse.y"):
            found = await reflect(server.channel, file_containing_symbol=symbol)
            assert len(found.file_descriptor_response.file_descriptor_proto) == 1, symbol
        by_name = await reflect(server.channel, file_by_filename="turnout/models/m.proto")
        assert by_name.file_descriptor_response.file_descriptor_proto
        assert (await reflect(server.channel, file_by_filename="inference/grpc_service.proto")).WhichOneof(
            "message_response"
        ) == "file_descriptor_response"
        for symbol in ("turnout.models.Missing", "turnout.models.M.Nothing", "MRequest"):
            found = await reflect(server.channel, file_containing_symbol=symbol)
            assert found.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0], symbol
