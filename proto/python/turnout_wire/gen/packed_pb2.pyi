from turnout_wire.gen import grpc_service_pb2 as _grpc_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InferRequests(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[_grpc_service_pb2.ModelInferRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[_grpc_service_pb2.ModelInferRequest, _Mapping]]] = ...) -> None: ...

class InferResponses(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[_grpc_service_pb2.ModelStreamInferResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[_grpc_service_pb2.ModelStreamInferResponse, _Mapping]]] = ...) -> None: ...
