"""The RPC table and the stubs, against a server that knows only the public names."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2_grpc

from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS, SERVICE, GRPCInferenceServiceAioStub, GRPCInferenceServiceStub


class Recorder:
    """Stands for a channel: keeps what a stub asks for."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, Any, Any]] = {}

    def unary_unary(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> str:
        self.made[path] = ("unary", request_serializer, response_deserializer)
        return path

    def stream_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> str:
        self.made[path] = ("stream", request_serializer, response_deserializer)
        return path


@pytest.fixture
def address() -> Iterator[str]:
    """A server that answers `ModelInfer` and `ModelStreamInfer` with the request's id."""

    def infer(request: pb.ModelInferRequest, _: grpc.ServicerContext) -> pb.ModelInferResponse:
        return pb.ModelInferResponse(id=request.id)

    def stream(
        requests: Iterator[pb.ModelInferRequest], _: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in requests:
            yield pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(id=request.id))

    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        ),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
            stream, pb.ModelInferRequest.FromString, pb.ModelStreamInferResponse.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("stub", [GRPCInferenceServiceStub, GRPCInferenceServiceAioStub])
def test_stub_makes_the_calls_that_tritonclient_makes(stub: Any) -> None:
    ours, theirs = Recorder(), Recorder()
    made = stub(ours)
    service_pb2_grpc.GRPCInferenceServiceStub(theirs)
    assert ours.made.keys() == theirs.made.keys() == {method.path for method in METHODS.values()}
    for path, (kind, _, _) in theirs.made.items():
        assert ours.made[path][0] == kind
    for name, method in METHODS.items():
        assert getattr(made, name) == method.path == f"/inference.GRPCInferenceService/{name}"
        assert ours.made[method.path][1:] == (method.request.SerializeToString, method.response.FromString)


def test_only_model_stream_infer_is_a_stream() -> None:
    assert len(METHODS) == 20
    assert [name for name, method in METHODS.items() if method.stream] == ["ModelStreamInfer"]


@pytest.mark.parametrize(("stub", "prefix"), [(GRPCInferenceServiceStub, ""), (GRPCInferenceServiceAioStub, "Aio")])
def test_annotations_follow_the_table(stub: type, prefix: str) -> None:
    expected = {
        name: f"{prefix}{'Stream' if method.stream else 'Unary'}"
        f"[pb.{method.request.DESCRIPTOR.name}, pb.{method.response.DESCRIPTOR.name}]"
        for name, method in METHODS.items()
    }
    assert {name: str(text) for name, text in stub.__annotations__.items()} == expected


def test_calls_on_a_synchronous_channel(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(pb.ModelInferRequest(id="1"), timeout=10).id == "1"
        requests = iter([pb.ModelInferRequest(id="2"), pb.ModelInferRequest(id="3")])
        answers = stub.ModelStreamInfer(requests, timeout=10)
        assert [answer.infer_response.id for answer in answers] == ["2", "3"]
        with pytest.raises(grpc.RpcError) as raised:
            stub.ServerLive(pb.ServerLiveRequest(), timeout=10)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("stub_class", [GRPCInferenceServiceAioStub, GRPCInferenceServiceStub])
def test_calls_on_an_asyncio_channel(address: str, stub_class: Any) -> None:
    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in "23":
            yield pb.ModelInferRequest(id=number)

    async def call() -> tuple[str, list[str]]:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = stub_class(channel)
            answer = await stub.ModelInfer(pb.ModelInferRequest(id="1"), timeout=10)
            answers = stub.ModelStreamInfer(requests(), timeout=10)
            return answer.id, [one.infer_response.id async for one in answers]

    assert asyncio.run(call()) == ("1", ["2", "3"])
