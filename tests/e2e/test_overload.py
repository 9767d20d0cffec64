"""A hostile or overloading crowd against a real server: bounded memory, health SERVING, others served."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support import onnx_models
from support.raw_http2 import RawCall
from support.server import Server, process, until
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub, GRPCInferenceServiceStub

SERVING = health_pb2.HealthCheckResponse.SERVING
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    onnx_models.slow_model(root)
    onnx_models.identity_models(root)
    with process(root, "--transfer-timeout-s=2", "--message-bytes-max=4194304", "--calls-max=2000") as running:
        yield running


class Watched:
    """What the server's memory came to, and whether health answered, while something went on."""

    def __init__(self, server: Server) -> None:
        self._process = psutil.Process(server.process.pid)
        self._channel = grpc.insecure_channel(server.address)
        self._stop = threading.Event()
        self.before = self._process.memory_info().rss
        self.peak = self.before
        self.checks: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        health = health_pb2_grpc.HealthStub(self._channel)
        while not self._stop.is_set():
            self.peak = max(self.peak, self._process.memory_info().rss)
            try:
                status = health.Check(health_pb2.HealthCheckRequest(), timeout=20).status
            except grpc.RpcError as error:
                self.checks[str(error.code())] += 1
            else:
                self.checks["SERVING" if status == SERVING else str(status)] += 1
            self._stop.wait(0.01)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self._channel.close()

    @property
    def growth(self) -> int:
        return self.peak - self.before


@contextmanager
def watched(server: Server) -> Iterator[Watched]:
    watch = Watched(server)
    try:
        yield watch
    finally:
        watch.end()
    assert set(watch.checks) == {"SERVING"}
    assert server.process.poll() is None


def slow_request(number: int = 1, rows: int = 1) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="slow")
    request.inputs.add(name="x", datatype="INT64", shape=[rows, 1])
    request.raw_input_contents.append(np.full((rows, 1), number, "<i8").tobytes())
    return request


def is_served(server: Server) -> bool:
    with grpc.insecure_channel(server.address) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(slow_request(7), timeout=20)
    return answer.raw_output_contents[0] == np.int64(7).tobytes()


def large_request() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="identity_uint8")
    request.inputs.add(name="x", datatype="UINT8", shape=[1, 65536])
    request.raw_input_contents.append(bytes(65536))
    return request


