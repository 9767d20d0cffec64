"""Liveness, metadata, configuration, statistics, the index, reflection, and the RPCs that Turnout does not do."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.artefacts import synthetic_artefact
from support.edge import Gate, Served, edge, infer_request, signature
from support.reports import report
from turnout.backends.synthetic import SyntheticModel
from turnout.core.ids import Revision
from turnout.transport.catalogue import _UNSUPPORTED, EXTENSIONS
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.gen import model_config_pb2
from turnout_wire.service import METHODS, SERVICE

MODELS = {
    "m": Served(config="max_batch_size: 8 version_policy { all {} }", versions=(1, 2)),
    "half": Served(config="version_policy { all {} }", versions=(1, 2), failing={2: "the file is no model"}),
    "sick": Served(failing={1: "the file is no model"}),
    "lost": Served(problem="it has no version folder"),
}


async def code_of(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    return refused.value.code(), refused.value.details() or ""


async def test_server_metadata() -> None:
    async with edge() as server:
        metadata = await server.stub.ServerMetadata(pb.ServerMetadataRequest())
        assert (await server.stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await server.stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (metadata.name, metadata.version) == ("turnout", "0.0-test")
    assert list(metadata.extensions) == list(EXTENSIONS)
    assert "statistics" in metadata.extensions


async def test_model_ready() -> None:
    async with edge(MODELS) as server:

        async def ready(name: str, version: str = "") -> bool:
            return (await server.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))).ready

        assert [await ready("m"), await ready("m", "1"), await ready("m", "2")] == [True] * 3
        assert [await ready("m", "3"), await ready("nobody"), await ready("sick"), await ready("lost")] == [False] * 4
        assert [await ready("half", "1"), await ready("half", "2")] == [True, False]
        code, details = await code_of(server.stub.ModelReady(pb.ModelReadyRequest(name="m", version="x")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "'x'" in details


async def test_model_metadata() -> None:
    async with edge(MODELS) as server:
        of_all = await server.stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
        of_one = await server.stub.ModelMetadata(pb.ModelMetadataRequest(name="m", version="1"))
        of_half = await server.stub.ModelMetadata(pb.ModelMetadataRequest(name="half"))
    assert (of_all.name, of_all.platform, list(of_all.versions)) == ("m", "onnxruntime_onnx", ["1", "2"])
    assert list(of_one.versions) == ["1"]
    assert list(of_half.versions) == ["1"]
    assert [(t.name, t.datatype, list(t.shape)) for t in of_all.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, list(t.shape)) for t in of_all.outputs] == [("y", "FP32", [-1, 4])]


async def test_model_config_is_the_completed_one() -> None:
    async with edge(MODELS) as server:
        config = (await server.stub.ModelConfig(pb.ModelConfigRequest(name="m"))).config
    assert (config.name, config.platform, config.backend) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 8
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("x", model_config_pb2.TYPE_FP32, [4])]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("y", model_config_pb2.TYPE_FP32, [4])]
    assert config.version_policy.WhichOneof("policy_choice") == "all"


@pytest.mark.parametrize("rpc", ["ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer"])
@pytest.mark.parametrize(
    ("model", "version", "code", "words"),
    [
        (
            "nobody",
            "",
            grpc.StatusCode.NOT_FOUND,
            "unknown model 'nobody', this server has 'half', 'lost', 'm', 'sick'",
        ),
        ("m", "9", grpc.StatusCode.NOT_FOUND, "model 'm' has no ready version 9"),
        ("m", "-1", grpc.StatusCode.INVALID_ARGUMENT, "model version '-1'"),
        ("half", "2", grpc.StatusCode.UNAVAILABLE, "slot 'blue' of model 'half' is FAILED: the file is no model"),
        ("sick", "", grpc.StatusCode.NOT_FOUND, "model 'sick' has no ready version"),
        ("lost", "", grpc.StatusCode.NOT_FOUND, "it has no version folder"),
    ],
)
async def test_what_cannot_be_had(rpc: str, model: str, version: str, code: grpc.StatusCode, words: str) -> None:
    if rpc == "ModelInfer":
        request = infer_request(model=model)
        request.model_version = version
    else:
        request = METHODS[rpc].request(name=model, version=version)  # type: ignore[call-arg, assignment]
    async with edge(MODELS) as server:
        got, details = await code_of(getattr(server.stub, rpc)(request))
    # Triton's quirk: statistics of what is not there are a wrong argument.
    assert got is (grpc.StatusCode.INVALID_ARGUMENT if rpc == "ModelStatistics" else code)
    assert words in details


async def test_traffic_of_a_model_whose_newest_version_failed_goes_nowhere() -> None:
    """Never to an older version on the quiet; that one is reached by its number."""
    async with edge(MODELS) as server:
        got, details = await code_of(server.stub.ModelInfer(infer_request(model="half")))
        assert got is grpc.StatusCode.UNAVAILABLE and "'half'" in details
        # Nor does the model say that it is ready: clients would be sent to it for ever.
        assert not (await server.stub.ModelReady(pb.ModelReadyRequest(name="half"))).ready
        assert (await server.stub.ModelReady(pb.ModelReadyRequest(name="half", version="1"))).ready
        check = health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest(service="half"))
        assert (await check).status == health_pb2.HealthCheckResponse.NOT_SERVING
        pinned = infer_request(model="half")
        pinned.model_version = "1"
        assert (await server.stub.ModelInfer(pinned)).model_version == "1"


async def test_statistics_count_requests_rows_and_runs() -> None:
    gate = Gate()
    models = {"m": Served(SyntheticModel(signature(), wait=gate, poison=13.0)), "quiet": Served()}
    async with edge(models) as server:
        before_ms = time.time_ns() // 1_000_000
        for rows in (1, 3, 3):
            await server.stub.ModelInfer(infer_request(rows=rows))
        for bad in (infer_request(13.0), infer_request(rows=99)):
            await code_of(server.stub.ModelInfer(bad))
        reply = await server.stub.ModelStatistics(pb.ModelStatisticsRequest(name="m"))
        everything = await server.stub.ModelStatistics(pb.ModelStatisticsRequest())
        none = await server.stub.ModelStatistics(pb.ModelStatisticsRequest(name="quiet", version="1"))
    (stats,) = reply.model_stats
    assert (stats.name, stats.version) == ("m", "1")
    assert (stats.inference_count, stats.execution_count) == (7, 3)
    assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (3, 2)
    assert stats.inference_stats.success.ns > 0
    assert stats.inference_stats.queue.count == stats.inference_stats.compute_infer.count == 3
    assert [(b.batch_size, b.compute_infer.count) for b in stats.batch_stats] == [(1, 1), (3, 2)]
    assert before_ms <= stats.last_inference <= time.time_ns() // 1_000_000
    assert [s.name for s in everything.model_stats] == ["m", "quiet"]
    assert (none.model_stats[0].inference_count, none.model_stats[0].last_inference) == (0, 0)


async def test_statistics_have_one_row_per_version() -> None:
    async with edge(MODELS) as server:
        pinned = infer_request()
        pinned.model_version = "1"
        await server.stub.ModelInfer(pinned)
        both = await server.stub.ModelStatistics(pb.ModelStatisticsRequest(name="m"))
        one = await server.stub.ModelStatistics(pb.ModelStatisticsRequest(name="m", version="1"))
    assert [(s.version, s.inference_count) for s in both.model_stats] == [("1", 1), ("2", 0)]
    assert [s.version for s in one.model_stats] == ["1"]


async def test_index_lists_every_model_with_its_reason() -> None:
    async with edge(MODELS) as server:
        full = await server.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        ready = await server.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        code, _ = await code_of(server.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="other")))
    assert [(m.name, m.version, m.state, m.reason) for m in full.models] == [
        ("m", "1", "READY", ""),
        ("m", "2", "READY", ""),
        ("half", "1", "READY", ""),
        ("half", "2", "UNAVAILABLE", "the file is no model"),
        ("sick", "1", "UNAVAILABLE", "the file is no model"),
        ("lost", "", "UNAVAILABLE", "it has no version folder"),
    ]
    assert [(m.name, m.version) for m in ready.models] == [("m", "1"), ("m", "2"), ("half", "1")]
    assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("rpc", _UNSUPPORTED)
async def test_unsupported_rpcs_say_what_to_do_instead(rpc: str) -> None:
    async with edge() as server:
        code, details = await code_of(getattr(server.stub, rpc)(METHODS[rpc].request()))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert details == f"{rpc} is not supported: {_UNSUPPORTED[rpc]}"
    assert len(_UNSUPPORTED[rpc].split()) >= 5


async def test_every_rpc_of_the_service_has_a_handler_and_no_other_path_has() -> None:
    async with edge() as server:
        for name, method in METHODS.items():
            if method.stream:
                continue
            try:
                await server.channel.unary_unary(method.path)(b"")
            except grpc.aio.AioRpcError as error:
                assert "Method not found" not in (error.details() or ""), name
        code, _ = await code_of(server.channel.unary_unary(f"/{SERVICE}/Nothing")(b""))
        private, _ = await code_of(server.channel.unary_unary("/turnout.wire.oip.GRPCInferenceService/ModelInfer")(b""))
    assert code is private is grpc.StatusCode.UNIMPLEMENTED


# Reflection


async def reflect(channel: grpc.aio.Channel, **request: str) -> reflection_pb2.ServerReflectionResponse:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(**request))
    reply = await call.read()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert isinstance(reply, reflection_pb2.ServerReflectionResponse)
    return reply


async def test_reflection_lists_the_public_services() -> None:
    async with edge() as server:
        reply = await reflect(server.channel, list_services="")
    assert sorted(service.name for service in reply.list_services_response.service) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "turnout.models.M",
        "turnout.packed.v1.PackedService",
    ]


@pytest.mark.parametrize(
    ("symbol", "package"),
    [
        ("inference.GRPCInferenceService", "inference"),
        ("inference.ModelInferRequest", "inference"),
        ("inference.ModelConfig", "inference"),
        ("grpc.health.v1.Health", "grpc.health.v1"),
        ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1alpha"),
    ],
)
async def test_reflection_gives_public_files_without_a_private_name(symbol: str, package: str) -> None:
    async with edge() as server:
        reply = await reflect(server.channel, file_containing_symbol=symbol)
        serialised = list(reply.file_descriptor_response.file_descriptor_proto)
        files = [FileDescriptorProto.FromString(one) for one in serialised]
        imported = [await reflect(server.channel, file_by_filename=name) for file in files for name in file.dependency]
    assert {file.package for file in files} == {package}
    serialised += [one for more in imported for one in more.file_descriptor_response.file_descriptor_proto]
    assert all(not more.HasField("error_response") for more in imported)
    assert all(b"turnout" not in one for one in serialised)


async def test_reflection_does_not_know_private_names() -> None:
    async with edge() as server:
        for symbol in ("turnout.wire.oip.GRPCInferenceService", "turnout.wire.oip.ModelInferRequest"):
            reply = await reflect(server.channel, file_containing_symbol=symbol)
            assert reply.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_garbage_to_reflection_is_refused_without_an_exception_s_text() -> None:
    async with edge() as server:
        call = server.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
        await call.write(b"\xff\xff")
        code, words = await code_of(call.read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words == "the message is no ServerReflectionInfo request: it does not parse"


async def test_an_idle_reflection_stream_does_not_hold_up_the_stop() -> None:
    async with edge() as server:
        call = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await call.read()
        async with asyncio.timeout(20):
            await server.server.stop(60)
            code, words = await code_of(call.read())
    assert code is grpc.StatusCode.UNAVAILABLE
    assert words == "the server stops: ask another one"


async def test_variants_are_told_where_the_protocol_leaves_room() -> None:
    async with edge(MODELS) as server:
        model = server.fleet.model("m")
        loaded = replace(synthetic_artefact("m", 2), revision=Revision("m", 2, "int8", "d"), report=report())
        other = replace(loaded, revision=Revision("m", 1, "fp16", "d"), report=None, doubts=("there is no report",))
        model.variants = (other, loaded)
        model.slots["blue"].revision = loaded.revision
        config = (await server.stub.ModelConfig(pb.ModelConfigRequest(name="m"))).config
        older = (await server.stub.ModelConfig(pb.ModelConfigRequest(name="m", version="1"))).config
        metadata = await server.stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
        index = await server.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        none = (await server.stub.ModelConfig(pb.ModelConfigRequest(name="half"))).config
    told = json.loads(config.parameters["turnout_variants"].string_value)
    assert told == [
        {"revision": "m/1@fp16", "slots": [], "stands": False, "why_not": "there is no report", "agreement": None,
         "size_ratio": None},
        {"revision": "m/2@int8", "slots": ["blue"], "stands": True, "why_not": "", "agreement": 0.995,
         "size_ratio": 3.75},
    ]  # fmt: skip
    assert [each["revision"] for each in json.loads(older.parameters["turnout_variants"].string_value)] == ["m/1@fp16"]
    assert not none.parameters
    # As clients of the Open Inference Protocol have it, whose definition has a field more.
    assert list(metadata.versions) == ["1", "2"]
    assert config.parameters["turnout_variants"].string_value.encode() in metadata.SerializeToString()
    reasons = {row.version: row.reason for row in index.models if row.name == "m"}
    assert reasons == {"1": "variants: fp16 (refused: there is no report)", "2": "variant int8 in slot 'blue'"}
