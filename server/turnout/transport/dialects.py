"""What a request and its answer look like on the wire: the protocol's own messages, or those of a model's own service.
All else of a call is `inference`'s, and the same for each."""

from __future__ import annotations

from typing import Protocol

from turnout.core.errors import ServingError
from turnout.core.tensors import InferenceRequest, InferenceResponse
from turnout.transport import codec


class Dialect(Protocol):
    """Reads requests and writes answers."""

    @property
    def unary(self) -> str:
        """What the RPC of one request is called in errors, logs and spans; of the protocol's service, without it."""

    @property
    def stream(self) -> str:
        """What that of many requests is called."""

    def read(self, data: bytes) -> codec.Received:
        """The request in a message. What is wrong with it beyond that is told later, by `Received.request`.

        Raises:
            DecodeError: it is no such message.
        """

    def encode(
        self, request: InferenceRequest, response: InferenceResponse, *, identity: bool, streamed: bool = False
    ) -> bytes:
        """The message of an answer; with `identity` it says who answered.

        Raises:
            ServingError: it cannot be written so.
        """

    def encode_stream_error(self, asked: codec.Asked, error: ServingError, code: str) -> bytes:
        """The message of a request of a stream that failed; the stream goes on. `code`: the name of its status."""


class OpenInference:
    """The protocol's own ModelInfer and ModelStreamInfer."""

    unary = "ModelInfer"
    stream = "ModelStreamInfer"
    encode = staticmethod(codec.encode)
    encode_stream_error = staticmethod(codec.encode_stream_error)

    def __init__(self, limits: codec.DecodeLimits) -> None:
        self.read = codec.Requests(limits).read