@pytest.mark.parametrize(
    ("request_", "growth_mib_max"),
    [
        (slow_request(20), 250),  # they pile up: the bound on calls refuses what it does not read
        (large_request(), 800),  # 640 MiB in all
    ],
    ids=["slow", "large"],
)
async def test_ten_thousand_requests_at_once_are_answered_or_refused(
    server: Server, request_: pb.ModelInferRequest, growth_mib_max: int
) -> None:
    outcomes: Counter[str] = Counter()

    async def ask(stub: GRPCInferenceServiceAioStub) -> None:
        try:
            answer = await stub.ModelInfer(request_)
        except grpc.aio.AioRpcError as error:
            pushback = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
            outcomes[f"{error.code()} pushback={pushback is not None}"] += 1
        else:
            assert answer.raw_output_contents[0] == request_.raw_input_contents[0]
            outcomes["OK"] += 1

    with watched(server) as watch:
        # Separate connections: gRPC shares one between channels of equal arguments.
        channels = [grpc.aio.insecure_channel(server.address, options=[("test.id", i)]) for i in range(4)]
        stubs = [GRPCInferenceServiceAioStub(channel) for channel in channels]
        async with asyncio.timeout(100):
            await asyncio.gather(*(ask(stubs[i % 4]) for i in range(10_000)))
        for channel in channels:
            await channel.close()
    print(outcomes, watch.growth // MIB, watch.checks)  # pytest shows it with a failure
    assert outcomes.total() == 10_000
    # Without our bound on what gRPC itself lets wait, some would be cancelled, which no client retries.
    assert set(outcomes) <= {"OK", "StatusCode.RESOURCE_EXHAUSTED pushback=True"}
    assert outcomes["OK"] > 1000
    assert watch.growth < growth_mib_max * MIB
    assert is_served(server)


def test_declared_sizes_are_not_believed(server: Server) -> None:
    """Above the limit: refused from the five bytes of the header. Below it: nothing is reserved until bytes come."""
    with watched(server) as watch:
        above = [RawCall(server.address) for _ in range(50)]
        for call in above:
            call.declare(1 << 30)
            call.write(b"few")
        assert b"larger than max (1073741824 vs. 4194304)" in read_until(above[0], b"larger than max")
        below = [RawCall(server.address) for _ in range(200)]
        for call in below:
            call.declare(4 * MIB)
            call.write(b"few")
        frames = [RawCall(server.address) for _ in range(50)]
        for call in frames:
            call.half_frame((1 << 24) - 1, b"few")
        assert is_served(server)
        assert b"took longer than 2.0 s to arrive" in read_until(below[0], b"to arrive")
        for call in above + below + frames:
            call.close()
    assert watch.growth < 60 * MIB  # 200 x 4 MiB were declared
    assert is_served(server)


def test_a_small_message_that_inflates_is_bounded_by_the_message_limit(server: Server) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(1024)) + packer.flush()
    assert len(bomb) < 2 * MIB
    with watched(server) as watch:
        for _ in range(3):
            call = RawCall(server.address, encoding="gzip")
            call.declare(len(bomb), compressed=True)
            call.write(bomb, end=True)
            assert b"Decompressed message larger than max" in read_until(call, b"larger than max")
            call.close()
    assert watch.growth < 60 * MIB


def test_clients_that_trickle_or_leave_in_the_middle_take_nothing_with_them(server: Server) -> None:
    raw = slow_request().SerializeToString()
    descriptors = psutil.Process(server.process.pid).num_fds()
    with watched(server) as watch:
        trickling = [RawCall(server.address) for _ in range(100)]
        for call in trickling:
            call.declare(len(raw))
        for at in range(3):
            for call in trickling:
                call.write(raw[at : at + 1])
            assert is_served(server)
        for index in range(300):
            call = RawCall(server.address)
            call.declare(len(raw))
            call.write(raw[: len(raw) // 2])
            call.reset() if index % 2 else call.close()
        for index in range(100):
            call = RawCall(server.address)
            call.declare(len(raw))
            call.write(raw, end=True)
            call.reset() if index % 2 else call.close()
        assert is_served(server)
        for call in trickling:
            call.reset()
    assert watch.growth < 60 * MIB
    until(lambda: psutil.Process(server.process.pid).num_fds() <= descriptors + 5)
    assert is_served(server)


def test_streams_opened_and_cancelled_in_a_storm_leave_the_server_as_it_was(server: Server) -> None:
    """The shape of HTTP/2's rapid reset."""
    with watched(server) as watch, grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for index in range(500):
            if index % 2:
                stub.ModelInfer.future(slow_request()).cancel()
            else:
                stream = stub.ModelStreamInfer(iter([slow_request()] * 3))
                stream.cancel()
        assert is_served(server)
    assert watch.growth < 60 * MIB
    with grpc.insecure_channel(server.address) as channel:
        statistics = GRPCInferenceServiceStub(channel).ModelStatistics(pb.ModelStatisticsRequest(name="slow"))
    assert statistics.model_stats[0].inference_stats.success.count > 0


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 1000])
def test_other_protocols_are_turned_away(server: Server, raw: bytes, tmp_path: Path) -> None:
    import socket

    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert is_served(server)


def read_until(call: RawCall, words: bytes) -> bytes:
    """What the server sends up to these words, bounded in time."""
    seen = b""
    end = time.monotonic() + 20
    while words not in seen:
        assert time.monotonic() < end, seen
        seen += call.socket.recv(65536)
    return seen
