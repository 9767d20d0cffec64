"""The asyncio client of the data plane: numpy in, numpy out. `Client.infer` is what most programs need.

Retries, balancing, health checks and reconnecting are gRPC's own; streams are `aio_streams`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from turnout_client.aio_streams import StreamPool
from turnout_client.answers import Answer, IndexEntry, ModelMetadata, ParameterValue, ServerMetadata
from turnout_client.connection import channel_options, credentials_of, target_of
from turnout_client.errors import InferenceError, client_closed, inference_error
from turnout_client.replies import answer_of, index_of, model_metadata_of, server_metadata_of
from turnout_client.requests import InferRequest, Inputs, timeout_of
from turnout_client.sending import Headers, Metadata, goes_alone
from turnout_client.settings import TIMEOUT_S, Keepalive, Retry, Settings, Streams, Tls, Token, TraceHeaders, Transport
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.gen.model_config_pb2 import ModelConfig
from turnout_wire.service import METHODS, GRPCInferenceServiceAioStub

__all__ = ["Client"]

_POLL_S = 0.1  # between two questions of wait_ready


class Client:
    """Calls the data plane of one server, or of several that serve the same. Made and used on one event loop; any
    number of calls may be under way. Each method that asks a server raises InferenceError.

    Args:
        endpoint: `HOST:PORT`: one connection. `dns:///NAME:PORT`, or a list of `IP:PORT`: calls go to all addresses in
            turn, as far as their health service says SERVING.
        timeout_s: the deadline of each call that is not told another one, retries and all.
        retry: what is sent again, and when; None: nothing is.
        transport: "unary": each inference is a call. "stream": inferences share a few long streams, which costs the
            server less for each.
        streams: the bounds of these streams.
        wait_for_ready: a call waits for a connection until its deadline. False: it fails as UNAVAILABLE while no
            server can be reached, after its retries.
        keepalive: pings on quiet connections; None: none.
        tls: TLS or mutual TLS; None: plain text.
        token: sent as `authorization: Bearer TOKEN`; a function is asked for each call and must not block.
        insecure_token: send the token without TLS too.
        metadata: sent with each call.
        trace_headers: asked for each inference, for `traceparent` and `tracestate`: `turnout_client.tracing`.
        options: gRPC channel options, over those that follow from all this.

    Raises:
        ValueError: an argument is out of its bounds; the message names it.
    """

    def __init__(
        self,
        endpoint: str | Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        retry: Retry | None = Retry(),  # noqa: B008 - a frozen value
        transport: Transport = "unary",
        streams: Streams = Streams(),  # noqa: B008 - a frozen value
        wait_for_ready: bool = True,
        keepalive: Keepalive | None = Keepalive(),  # noqa: B008 - a frozen value
        tls: Tls | None = None,
        token: Token | None = None,
        insecure_token: bool = False,
        metadata: Mapping[str, str] | None = None,
        trace_headers: TraceHeaders | None = None,
        options: Mapping[str, int | str] | None = None,
    ) -> None:
        self._settings = settings = Settings(
            timeout_s,
            retry,
            transport,
            streams,
            wait_for_ready,
            keepalive,
            tls,
            token,
            insecure_token,
            metadata or {},
            trace_headers,
            options or {},
        )
        self._headers = Headers(settings)
        target = target_of(endpoint)
        arguments = channel_options(target, settings)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target.name, options=arguments)
        else:
            self._channel = grpc.aio.secure_channel(target.name, credentials_of(tls), options=arguments)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None  # of the first call
        self._stub = GRPCInferenceServiceAioStub(self._channel)
        self._infer: Any = self._channel.unary_unary(
            METHODS["ModelInfer"].path, response_deserializer=pb.ModelInferResponse.FromString
        )
        self._pool = StreamPool(self._channel, settings, self._headers) if transport == "stream" else None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the calls under way, as CANCELLED, and closes the connections."""
        self._closed = True
        if self._pool is not None:
            await self._pool.close()
        await self._channel.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        classification: Mapping[str, int] | None = None,
        version: str | int = "",
        slot: str = "",
        key: str = "",
        request_id: str = "",
        priority: int = 0,
        parameters: Mapping[str, ParameterValue] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """One inference.

        Args:
            model: its name.
            inputs: tensors by name; the dtype says the datatype (float32 is FP32, str or bytes are BYTES,
                ml_dtypes.bfloat16 is BF16).
            outputs: those wanted; none named: all.
            classification: outputs that are wanted as their largest elements, with how many of each row: see
                `Answer.classes`.
            version: pins a version; empty: the server routes the request.
            slot: pins a slot, or a role such as `@candidate`.
            key: sticky: requests with the same key are answered by the same slot while traffic is split.
            request_id: comes back as `Answer.inference_id`; empty: the server makes one.
            priority: 1 is the highest, 0 the model's default.
            parameters: further request parameters.
            metadata: further call metadata; keys are lower-case.
            timeout_s: the deadline of this call, retries and all.

        Raises:
            InferenceError: there is no answer.
            ValueError: the arguments are no request; the message names what is wrong.
        """
        timeout_s = timeout_of(timeout_s, self._settings.timeout_s)
        request = InferRequest.of(
            model,
            inputs,
            outputs=outputs,
            classification=classification,
            version=version,
            slot=slot,
            key=key,
            request_id=request_id,
            priority=priority,
            parameters=parameters,
            metadata=metadata,
        )
        trace = self._headers.trace()
        loop = self._own_loop()
        if self._pool is not None and not goes_alone(request, trace, self._settings.streams):
            deadline = loop.time() + timeout_s
            message = await self._pool.ask(request, deadline)
            if message is not None:
                return answer_of(message)
            timeout_s = deadline - loop.time()
        sent = (*self._headers.common(), *request.call_metadata, *trace)
        return answer_of(await self._call(self._infer, request.message(), timeout_s, sent))

    async def wait_ready(self, model: str = "", version: str | int = "", timeout_s: float | None = None) -> None:
        """Returns when a server takes requests; with `model`, when it can answer for that one.

        Raises:
            InferenceError: DEADLINE_EXCEEDED: not within `timeout_s`.
        """
        loop = asyncio.get_running_loop()
        timeout_s = timeout_of(timeout_s, self._settings.timeout_s)
        deadline = loop.time() + timeout_s
        why = ""
        while (left_s := deadline - loop.time()) > 0:
            try:
                if await (self.is_model_ready(model, version, left_s) if model else self.is_server_ready(left_s)):
                    return
                why = "the server answers, and is not ready"
            except InferenceError as error:
                if not error.unreachable and not error.retryable:
                    raise
                why = str(error)
            await asyncio.sleep(min(_POLL_S, max(deadline - loop.time(), 0)))
        raise InferenceError("DEADLINE_EXCEEDED", f"{model or 'the server'} is not ready after {timeout_s:g} s: {why}")

    async def is_server_live(self, timeout_s: float | None = None) -> bool:
        """Whether a server answers at all."""
        reply: pb.ServerLiveResponse = await self._ask(self._stub.ServerLive, pb.ServerLiveRequest(), timeout_s)
        return reply.live

    async def is_server_ready(self, timeout_s: float | None = None) -> bool:
        """Whether the server takes requests, and has a model that could answer one."""
        reply: pb.ServerReadyResponse = await self._ask(self._stub.ServerReady, pb.ServerReadyRequest(), timeout_s)
        return reply.ready

    async def is_model_ready(self, model: str, version: str | int = "", timeout_s: float | None = None) -> bool:
        """Whether the model, or that version of it, can answer; False also where there is none."""
        request = pb.ModelReadyRequest(name=model, version=str(version))
        reply: pb.ModelReadyResponse = await self._ask(self._stub.ModelReady, request, timeout_s)
        return reply.ready

    async def server_metadata(self, timeout_s: float | None = None) -> ServerMetadata:
        return server_metadata_of(await self._ask(self._stub.ServerMetadata, pb.ServerMetadataRequest(), timeout_s))

    async def model_metadata(
        self, model: str, version: str | int = "", timeout_s: float | None = None
    ) -> ModelMetadata:
        """The model's inputs and outputs, and its versions that are ready."""
        request = pb.ModelMetadataRequest(name=model, version=str(version))
        return model_metadata_of(await self._ask(self._stub.ModelMetadata, request, timeout_s))

    async def model_config(self, model: str, version: str | int = "", timeout_s: float | None = None) -> ModelConfig:
        """The configuration in force, as the protocol's message."""
        request = pb.ModelConfigRequest(name=model, version=str(version))
        reply: pb.ModelConfigResponse = await self._ask(self._stub.ModelConfig, request, timeout_s)
        return reply.config

    async def model_statistics(
        self, model: str = "", version: str | int = "", timeout_s: float | None = None
    ) -> list[pb.ModelStatistics]:
        """What one server has counted, by model and version, as the protocol's messages."""
        request = pb.ModelStatisticsRequest(name=model, version=str(version))
        reply: pb.ModelStatisticsResponse = await self._ask(self._stub.ModelStatistics, request, timeout_s)
        return list(reply.model_stats)

    async def repository_index(self, ready: bool = False, timeout_s: float | None = None) -> list[IndexEntry]:
        """What one server has in its repository; with `ready` only what can answer."""
        request = pb.RepositoryIndexRequest(ready=ready)
        return index_of(await self._ask(self._stub.RepositoryIndex, request, timeout_s))

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """Raises RuntimeError on another loop than that of the calls before: gRPC would wait there for ever, or fail
        without saying why."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one in each loop that uses it")
        return loop

    async def _ask(self, call: Any, request: object, timeout_s: float | None) -> Any:
        return await self._call(call, request, timeout_of(timeout_s, self._settings.timeout_s), self._headers.common())

    async def _call(self, call: Any, request: object, timeout_s: float, metadata: Metadata) -> Any:
        if self._closed:
            raise client_closed()
        self._own_loop()
        try:
            return await call(
                request, timeout=timeout_s, metadata=metadata, wait_for_ready=self._settings.wait_for_ready
            )
        except grpc.RpcError as error:
            raise inference_error(error) from None
        except asyncio.CancelledError:
            # gRPC raises it for the status CANCELLED too, whoever cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise (
                client_closed() if self._closed else InferenceError("CANCELLED", "the server cancelled it")
            ) from None
