"""The gRPC server of the data plane: one generic handler, channel options, start and stop.

One handler for all paths costs a dictionary look-up per call; generated servicers cost more. Admission is done
per model, never by `maximum_concurrent_rpcs`, which would refuse health checks too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from turnout.runtime.counts import Counts
from turnout.runtime.ports import Observer
from turnout.transport.catalogue import Catalogue
from turnout.transport.counting import counted
from turnout.transport.health import CHECK_PATH, WATCH_PATH, Health, method_handlers
from turnout.transport.inference import InferenceHandlers
from turnout.transport.reflection import REFLECTION_PATH, Reflection
from turnout.transport.rpc_server import RpcServer
from turnout.transport.rpcs import Method
from turnout.transport.status import StatusTable, guarded, guarded_stream
from turnout_wire import packed as packed_streams
from turnout_wire.service import METHODS

# How long clients that do not pause are refused one by one, before gRPC tells their connections to go elsewhere.
_QUIET_S_MAX = 1.0
_PENDING_CALLS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What one connection and one message may be; each has its flag in config.py."""

    message_bytes_max: int
    metadata_bytes_max: int
    concurrent_streams_max: int
    keepalive_interval_ms: int
    keepalive_timeout_ms: int
    ping_interval_ms_min: int
    connection_age_ms_max: int  # 0: no bound


class PortInUse(Exception):
    """The address cannot be listened on; the message names it."""


class GrpcServer:
    """Listens on one port and serves inference, health and reflection.

    Args:
        models: handlers of the models' own services, which may come and go.
    """

    def __init__(
        self,
        inference: InferenceHandlers,
        catalogue: Catalogue,
        health: Health,
        limits: ChannelLimits,
        table: StatusTable,
        observer: Observer,
        counts: Counts,
        reflection: Reflection | None = None,
        models: Mapping[str, Method] | None = None,
    ) -> None:
        self._inference = inference
        self._health = health
        handlers: dict[str, Method] = {}
        for name, handler in catalogue.handlers().items():
            path = METHODS[name].path
            unary = counted(path, guarded(name, handler, observer), counts)
            handlers[path] = Method(unary, reads=False)
        path = METHODS["ModelInfer"].path
        infer = counted(path, guarded("ModelInfer", inference.infer, observer, table), counts)
        handlers[path] = Method(infer)
        path = METHODS["ModelStreamInfer"].path
        stream = counted(path, guarded_stream("ModelStreamInfer", inference.stream, observer, table), counts)
        handlers[path] = Method(stream)
        packed = guarded_stream("PackedService/Infer", partial(inference.stream, packed=True), observer, table)
        handlers[packed_streams.PATH] = Method(counted(packed_streams.PATH, packed, counts))
        handlers |= method_handlers(
            counted(CHECK_PATH, guarded("Check", health.check, observer), counts),
            counted(WATCH_PATH, guarded_stream("Watch", health.watch, observer), counts),
        )
        self._reflection = reflection or Reflection()
        reflect = guarded_stream("ServerReflectionInfo", self._reflection.stream, observer)
        reflect = counted(REFLECTION_PATH, reflect, counts)
        handlers[REFLECTION_PATH] = Method(reflect)
        more = models if models is not None else {}
        self._server = RpcServer(lambda path: handlers.get(path) or more.get(path), _options(limits))

    async def start(self, host: str, port: int) -> int:
        """Listen and serve; returns the port, which differs from `port` when that is 0.

        Raises:
            PortInUse: another process listens there, or the address is not this machine's.
        """
        address = listen_address(host, port)
        bound = self._server.add_insecure_port(address)
        if not bound:
            raise PortInUse(f"cannot listen on {address}: it is in use, or not an address of this machine")
        self._server.start()
        self._health.set_serving(True)
        return bound

    def under_way(self) -> tuple[int, int]:
        """Inference calls and streams, and the bytes of answers that gRPC has not sent yet."""
        return self._inference.calls, self._inference.answer_bytes

    def set_not_ready(self) -> None:
        """Tell load balancers to go elsewhere; calls are still taken."""
        self._health.set_serving(False)

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, let those under way finish for up to `grace_s` seconds, then cancel the rest."""
        self._inference.close()
        await self._inference.quiet(min(grace_s, _QUIET_S_MAX))
        self._health.close()
        self._reflection.close()
        await self._server.stop(grace_s)


def listen_address(host: str, port: int) -> str:
    """As gRPC takes it."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _options(limits: ChannelLimits) -> Sequence[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 0),  # else a second server on the port starts silently and takes part of the calls
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", -1),  # the codec refuses what gRPC cannot carry
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.max_concurrent_streams", limits.concurrent_streams_max),
        # Calls that have arrived and that Python has not seen. Above the first number gRPC begins to drop some as
        # CANCELLED, which clients do not retry; its own 1000 comes long before we would refuse any (tests/e2e/
        # test_overload.py: 10,000 at once).
        ("grpc.server.max_pending_requests", _PENDING_CALLS_MAX),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS_MAX),
        ("grpc.keepalive_time_ms", limits.keepalive_interval_ms),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", limits.ping_interval_ms_min),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.enable_channelz", 0),  # book-keeping per call that nobody reads
    ]
    if limits.connection_age_ms_max:
        options.append(("grpc.max_connection_age_ms", limits.connection_age_ms_max))
    return options
