"""grpc.health.v1 Check and Watch, for the server, the inference service and each model.

Not grpcio's own servicer: that one starts as SERVING, and holds its lock while it writes to a watcher, so that a
client that stopped reading could block the change to NOT_SERVING.
"""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2 as pb

from turnout.core.errors import Reason, ServingError
from turnout.runtime.fleet import Fleet
from turnout.transport.rpcs import Method
from turnout.transport.status import Context, StreamHandler, UnaryHandler
from turnout_wire.service import SERVICE

HEALTH_SERVICE = "grpc.health.v1.Health"
CHECK_PATH, WATCH_PATH = f"/{HEALTH_SERVICE}/Check", f"/{HEALTH_SERVICE}/Watch"
_SERVING: int = pb.HealthCheckResponse.SERVING
_NOT_SERVING: int = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN: int = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Whether this server takes requests. Starts as NOT_SERVING, and is that while no model has a READY slot."""

    def __init__(self, fleet: Fleet) -> None:
        self.serving = False
        self._fleet = fleet
        self._closed = False
        self._changed = asyncio.Event()  # replaced at each change: whoever waits on the old one wakes

    @property
    def ready(self) -> bool:
        """Whether requests are taken, and any model could answer one."""
        return not self.why_not

    @property
    def why_not(self) -> str:
        """Why this server is not ready; nothing where it is."""
        if not self.serving:
            return "the server starts, or stops"
        return "" if any(model.ready_slots() for model in self._fleet) else "no model has a READY slot"

    def set_serving(self, serving: bool) -> None:
        """Takes effect for the next Check, and wakes every watcher."""
        self.serving = serving
        self.refresh()

    def refresh(self) -> None:
        """A model may answer by now that did not, or no more: wakes every watcher."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        """End every watch: none ends by itself, and each would hold up the server's stop for the whole grace."""
        self._closed = True
        self.set_serving(False)

    async def check(self, raw: bytes, context: Context) -> bytes:
        service = pb.HealthCheckRequest.FromString(raw).service
        status = self._status(service)
        if status == _UNKNOWN:
            raise ServingError(Reason.NOT_FOUND, f"unknown service '{service[:128]}'")
        reply: bytes = pb.HealthCheckResponse(status=status).SerializeToString()
        return reply

    async def watch(self, raw: bytes, context: Context) -> None:
        """Sends the status now and at each change, until the client leaves or the server stops."""
        service = pb.HealthCheckRequest.FromString(raw).service
        sent: int | None = None
        while True:
            status = self._status(service)
            if status != sent:
                await context.write(pb.HealthCheckResponse(status=status).SerializeToString())
                sent = status  # and look again: it may have changed meanwhile
            elif self._closed:
                return
            else:
                await self._changed.wait()

    def _status(self, service: str) -> int:
        if service in ("", SERVICE):
            ready = self.ready
        else:
            try:
                model = self._fleet.model(service.removeprefix(f"{SERVICE}/"))
            except ServingError:
                return _UNKNOWN
            ready = self.serving and model.answers(None)
        return _SERVING if ready else _NOT_SERVING


def method_handlers(check: UnaryHandler, watch: StreamHandler) -> dict[str, Method]:
    """By path; both guarded."""
    return {
        CHECK_PATH: Method(check, reads=False),
        WATCH_PATH: Method(watch, reads=False),
    }
