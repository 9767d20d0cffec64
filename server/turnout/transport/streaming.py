"""The requests of one stream: sent on their way in the order in which they come, run side by side, answered in order.

No request has a task of its own: it is decoded where it is read, and its answer is written down where the batcher
delivers it. Beside what gRPC does, a task would be the largest part of what a request costs here. In a packed stream
a message holds several requests or answers, and what gRPC does is shared by them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

from google.protobuf.message import DecodeError

from turnout.core.errors import Reason, ServingError
from turnout.core.tensors import InferenceResponse
from turnout.runtime.dispatcher import Ticket
from turnout.transport.calls import Call, Calls
from turnout.transport.codec import Asked
from turnout.transport.dialects import Dialect
from turnout.transport.exchanges import Exchange, Exchanges, Headers
from turnout.transport.status import Context, StatusTable
from turnout_wire.packed import MESSAGES_MAX, PATH, pack, unpack

_END_ON_ERROR = "triton_grpc_error"  # request metadata of a stream
# What is taken of a message at once, before the loop goes on to other calls.
_TURN_REQUESTS_MAX = 16
_TURN_BYTES_MAX = 1 << 16
_PACKED_BYTES_MAX = 1 << 18  # of answers that leave in one message; a single one may be larger


class _Place(Exchange):
    """One request of the stream, in its turn.

    Attributes:
        answer: its message, once there is one; an error that ends the stream; None before that.
    """

    __slots__ = ("answer", "ticket", "timer")

    def __init__(self, method: str, headers: Headers) -> None:
        super().__init__(method, headers)
        self.ticket: Ticket | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.answer: bytes | ServingError | None = None


class Conversation:
    """One stream. An error is an answer: the stream goes on, unless the client asked for `triton_grpc_error`. When the
    client leaves, all of its requests do.

    Args:
        packed: whether a message holds any number of requests, or of answers.
        inflight_max: requests that may be on their way; at the bound the stream is not read further.
    """

    def __init__(
        self,
        exchanges: Exchanges,
        calls: Calls,
        dialect: Dialect,
        context: Context,
        call: Call,
        table: StatusTable,
        *,
        packed: bool,
        identity: bool,
        inflight_max: int,
        id_characters_max: int,
    ) -> None:
        self._exchanges = exchanges
        self._calls = calls
        self._dialect = dialect
        self._context = context
        self._call = call
        self._table = table
        self._packed = packed
        self._method = PATH[1:] if packed else dialect.stream
        self._identity = identity
        self._inflight_max = inflight_max
        self._id_characters_max = id_characters_max
        self._headers = Headers(context)
        self._ends_on_error = self._headers.value(_END_ON_ERROR) == "true"
        self._deadline_ns = exchanges.deadline_ns(context)
        self._loop = asyncio.get_running_loop()
        self._line: deque[_Place] = deque()  # in the order in which they were asked; the first is answered next
        self._turn: asyncio.Future[None] | None = None  # the writer waits for the first one's answer
        self._room: asyncio.Future[None] | None = None  # the reader waits for one to leave

    async def read(self, raws: AsyncIterator[bytes]) -> None:
        async for raw in raws:
            count = size = 0
            for each in _unpacked(raw) if self._packed else (raw,):
                self._ask(each)
                count, size = count + 1, size + len(each)
                if len(self._line) >= self._inflight_max:
                    self._room = self._loop.create_future()
                    await self._room
                elif count == _TURN_REQUESTS_MAX or size > _TURN_BYTES_MAX:
                    count = size = 0
                    await asyncio.sleep(0)

    async def answer(self, reader: asyncio.Task[None]) -> None:
        """Write the answers, until `reader` has ended and each request has its own.

        Raises:
            ServingError: the server stops, or an error ends the stream.
        """
        reader.add_done_callback(self._wake)  # however it ends: even before it began
        try:
            while self._line or not reader.done():
                answers = self._ready()
                if not answers:
                    self._turn = self._loop.create_future()
                    await self._turn
                    continue
                await self._context.write(pack(answers) if self._packed else answers[0])
                for answer in answers:
                    self._call.let_go(len(answer))
                    self._line.popleft()
                _settle(self._room)
        finally:
            reader.cancel()
            self._leave()
            await asyncio.wait((reader,))
        if reader.cancelled():
            raise ServingError(Reason.NOT_READY, "the server stops: open a stream to another one")
        reader.result()

    def _ready(self) -> list[bytes]:
        """The answers that leave in the next message.

        Raises:
            ServingError: the first one ends the stream.
        """
        answers: list[bytes] = []
        size = 0
        for place in self._line:
            answer = place.answer
            if answer is None or (answers and not isinstance(answer, bytes)):
                break
            if not isinstance(answer, bytes):
                raise answer
            size += len(answer)
            if answers and size > _PACKED_BYTES_MAX:
                break
            answers.append(answer)
            if not self._packed or len(answers) == MESSAGES_MAX:
                break
        return answers

    def _ask(self, raw: bytes) -> None:
        place = _Place(self._method, self._headers)
        self._exchanges.begin(place)
        self._line.append(place)
        try:
            received = self._dialect.read(raw)
            place.plan, place.request_id = received.plan, received.request_id
            self._calls.refuse_beyond_bounds()
            request = self._exchanges.decode(place, received, self._deadline_ns)
            place.ticket = self._exchanges.send(request, partial(self._answered, place))
        except Exception as error:  # noqa: BLE001 - it belongs to this request, not to the stream
            self._fail(place, error)
        else:
            place.timer = self._exchanges.expire_in_time(place.ticket, self._loop)

    def _answered(self, place: _Place, outcome: InferenceResponse | ServingError) -> None:
        """What the dispatcher calls: raises nothing."""
        request = place.request
        assert request is not None
        if place.timer is not None:
            place.timer.cancel()
        if isinstance(outcome, ServingError):
            self._fail(place, outcome)
            return
        try:
            answer = self._dialect.encode(request, outcome, identity=self._identity, streamed=True)
            self._exchanges.ended(place, outcome)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(place, error)
            return
        self._give(place, answer)

    def _fail(self, place: _Place, error: Exception) -> None:
        try:
            answer = self._failed(place, error)
        except Exception:  # noqa: BLE001 - a fault in telling faults: those behind this request must not wait for ever
            answer = ServingError(Reason.EXECUTION_FAILED, "internal error: the stream ends here, open another one")
        self._give(place, answer)

    def _failed(self, place: _Place, error: Exception) -> bytes | ServingError:
        refusal = self._exchanges.failed(place, error)
        # Its traceback would hold the frames that it passed through, and the request in them.
        refusal.__traceback__ = refusal.__context__ = refusal.__cause__ = None
        if self._ends_on_error:
            return refusal
        asked = Asked.of(place.plan, place.request_id, self._id_characters_max) if place.plan is not None else Asked()
        code = self._table[refusal.reason].name
        return self._dialect.encode_stream_error(asked, refusal, code)

    def _give(self, place: _Place, answer: bytes | ServingError) -> None:
        place.answer = answer
        place.ticket = place.request = None  # what they hold waits for no client
        if isinstance(answer, bytes):
            self._call.hold(len(answer))
        if self._line and place is self._line[0]:
            _settle(self._turn)

    def _leave(self) -> None:
        """Nobody waits any more."""
        for place in self._line:
            if place.timer is not None:
                place.timer.cancel()
            if place.ticket is not None:
                place.ticket.cancel()
                self._exchanges.ended(place, None)
                place.ticket = place.request = None  # it holds this place: their tensors would wait to be collected
        self._line.clear()

    def _wake(self, _: object) -> None:
        _settle(self._turn)


def _unpacked(raw: bytes) -> list[bytes]:
    try:
        return unpack(raw)
    except DecodeError as error:
        raise ServingError(Reason.INVALID_REQUEST, f"the message is no InferRequests: {error}") from None


def _settle(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
