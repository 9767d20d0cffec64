"""A client of a model's own service that knows nothing of it beforehand: it asks for the descriptor by reflection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


async def reflect(channel: grpc.aio.Channel, **question: str) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(**question)
    async for reply in stub.ServerReflectionInfo(iter([asked])):
        return reply
    raise AssertionError("reflection has not answered")


async def services(channel: grpc.aio.Channel) -> list[str]:
    reply = await reflect(channel, list_services="*")
    return [service.name for service in reply.list_services_response.service]


class TypedClient:
    """Of one service, such as turnout.models.Digits; `Request` and `Response` are its messages."""

    def __init__(self, channel: grpc.aio.Channel, service: str, files: Iterable[bytes]) -> None:
        pool = DescriptorPool()
        for file in files:
            pool.AddSerializedFile(file)
        self.Request: Any = GetMessageClass(pool.FindMessageTypeByName(f"{service}Request"))
        self.Response: Any = GetMessageClass(pool.FindMessageTypeByName(f"{service}Response"))
        coders: Any = {
            "request_serializer": lambda message: (
                message if isinstance(message, bytes) else self.Request.SerializeToString(message)
            ),
            "response_deserializer": self.Response.FromString,
        }
        self.predict: Any = channel.unary_unary(f"/{service}/Predict", **coders)
        self.predict_stream: Any = channel.stream_stream(f"/{service}/PredictStream", **coders)

    @classmethod
    async def of(cls, channel: grpc.aio.Channel, service: str) -> TypedClient:
        reply = await reflect(channel, file_containing_symbol=service)
        return cls(channel, service, reply.file_descriptor_response.file_descriptor_proto)
