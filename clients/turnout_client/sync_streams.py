"""As `aio_streams`, for threads: many inferences over a few long streams, matched by request id.

Each stream has a thread that reads, and one of gRPC's that takes its requests.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from turnout_client.errors import InferenceError, client_closed, inference_error
from turnout_client.replies import stream_error
from turnout_client.requests import InferRequest, mint_id
from turnout_client.retrying import Alone, NotPacked, Retries, stream_ended
from turnout_client.sending import Headers
from turnout_client.settings import Settings
from turnout_wire import packed
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import METHODS

_JOIN_S_MAX = 5.0  # a cancelled stream's thread ends at once; close does not hang on one that does not


class StreamPool:
    """The streams of one client, opened as they are needed. Any number of threads may ask at once."""

    def __init__(self, channel: grpc.Channel, settings: Settings, headers: Headers) -> None:
        self._settings = settings
        self._bounds = settings.streams
        self._headers = headers
        self._open: Any = channel.stream_stream(METHODS["ModelStreamInfer"].path)  # no serialisers: bytes both ways
        self._open_packed: Any = channel.stream_stream(packed.PATH)
        self._packed_at = 0.0 if settings.streams.packed else inf  # from when on new streams are packed ones
        self._lock = threading.Lock()  # of the streams, and of what each of them has under way
        self._streams: set[_Stream] = set()  # those that ended leave it
        # The least loaded stream takes a call, so a bound on all of them bounds each.
        self._places = threading.Semaphore(self._bounds.streams_max * self._bounds.inflight_max)
        self._retries = Retries(settings.retry)
        self._closed = False

    def ask(self, request: InferRequest, deadline: float) -> pb.ModelInferResponse | None:
        """The answer, after retries if need be; None: the request must be a call of its own.

        Args:
            deadline: of time.monotonic().

        Raises:
            InferenceError: there is no answer.
        """
        attempts = 1
        while True:
            try:
                answer = self._attempt(request, deadline)
            except (InferenceError, Alone) as error:
                failure = error
            except NotPacked:
                self._packed_at = time.monotonic() + self._bounds.age_s_max  # when another server may have come
                continue
            else:
                if answer is not None:
                    self._retries.succeeded()
                return answer
            left_s = deadline - time.monotonic()
            delay_s = self._retries.delay_s(failure, attempts, left_s, random.random())  # noqa: S311
            if isinstance(failure, Alone):
                if delay_s is None:
                    raise failure.error
                return None
            if delay_s is None:
                raise failure
            time.sleep(delay_s)
            attempts += 1

    def close(self) -> None:
        """Ends all calls under way as CANCELLED."""
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    def _attempt(self, request: InferRequest, deadline: float) -> pb.ModelInferResponse | None:
        if not self._places.acquire(blocking=False) and not self._wait_for_place(deadline):
            raise InferenceError("DEADLINE_EXCEEDED", "no place in a stream became free in time")
        # Whoever has sent gives the place back.
        future: Future[pb.ModelInferResponse] = Future()
        request_id = request.request_id or mint_id()
        try:
            message = request.stream_message(request_id, deadline - time.monotonic())
            with self._lock:
                if self._closed:
                    raise client_closed()
                stream = self._pick(time.monotonic())
                if request_id in stream.waiting:
                    self._places.release()
                    return None
                stream.send(request_id, message, future)
        except BaseException:
            self._places.release()
            raise
        try:
            return future.result(max(deadline - time.monotonic(), 0))
        except FutureTimeout:
            future.cancel()
            raise InferenceError("DEADLINE_EXCEEDED", "no answer came in time") from None

    def _wait_for_place(self, deadline: float) -> bool:
        with self._lock:
            self._live(time.monotonic())
        return self._places.acquire(timeout=max(deadline - time.monotonic(), 0))

    def _pick(self, now: float) -> _Stream:
        """The least loaded stream, or a new one while all have something to do and there may be more."""
        live = self._live(now)
        best = min(live, key=_load, default=None)
        if best is None or (best.waiting and len(live) < self._bounds.streams_max):
            is_packed = now >= self._packed_at
            old_at = now + self._bounds.age_s_max
            best = _Stream(self._lock, is_packed, old_at, self._places.release, self._streams.discard)
            open_stream = self._open_packed if is_packed else self._open
            best.start(open_stream, self._headers.common(), self._settings.wait_for_ready)
            self._streams.add(best)
        return best

    def _live(self, now: float) -> list[_Stream]:
        """Those that take requests; the others are told to end when they may."""
        return [stream for stream in self._streams if stream.takes(now)]


class _Stream:
    """One stream: requests leave in the order in which they were asked, unless nobody waits for them any more.

    Args:
        lock: the pool's: held by whoever calls `takes` and `send`.
        is_packed: whether a message holds several requests, or answers.
        old_at: from when on it takes no further request.
        release: gives back the place of a request.
    """

    def __init__(
        self,
        lock: threading.Lock,
        is_packed: bool,
        old_at: float,
        release: Callable[[], None],
        ended: Callable[[_Stream], None],
    ) -> None:
        self.waiting: dict[str, Future[pb.ModelInferResponse]] = {}  # those given up are done, and still here
        self._lock = lock
        self._packed = is_packed
        self._old_at = old_at
        self._release = release
        self._ended = ended
        self._outbox: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        self._old = self._closing = False

    def start(self, stub: Any, metadata: Any, wait_for_ready: bool) -> None:
        self._call = stub(self._requests(), metadata=metadata, wait_for_ready=wait_for_ready)
        self._reader = threading.Thread(target=self._read, name="turnout-stream", daemon=True)
        self._reader.start()

    def takes(self, now: float) -> bool:
        """Whether it takes a request. Once it is too old, it ends after the answers that are due, or when nobody waits
        for those any more: a server that never gives them would keep their places for good."""
        if now >= self._old_at and not self._old:
            self._old = True
            self._outbox.put(None)
        if self._old and self.waiting and all(future.done() for future in self.waiting.values()):
            self._call.cancel()
        return not self._old

    def send(self, request_id: str, message: bytes, future: Future[pb.ModelInferResponse]) -> None:
        self.waiting[request_id] = future
        self._outbox.put((request_id, message))

    def close(self) -> None:
        self._closing = True
        self._call.cancel()
        self._reader.join(_JOIN_S_MAX)

    def _requests(self) -> Iterator[bytes]:
        entry = self._outbox.get()
        while entry is not None:
            messages: list[bytes] = []
            size = 0
            emptied = False
            while entry is not None and (not messages or packed.fits(self._packed, messages, size, entry[1])):
                request_id, message = entry
                if self._is_wanted(request_id):
                    messages.append(message)
                    size += len(message)
                try:
                    entry = self._outbox.get(block=not messages)
                except Empty:
                    emptied = True
                    break
            if messages:
                yield packed.pack(messages) if self._packed else messages[0]
            if emptied:
                entry = self._outbox.get()

    def _is_wanted(self, request_id: str) -> bool:
        """False: the stream has ended, or nobody waits for the answer any more."""
        with self._lock:
            future = self.waiting.get(request_id)
            if future is None or future.done():
                self._take(request_id)
                return False
            return True

    def _read(self) -> None:
        error = InferenceError("UNAVAILABLE", "the server ended the stream")
        try:
            for raw in self._call:
                for each in packed.unpack(raw) if self._packed else (raw,):
                    self._deliver(pb.ModelStreamInferResponse.FromString(each))
        except grpc.RpcError as ended:
            error = inference_error(ended)
        except _Foreign as foreign:
            error = InferenceError("INTERNAL", str(foreign))
            self._call.cancel()
        except DecodeError:
            error = InferenceError("INTERNAL", "an answer in the stream cannot be read")
            self._call.cancel()
        finally:
            self._end(error)

    def _deliver(self, message: pb.ModelStreamInferResponse) -> None:
        with self._lock:
            future = self._take(message.infer_response.id)
        if future is None:
            raise _Foreign("the server answers in a stream without the request's id")
        # Whoever gave up meanwhile has cancelled it; from here on it is too late for that.
        if not future.set_running_or_notify_cancel():
            return
        if message.error_message:
            future.set_exception(stream_error(message))
        else:
            future.set_result(message.infer_response)

    def _take(self, request_id: str) -> Future[pb.ModelInferResponse] | None:
        future = self.waiting.pop(request_id, None)
        if future is not None:
            self._release()
        return future

    def _end(self, error: InferenceError) -> None:
        """Of the stream: each of its calls has failed."""
        with self._lock:
            self._old = True
            self._ended(self)
            failed = [self._take(request_id) for request_id in list(self.waiting)]
        self._outbox.put(None)  # gRPC's thread waits there
        for future in failed:
            if future is not None and future.set_running_or_notify_cancel():
                future.set_exception(client_closed() if self._closing else stream_ended(error, self._packed))


class _Foreign(Exception):
    """The server does not do streams as the protocol's dialect has them."""


def _load(stream: _Stream) -> int:
    return len(stream.waiting)
