"""The floor: a grpc.aio server that answers every call with the same bytes. Same loop, same grpcio, nothing else."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import grpc.aio
import uvloop


class Echo(grpc.GenericRpcHandler):
    """One raw-bytes handler for every path."""

    def __init__(self, reply: bytes) -> None:
        async def answer(request: bytes, context: object) -> bytes:
            return reply

        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._handler


async def main(reply: bytes) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.enable_channelz", 0)])
    server.add_generic_rpc_handlers((Echo(reply),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: 127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]).read_bytes()))
