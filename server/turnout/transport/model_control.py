"""RepositoryModelLoad and RepositoryModelUnload, as Triton's clients know them, on top of slots.

Load takes the newest version that the model's version policy allows into a free slot and swaps to it; unload takes the
whole model away. Triton's protocol has no etags, so none is required. On the port of everybody's requests they change
what everybody gets, so they are off by default.
"""

from __future__ import annotations

from collections.abc import Awaitable

from google.protobuf.message import Message

from turnout.core.errors import ControlError, Reason, Refusal, ServingError
from turnout.runtime.operations import Operations
from turnout.runtime.requests import Ask, Requests
from turnout.transport.admin import actor_of
from turnout.transport.status import Context, UnaryHandler
from turnout_wire.gen import grpc_service_pb2 as pb

_NO_CONTROL = (
    "{} is off on this port (--model-control explicit turns it on); the admin service loads and unloads slots "
    "(turnout.admin.v1.SlotService)"
)
# What Triton answers, where it has the case: its clients look at the code.
_REASONS = {
    Refusal.MODEL_NOT_FOUND: Reason.EXECUTION_FAILED,
    Refusal.REVISION_NOT_FOUND: Reason.EXECUTION_FAILED,
    Refusal.SLOT_MEMORY: Reason.QUEUE_FULL,
    Refusal.STATE_STORE: Reason.NOT_READY,
    Refusal.STOPPING: Reason.NOT_READY,
    Refusal.OPERATION_IN_PROGRESS: Reason.NOT_READY,
}


class ModelControl:
    """Args:
    bake_ns: how long the slot that had the traffic is kept for a rollback.
    """

    def __init__(self, operations: Operations, requests: Requests, bake_ns: int) -> None:
        self._operations = operations
        self._requests = requests
        self._bake_ns = bake_ns

    async def load(self, raw: bytes, context: Context) -> bytes:
        """Answers when the traffic has moved. A model that is at its newest version already stays as it is."""
        request = pb.RepositoryModelLoadRequest.FromString(raw)
        name = _name(request.model_name, request.repository_name)
        if request.parameters:
            given = ", ".join(f"'{key[:64]}'" for key in sorted(request.parameters)[:5])
            raise ServingError(
                Reason.UNSUPPORTED, f"load parameters {given}: models are loaded as the repository has them, leave it"
            )
        try:
            ask = Ask(actor_of(context), "RepositoryModelLoad", on_behalf=True)
            await self._to_the_end(ask, self._operations.load_newest(name, self._bake_ns, ask))
        except ControlError as error:
            raise _as_serving(error) from error
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def unload(self, raw: bytes, context: Context) -> bytes:
        """Answers when its slots are empty. An unknown model is no error, as with Triton. There are no ensembles, so
        `unload_dependents` has nothing to do."""
        request = pb.RepositoryModelUnloadRequest.FromString(raw)
        name = _name(request.model_name, request.repository_name)
        if unknown := [key for key in request.parameters if key != "unload_dependents"]:
            raise ServingError(Reason.INVALID_REQUEST, f"unload has no parameter '{unknown[0][:64]}'")
        try:
            ask = Ask(actor_of(context), "RepositoryModelUnload", on_behalf=True)
            await self._to_the_end(ask, self._operations.withdraw(name, ask))
        except ControlError as error:
            if error.refusal is not Refusal.MODEL_NOT_FOUND:
                raise _as_serving(error) from error
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    async def _to_the_end(self, ask: Ask, work: Awaitable[None]) -> None:
        """A client that leaves does not stop half way what it has begun."""

        async def done() -> bytes:
            await work
            return b""

        await self._requests.once(ask, done, bytes)


def control_handlers(control: ModelControl | None) -> dict[str, UnaryHandler]:
    """By RPC name; without `control` both are off."""
    if control is None:
        return {
            "RepositoryModelLoad": _off("RepositoryModelLoad", pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": _off("RepositoryModelUnload", pb.RepositoryModelUnloadRequest),
        }
    return {"RepositoryModelLoad": control.load, "RepositoryModelUnload": control.unload}


def _off(name: str, kind: type[Message]) -> UnaryHandler:
    async def refuse(raw: bytes, context: Context) -> bytes:
        kind.FromString(raw)  # what is no request is told so first, as everywhere
        raise ServingError(Reason.NOT_READY, _NO_CONTROL.format(name))

    return refuse


def _name(model: str, repository: str) -> str:
    if not model:
        raise ServingError(Reason.INVALID_REQUEST, "model_name is empty: name the model")
    if repository:
        raise ServingError(Reason.UNSUPPORTED, "this server has one repository: leave repository_name empty")
    return model


def _as_serving(error: ControlError) -> ServingError:
    return ServingError(_REASONS.get(error.refusal, Reason.INVALID_REQUEST), error.message)
