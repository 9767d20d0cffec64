"""A synchronous client of the admin plane: one channel, one method per RPC, errors as AdminError. Retries nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from turnout_client.errors import admin_error
from turnout_wire.admin import FeedbackServiceStub, SlotServiceStub
from turnout_wire.gen import feedback_pb2 as feedback
from turnout_wire.gen import slots_pb2 as pb

_PAGE = 1000  # the largest that the server gives
# The admin port is on loopback or in a cluster: a proxy for the outer world has no business there.
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20))

E = TypeVar("E")
R = TypeVar("R")


class AdminClient:
    """The admin plane of the server at `endpoint` (`HOST:PORT`). Each method raises AdminError.

    Args:
        timeout_s: of each call that is not told another one.
    """

    def __init__(self, endpoint: str, timeout_s: float = 10.0) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(endpoint, options=_OPTIONS)
        self._stub = SlotServiceStub(self._channel)
        self._feedback = FeedbackServiceStub(self._channel)

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def models(self) -> list[pb.Model]:
        """All models, by name."""
        found: list[pb.Model] = []
        token = ""
        while True:
            page = self._ask(self._stub.ListModels, pb.ListModelsRequest(page_size=_PAGE, page_token=token))
            found += page.models
            token = page.next_page_token
            if not token:
                return found

    def model(self, name: str) -> pb.Model:
        return self._ask(self._stub.GetModel, pb.GetModelRequest(model=name)).model

    def available(self, name: str, timeout_s: float | None = None) -> list[pb.AvailableRevision]:
        """What the model repository has of a model now; its files are read for that."""
        request = pb.GetModelRequest(model=name, available=True)
        return list(self._ask(self._stub.GetModel, request, timeout_s).available)

    def load(self, request: pb.LoadSlotRequest, timeout_s: float | None = None) -> pb.LoadSlotResponse:
        return self._ask(self._stub.LoadSlot, request, timeout_s)

    def unload(self, request: pb.UnloadSlotRequest, timeout_s: float | None = None) -> pb.UnloadSlotResponse:
        return self._ask(self._stub.UnloadSlot, request, timeout_s)

    def swap(self, request: pb.SwapSlotsRequest) -> pb.SwapSlotsResponse:
        return self._ask(self._stub.SwapSlots, request)

    def rollback(self, request: pb.RollbackModelRequest, timeout_s: float | None = None) -> pb.RollbackModelResponse:
        return self._ask(self._stub.RollbackModel, request, timeout_s)

    def set_weights(self, request: pb.SetWeightsRequest) -> pb.SetWeightsResponse:
        return self._ask(self._stub.SetWeights, request)

    def set_shadow(self, request: pb.SetShadowRequest) -> pb.SetShadowResponse:
        return self._ask(self._stub.SetShadow, request)

    def clear_shadow(self, request: pb.ClearShadowRequest) -> pb.ClearShadowResponse:
        return self._ask(self._stub.ClearShadow, request)

    def transitions(self, model: str = "", since_seq: int = 0) -> Iterator[pb.Transition]:
        """The journal, newest first, fetched as it is read."""
        token = ""
        while True:
            request = pb.ListTransitionsRequest(model=model, since_seq=since_seq, page_token=token)
            page = self._ask(self._stub.ListTransitions, request)
            yield from page.transitions
            token = page.next_page_token
            if not token:
                return

    def record_feedback(self, request: feedback.RecordFeedbackRequest) -> feedback.RecordFeedbackResponse:
        """At most 1000 facts; those that came before count as duplicates, so a call may be repeated."""
        return self._ask(self._feedback.RecordFeedback, request)

    def watch(self, model: str = "-", resume_token: str = "") -> Watch[pb.ModelEvent]:
        """Each change as it happens; without a token, each model as it is first."""
        request = pb.WatchModelRequest(model=model, resume_token=resume_token, send_initial_state=not resume_token)
        return Watch(self._stub.WatchModel(request))

    def watch_comparisons(self, model: str = "-", slot: str = "") -> Watch[pb.ComparisonEvent]:
        """Pairs of answers and summaries as they come, of one shadow slot or of all; nothing of what was before."""
        return Watch(self._stub.WatchComparisons(pb.WatchComparisonsRequest(model=model, slot=slot)))

    def _ask(self, call: Callable[..., R], request: object, timeout_s: float | None = None) -> R:
        try:
            return call(request, timeout=self.timeout_s if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise admin_error(error) from None


class Watch(Generic[E]):
    """The events of a watch. `cancel`, also from another thread, ends the iteration."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[E]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            found = admin_error(error)
            if found.code != "CANCELLED":
                raise found from None

    def cancel(self) -> None:
        self._call.cancel()
