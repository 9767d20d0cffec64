"""Requests on their way, over generated stubs on gevent: a channel for each user, and streams matched by id.

`take_poller` must have been called in this process, after the fork of Locust's workers and before any channel is made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import gevent
import grpc
import grpc.experimental.gevent
from gevent.event import AsyncResult
from gevent.queue import Queue

from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub

# Each user is a client with a connection of its own, near by: no proxy, no limit for what models answer.
_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_END_S_MAX = 3.0
LOST = "lost"  # no answer within the deadline

_poller_taken = False


def take_poller() -> None:
    """gRPC then waits in gevent's threads and leaves the other users running. Once in each process."""
    global _poller_taken  # noqa: PLW0603 - so is gRPC's own state
    if not _poller_taken:
        grpc.experimental.gevent.init_gevent()
        _poller_taken = True


def channel(address: str) -> grpc.Channel:
    assert _poller_taken
    return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    Attributes:
        answer: None where there is none.
        status: empty with an answer, LOST, or the name of a status code.
        details: what the server said of a status.
    """

    took_ms: float
    answer: pb.ModelInferResponse | None
    status: str = ""
    details: str = ""


def ask(
    stub: GRPCInferenceServiceStub,
    request: pb.ModelInferRequest,
    metadata: tuple[tuple[str, str], ...],
    deadline_s: float,
) -> Outcome:
    """One ModelInfer."""
    began = time.perf_counter()
    try:
        answer = stub.ModelInfer(request, timeout=deadline_s, metadata=metadata)
    except grpc.RpcError as error:
        return Outcome(_ms_since(began), None, *status(error))
    return Outcome(_ms_since(began), answer)


class Stream:
    """One ModelStreamInfer call. Requests need ids of their own.

    Attributes:
        strays: answers that belong to no request that waits; a second answer is one.
        ended: why it takes no more requests; empty: it does.
    """

    def __init__(self, stub: GRPCInferenceServiceStub) -> None:
        self._outbox: Queue[pb.ModelInferRequest | None] = Queue()
        self._waiting: dict[str, AsyncResult[Outcome]] = {}
        self._began: dict[str, float] = {}
        self._given_up: set[str] = set()
        self.strays = 0
        self.ended = ""
        self._call = stub.ModelStreamInfer(iter(self._outbox.get, None))
        self._reader = gevent.spawn(self._read)

    def ask(self, requests: Sequence[pb.ModelInferRequest], deadline_s: float) -> list[Outcome]:
        """Sends all, and waits for all."""
        for request in requests:
            self._waiting[request.id] = AsyncResult()
            self._began[request.id] = time.perf_counter()
            self._outbox.put(request)
        if self.ended:
            self._settle_all()
        until = time.perf_counter() + deadline_s
        return [self._outcome(request.id, until) for request in requests]

    def close(self) -> None:
        """What the server still has to say is heard."""
        self._outbox.put(None)
        self._reader.join(timeout=_END_S_MAX)
        self._call.cancel()
        self._reader.kill()

    def _outcome(self, request_id: str, until: float) -> Outcome:
        try:
            outcome = self._waiting[request_id].get(timeout=max(until - time.perf_counter(), 0.0))
            assert outcome is not None
            return outcome
        except gevent.Timeout:
            self._given_up.add(request_id)
            return Outcome(_ms_since(self._began[request_id]), None, LOST)
        finally:
            del self._waiting[request_id], self._began[request_id]

    def _read(self) -> None:
        try:
            for message in self._call:
                self._hear(message)
            self.ended = "STREAM_ENDED"
        except grpc.RpcError as error:
            self.ended, details = status(error)
            self.ended += f": {details}"
        finally:
            self._settle_all()

    def _hear(self, message: pb.ModelStreamInferResponse) -> None:
        request_id = message.infer_response.id
        result = self._waiting.get(request_id)
        if request_id in self._given_up:
            self._given_up.remove(request_id)  # it counts as lost already; a second answer is a stray
        elif result is None or result.ready():
            self.strays += 1
        elif message.error_message:
            result.set(Outcome(_ms_since(self._began[request_id]), None, "STREAM_ERROR", message.error_message))
        else:
            result.set(Outcome(_ms_since(self._began[request_id]), message.infer_response))

    def _settle_all(self) -> None:
        status, _, details = (self.ended or "STREAM_ENDED").partition(": ")
        for request_id, result in self._waiting.items():
            if not result.ready():
                result.set(Outcome(_ms_since(self._began[request_id]), None, status, details))


def status(error: grpc.RpcError) -> tuple[str, str]:
    """LOST or the name of the code, and what the server said."""
    assert isinstance(error, grpc.Call)
    code = error.code()
    return (LOST if code is grpc.StatusCode.DEADLINE_EXCEEDED else str(code.name)), error.details() or ""


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1e3
