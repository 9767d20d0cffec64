"""SlotService: the RPCs by which operators load revisions and move traffic. Each turns its message into a command, has
it carried out once, and answers with the model as it is then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from turnout.core.commands import ClearShadow, Swap, Unload
from turnout.core.errors import ControlError, Refusal
from turnout.runtime.controller import Controller
from turnout.runtime.events import Events
from turnout.runtime.operations import Operations
from turnout.runtime.requests import Ask, Requests
from turnout.runtime.views import Event, ReplaceCost
from turnout.transport import admin_codec as codec
from turnout.transport.shadow_codec import read_rule
from turnout.transport.status import Context
from turnout_wire.gen import slots_pb2 as pb

ALL = "-"
_PAGE_DEFAULT = 100
_PAGE_MAX = 1000
_KINDS = {
    "slot": pb.ModelEventType.MODEL_EVENT_TYPE_SLOT,
    "route": pb.ModelEventType.MODEL_EVENT_TYPE_ROUTE,
}

Handler = Callable[[bytes, Context], Awaitable[Any]]


class SlotHandlers:
    """By RPC: bytes in, bytes out; WatchModel writes its answers itself.

    Args:
        bake_ns: how long a swap keeps the old slot, where the request does not say.
    """

    def __init__(self, operations: Operations, requests: Requests, events: Events, bake_ns: int) -> None:
        self._operations = operations
        self._controller: Controller = operations.controller
        self._requests = requests
        self._events = events
        self._bake_ns = bake_ns

    def handlers(self) -> dict[str, Handler]:
        return {
            "LoadSlot": self._load,
            "UnloadSlot": self._unload,
            "SwapSlots": self._swap,
            "RollbackModel": self._roll_back,
            "SetWeights": self._set_weights,
            "SetShadow": self._set_shadow,
            "ClearShadow": self._clear_shadow,
            "GetModel": self._get,
            "ListModels": self._list,
            "WatchModel": self._watch,
            "ListTransitions": self._transitions,
        }

    async def _load(self, raw: bytes, context: Context) -> bytes:
        request = pb.LoadSlotRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        command, wanted = codec.read_load(request)
        changes = request.allow_signature_change

        def answer(cost: ReplaceCost | None) -> bytes:
            reply = pb.LoadSlotResponse()
            if request.model in self._controller.names():
                reply.model.CopyFrom(codec.model(self._controller.view(request.model)))
            if cost is not None and request.replace:
                reply.cost.CopyFrom(codec.replace_cost(cost))
            return reply.SerializeToString()

        async def work() -> bytes:
            return answer(await self._operations.load(request.model, command, wanted, ask, request.wait, changes))

        return await self._requests.once(ask, work, lambda: answer(None))

    async def _unload(self, raw: bytes, context: Context) -> bytes:
        request = pb.UnloadSlotRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        command = Unload(request.slot, request.end_bake)
        unload = self._operations.unload
        return await self._once(
            ask, lambda: unload(request.model, command, ask, request.wait), request.model, pb.UnloadSlotResponse
        )

    async def _swap(self, raw: bytes, context: Context) -> bytes:
        request = pb.SwapSlotsRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        command = Swap(request.slot, codec.read_bake_ns(request, self._bake_ns))
        change = self._controller.change
        return await self._once(ask, lambda: change(request.model, command, ask), request.model, pb.SwapSlotsResponse)

    async def _roll_back(self, raw: bytes, context: Context) -> bytes:
        request = pb.RollbackModelRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        roll_back = self._operations.roll_back
        return await self._once(
            ask,
            lambda: roll_back(request.model, request.slot, request.allow_reload, ask),
            request.model,
            pb.RollbackModelResponse,
            urgent=True,
        )

    async def _set_weights(self, raw: bytes, context: Context) -> bytes:
        request = pb.SetWeightsRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        command = codec.read_weights(request)
        change = self._controller.change
        return await self._once(ask, lambda: change(request.model, command, ask), request.model, pb.SetWeightsResponse)

    async def _set_shadow(self, raw: bytes, context: Context) -> bytes:
        request = pb.SetShadowRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        rule = read_rule(request)
        set_shadow = self._operations.set_shadow
        return await self._once(ask, lambda: set_shadow(request.model, rule, ask), request.model, pb.SetShadowResponse)

    async def _clear_shadow(self, raw: bytes, context: Context) -> bytes:
        request = pb.ClearShadowRequest.FromString(raw)
        ask = codec.ask_of(request, request.mutation, actor_of(context))
        command = ClearShadow(request.slot)
        change = self._controller.change
        return await self._once(ask, lambda: change(request.model, command, ask), request.model, pb.ClearShadowResponse)

    async def _once(
        self, ask: Ask, work: Callable[[], Awaitable[object]], model: str, response: Any, urgent: bool = False
    ) -> bytes:
        def current() -> bytes:
            return _bytes(response(model=codec.model(self._controller.view(model))))

        async def done() -> bytes:
            await work()
            return current()

        return await self._requests.once(ask, done, current, urgent)

    async def _get(self, raw: bytes, context: Context) -> bytes:
        request = pb.GetModelRequest.FromString(raw)
        found = await self._operations.look(request.model) if request.available else ()
        reply = pb.GetModelResponse(model=codec.model(self._controller.view(request.model)))
        reply.available.extend(map(codec.available, found))
        return reply.SerializeToString()

    async def _list(self, raw: bytes, context: Context) -> bytes:
        """The page token is the last name of the page before."""
        request = pb.ListModelsRequest.FromString(raw)
        size = _page_size(request.page_size)
        names = [name for name in self._controller.names() if name > request.page_token]
        reply = pb.ListModelsResponse(models=[codec.model(self._controller.view(name)) for name in names[:size]])
        if len(names) > size:
            reply.next_page_token = names[size - 1]
        return reply.SerializeToString()

    async def _transitions(self, raw: bytes, context: Context) -> bytes:
        """The page token is the number of the last line of the page before."""
        request = pb.ListTransitionsRequest.FromString(raw)
        size, token = _page_size(request.page_size), request.page_token
        if token and not (token.isascii() and token.isdecimal() and len(token) < 19):
            raise ControlError(Refusal.INVALID_REQUEST, f"'{token[:64]}' is no page_token of this RPC", "page_token")
        model = None if request.model in ("", ALL) else request.model
        before = int(token) if token else None
        lines = await self._controller.ledger.lines(model, size + 1, before, max(request.since_seq, 0))
        reply = pb.ListTransitionsResponse(transitions=[codec.transition(line) for line in lines[:size]])
        if len(lines) > size:
            reply.next_page_token = str(lines[size - 1].seq)
        return reply.SerializeToString()

    async def _watch(self, raw: bytes, context: Context) -> None:
        request = pb.WatchModelRequest.FromString(raw)
        if request.model != ALL:
            self._controller.desk(request.model)
        if request.resume_token and request.send_initial_state:
            raise ControlError(Refusal.INVALID_REQUEST, "send_initial_state goes alone", "resume_token")
        seq = self._events.seq_of(request.resume_token) if request.resume_token else self._events.last
        self._events.after(seq)  # what cannot be resumed is refused before anything is sent
        if request.send_initial_state:
            await self._write_initial(request, context, seq)
        while True:
            for event in self._events.after(seq):
                seq = event.seq
                if self._wanted(request, event):
                    await context.write(self._event(event))
            await self._events.more(seq)

    async def _write_initial(self, request: pb.WatchModelRequest, context: Context, seq: int) -> None:
        token = self._events.token(seq)
        for name in self._controller.names() if request.model == ALL else [request.model]:
            message = pb.ModelEvent(resume_token=token, event_type=pb.ModelEventType.MODEL_EVENT_TYPE_INITIAL)
            message.model.CopyFrom(codec.model(self._controller.view(name)))
            await context.write(message.SerializeToString())
        synced = pb.ModelEvent(resume_token=token, event_type=pb.ModelEventType.MODEL_EVENT_TYPE_SYNCED)
        await context.write(synced.SerializeToString())

    def _wanted(self, request: pb.WatchModelRequest, event: Event) -> bool:
        if request.event_types and _KINDS[event.kind] not in request.event_types:
            return False
        return request.model in (ALL, event.view.traffic.model)

    def _event(self, event: Event) -> bytes:
        message = pb.ModelEvent(resume_token=self._events.token(event.seq), event_type=_KINDS[event.kind])
        message.model.CopyFrom(codec.model(event.view))
        if event.line is not None:
            message.transition.CopyFrom(codec.transition(event.line))
        return message.SerializeToString()


def actor_of(context: Context) -> str:
    """The peer's identity: what its certificate says, else its address. Never what a message says."""
    names = context.peer_identities()
    if names:
        return ", ".join(name.decode(errors="replace") for name in names)[:256]
    return str(context.peer())[:256]


def _page_size(asked: int) -> int:
    if not 0 <= asked <= _PAGE_MAX:
        raise ControlError(Refusal.INVALID_REQUEST, f"page_size is {asked}, the limit is {_PAGE_MAX}", "page_size")
    return asked or _PAGE_DEFAULT


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString())
