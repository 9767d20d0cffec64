"""The admin plane's RPCs under their public names, as `service` has the data plane's: a table for servers and stubs
for clients of each service, and the typed details of an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from turnout_wire.gen import feedback_pb2 as feedback
from turnout_wire.gen import slots_pb2 as pb

if TYPE_CHECKING:
    import grpc.aio
    from google.rpc.error_details_pb2 import ErrorInfo
    from grpc import UnaryStreamMultiCallable as Stream
    from grpc import UnaryUnaryMultiCallable as Unary
    from grpc.aio import UnaryStreamMultiCallable as AioStream
    from grpc.aio import UnaryUnaryMultiCallable as AioUnary

SERVICE: Final = "turnout.admin.v1.SlotService"
FEEDBACK_SERVICE: Final = "turnout.admin.v1.FeedbackService"
ERROR_DOMAIN: Final = "turnout.admin.v1"
DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. A stream is one of the server's."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]
    stream: bool

    @property
    def path(self) -> str:
        """The path of a call, with the public service name."""
        return f"/{self.service}/{self.name}"


def _methods(service: str, messages: ModuleType) -> dict[str, Method]:
    described = messages.DESCRIPTOR.services_by_name[service.rpartition(".")[2]]
    return {
        rpc.name: Method(
            service,
            rpc.name,
            getattr(messages, rpc.input_type.name),
            getattr(messages, rpc.output_type.name),
            rpc.server_streaming,
        )
        for rpc in described.methods
    }


METHODS: Final = _methods(SERVICE, pb)
FEEDBACK_METHODS: Final = _methods(FEEDBACK_SERVICE, feedback)


class SlotServiceStub:
    """One callable attribute per RPC, typed for a synchronous channel. Works on an asyncio channel too."""

    LoadSlot: Unary[pb.LoadSlotRequest, pb.LoadSlotResponse]
    UnloadSlot: Unary[pb.UnloadSlotRequest, pb.UnloadSlotResponse]
    SwapSlots: Unary[pb.SwapSlotsRequest, pb.SwapSlotsResponse]
    RollbackModel: Unary[pb.RollbackModelRequest, pb.RollbackModelResponse]
    SetWeights: Unary[pb.SetWeightsRequest, pb.SetWeightsResponse]
    SetShadow: Unary[pb.SetShadowRequest, pb.SetShadowResponse]
    ClearShadow: Unary[pb.ClearShadowRequest, pb.ClearShadowResponse]
    GetModel: Unary[pb.GetModelRequest, pb.GetModelResponse]
    ListModels: Unary[pb.ListModelsRequest, pb.ListModelsResponse]
    WatchModel: Stream[pb.WatchModelRequest, pb.ModelEvent]
    WatchComparisons: Stream[pb.WatchComparisonsRequest, pb.ComparisonEvent]
    ListTransitions: Unary[pb.ListTransitionsRequest, pb.ListTransitionsResponse]

    def __init__(self, channel: grpc.Channel) -> None:
        bind(self, channel, METHODS)


class SlotServiceAioStub:
    """As SlotServiceStub, typed for an asyncio channel."""

    LoadSlot: AioUnary[pb.LoadSlotRequest, pb.LoadSlotResponse]
    UnloadSlot: AioUnary[pb.UnloadSlotRequest, pb.UnloadSlotResponse]
    SwapSlots: AioUnary[pb.SwapSlotsRequest, pb.SwapSlotsResponse]
    RollbackModel: AioUnary[pb.RollbackModelRequest, pb.RollbackModelResponse]
    SetWeights: AioUnary[pb.SetWeightsRequest, pb.SetWeightsResponse]
    SetShadow: AioUnary[pb.SetShadowRequest, pb.SetShadowResponse]
    ClearShadow: AioUnary[pb.ClearShadowRequest, pb.ClearShadowResponse]
    GetModel: AioUnary[pb.GetModelRequest, pb.GetModelResponse]
    ListModels: AioUnary[pb.ListModelsRequest, pb.ListModelsResponse]
    WatchModel: AioStream[pb.WatchModelRequest, pb.ModelEvent]
    WatchComparisons: AioStream[pb.WatchComparisonsRequest, pb.ComparisonEvent]
    ListTransitions: AioUnary[pb.ListTransitionsRequest, pb.ListTransitionsResponse]

    def __init__(self, channel: grpc.aio.Channel) -> None:
        bind(self, channel, METHODS)


class FeedbackServiceStub:
    """As SlotServiceStub, of FeedbackService."""

    RecordFeedback: Unary[feedback.RecordFeedbackRequest, feedback.RecordFeedbackResponse]

    def __init__(self, channel: grpc.Channel) -> None:
        bind(self, channel, FEEDBACK_METHODS)


class FeedbackServiceAioStub:
    """As FeedbackServiceStub, typed for an asyncio channel."""

    RecordFeedback: AioUnary[feedback.RecordFeedbackRequest, feedback.RecordFeedbackResponse]

    def __init__(self, channel: grpc.aio.Channel) -> None:
        bind(self, channel, FEEDBACK_METHODS)


def bind(stub: object, channel: grpc.Channel | grpc.aio.Channel, methods: Mapping[str, Method]) -> None:
    """Sets one attribute of `stub` for each RPC."""
    for method in methods.values():
        make: Any = channel.unary_stream if method.stream else channel.unary_unary
        call = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        setattr(stub, method.name, call)


def error_info(error: grpc.RpcError | grpc.aio.AioRpcError) -> ErrorInfo | None:
    """The reason and metadata of an error that an RPC of these services ended with; None: it has none, because it comes
    from somewhere else, such as gRPC itself."""
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    call: Any = error
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            for detail in Status.FromString(value).details:
                info = ErrorInfo()
                if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                    return info
    return None
