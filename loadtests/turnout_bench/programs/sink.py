"""Where OTLP is sent in a benchmark: a gRPC server that takes everything and keeps nothing, or with `--refuse` takes
nothing."""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio
import uvloop


class Sink(grpc.GenericRpcHandler):
    """An empty answer is a valid one of all three services: nothing was rejected."""

    def __init__(self, refuses: bool) -> None:
        self._refuses = refuses

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def take(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            if self._refuses:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
            return b""

        return grpc.unary_unary_rpc_method_handler(take)


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((Sink("--refuse" in sys.argv),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: 127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
