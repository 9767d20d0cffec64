"""The data plane's RPCs under their public names: a table for servers and stubs for clients.

The messages are generated under a private package name, and gRPC's own generated code would put that name
into the path of every call. So the paths are made here, and nothing else: no channel, no retry, no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from turnout_wire.gen import grpc_service_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio
    from grpc import StreamStreamMultiCallable as Stream
    from grpc import UnaryUnaryMultiCallable as Unary
    from grpc.aio import StreamStreamMultiCallable as AioStream
    from grpc.aio import UnaryUnaryMultiCallable as AioUnary

SERVICE: Final = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. A stream is one in both directions; all others are unary."""

    name: str
    request: type[Message]
    response: type[Message]
    stream: bool

    @property
    def path(self) -> str:
        """The path of a call, with the public service name."""
        return f"/{SERVICE}/{self.name}"


METHODS: Final[dict[str, Method]] = {
    rpc.name: Method(
        rpc.name,
        getattr(pb, rpc.input_type.name),
        getattr(pb, rpc.output_type.name),
        rpc.client_streaming,
    )
    for rpc in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
}


class GRPCInferenceServiceStub:
    """One callable attribute per RPC, typed for a synchronous channel. Works on an asyncio channel too."""

    ServerLive: Unary[pb.ServerLiveRequest, pb.ServerLiveResponse]
    ServerReady: Unary[pb.ServerReadyRequest, pb.ServerReadyResponse]
    ModelReady: Unary[pb.ModelReadyRequest, pb.ModelReadyResponse]
    ServerMetadata: Unary[pb.ServerMetadataRequest, pb.ServerMetadataResponse]
    ModelMetadata: Unary[pb.ModelMetadataRequest, pb.ModelMetadataResponse]
    ModelInfer: Unary[pb.ModelInferRequest, pb.ModelInferResponse]
    ModelStreamInfer: Stream[pb.ModelInferRequest, pb.ModelStreamInferResponse]
    ModelConfig: Unary[pb.ModelConfigRequest, pb.ModelConfigResponse]
    ModelStatistics: Unary[pb.ModelStatisticsRequest, pb.ModelStatisticsResponse]
    RepositoryIndex: Unary[pb.RepositoryIndexRequest, pb.RepositoryIndexResponse]
    RepositoryModelLoad: Unary[pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse]
    RepositoryModelUnload: Unary[pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse]
    SystemSharedMemoryStatus: Unary[pb.SystemSharedMemoryStatusRequest, pb.SystemSharedMemoryStatusResponse]
    SystemSharedMemoryRegister: Unary[pb.SystemSharedMemoryRegisterRequest, pb.SystemSharedMemoryRegisterResponse]
    SystemSharedMemoryUnregister: Unary[pb.SystemSharedMemoryUnregisterRequest, pb.SystemSharedMemoryUnregisterResponse]
    CudaSharedMemoryStatus: Unary[pb.CudaSharedMemoryStatusRequest, pb.CudaSharedMemoryStatusResponse]
    CudaSharedMemoryRegister: Unary[pb.CudaSharedMemoryRegisterRequest, pb.CudaSharedMemoryRegisterResponse]
    CudaSharedMemoryUnregister: Unary[pb.CudaSharedMemoryUnregisterRequest, pb.CudaSharedMemoryUnregisterResponse]
    TraceSetting: Unary[pb.TraceSettingRequest, pb.TraceSettingResponse]
    LogSettings: Unary[pb.LogSettingsRequest, pb.LogSettingsResponse]

    def __init__(self, channel: grpc.Channel) -> None:
        bind(self, channel)


class GRPCInferenceServiceAioStub:
    """As GRPCInferenceServiceStub, typed for an asyncio channel."""

    ServerLive: AioUnary[pb.ServerLiveRequest, pb.ServerLiveResponse]
    ServerReady: AioUnary[pb.ServerReadyRequest, pb.ServerReadyResponse]
    ModelReady: AioUnary[pb.ModelReadyRequest, pb.ModelReadyResponse]
    ServerMetadata: AioUnary[pb.ServerMetadataRequest, pb.ServerMetadataResponse]
    ModelMetadata: AioUnary[pb.ModelMetadataRequest, pb.ModelMetadataResponse]
    ModelInfer: AioUnary[pb.ModelInferRequest, pb.ModelInferResponse]
    ModelStreamInfer: AioStream[pb.ModelInferRequest, pb.ModelStreamInferResponse]
    ModelConfig: AioUnary[pb.ModelConfigRequest, pb.ModelConfigResponse]
    ModelStatistics: AioUnary[pb.ModelStatisticsRequest, pb.ModelStatisticsResponse]
    RepositoryIndex: AioUnary[pb.RepositoryIndexRequest, pb.RepositoryIndexResponse]
    RepositoryModelLoad: AioUnary[pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse]
    RepositoryModelUnload: AioUnary[pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse]
    SystemSharedMemoryStatus: AioUnary[pb.SystemSharedMemoryStatusRequest, pb.SystemSharedMemoryStatusResponse]
    SystemSharedMemoryRegister: AioUnary[pb.SystemSharedMemoryRegisterRequest, pb.SystemSharedMemoryRegisterResponse]
    SystemSharedMemoryUnregister: AioUnary[
        pb.SystemSharedMemoryUnregisterRequest, pb.SystemSharedMemoryUnregisterResponse
    ]
    CudaSharedMemoryStatus: AioUnary[pb.CudaSharedMemoryStatusRequest, pb.CudaSharedMemoryStatusResponse]
    CudaSharedMemoryRegister: AioUnary[pb.CudaSharedMemoryRegisterRequest, pb.CudaSharedMemoryRegisterResponse]
    CudaSharedMemoryUnregister: AioUnary[pb.CudaSharedMemoryUnregisterRequest, pb.CudaSharedMemoryUnregisterResponse]
    TraceSetting: AioUnary[pb.TraceSettingRequest, pb.TraceSettingResponse]
    LogSettings: AioUnary[pb.LogSettingsRequest, pb.LogSettingsResponse]

    def __init__(self, channel: grpc.aio.Channel) -> None:
        bind(self, channel)


def bind(stub: object, channel: grpc.Channel | grpc.aio.Channel) -> None:
    """Sets one attribute of `stub` for each RPC."""
    for method in METHODS.values():
        make: Any = channel.stream_stream if method.stream else channel.unary_unary
        call = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        setattr(stub, method.name, call)
