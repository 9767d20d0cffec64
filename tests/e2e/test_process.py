"""The process: how it starts, refuses to start, serves on while it stops, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from support import hostile_models, onnx_models
from support.server import COMMAND, Server, environment, process, run, until


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_models.slow_model(tmp_path_factory.mktemp("slow"))


def work(number: int, rows: int = 1) -> list[triton.InferInput]:
    array = np.full((rows, 1), number, np.int64)
    given = triton.InferInput("x", list(array.shape), "INT64")
    given.set_data_from_numpy(array)
    return [given]


def events(server: Server) -> list[str]:
    return [json.loads(line)["event"] for line in server.stderr.splitlines()]


# Stopping


class Load:
    """Clients that send without a pause until they are refused, and check every answer."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answered = 0
        self.wrong: list[Any] = []
        self.refused: list[InferenceServerException] = []

    async def client(self, first: int) -> None:
        async with triton_aio.InferenceServerClient(self.address) as client:
            number = first
            while True:
                number = 10 + (number + 7) % 50
                try:
                    result = await client.infer("slow", work(number, rows=2))
                except InferenceServerException as error:
                    self.refused.append(error)
                    return
                if result.as_numpy("y").tolist() != [[number], [number]]:
                    self.wrong.append(number)
                self.answered += 1


async def test_sigterm_under_load_loses_no_request(slow: Path) -> None:
    with process(slow, "--drain-delay-s=1", "--drain-grace-s=20") as server:
        load = Load(server.address)
        clients = [asyncio.ensure_future(load.client(index)) for index in range(6)]
        async with triton_aio.InferenceServerClient(server.address) as observer, asyncio.timeout(60):
            while load.answered < 20:
                await asyncio.sleep(0.01)
            server.signal(signal.SIGTERM)
            while await observer.is_server_ready():
                await asyncio.sleep(0.005)
            assert await observer.is_server_live()
            at_not_ready = load.answered
            assert not load.refused
            # Not ready, and still serving: for those who have not noticed yet.
            while load.answered < at_not_ready + 10:
                await asyncio.sleep(0.01)
            assert not load.refused
            await asyncio.gather(*clients)
        assert await asyncio.to_thread(server.wait) == 0
        assert load.wrong == []
        assert len(load.refused) == 6
        for refusal in load.refused:
            # A request that was accepted and lost would tell of a closed socket or a cancelled call.
            assert refusal.status() == "StatusCode.UNAVAILABLE", refusal
            assert refusal.message() == "the server stops: send the request to another one", refusal
        assert events(server)[-2:] == ["slot changed", "stopped"]
        assert "Traceback" not in server.stderr


def test_requests_in_flight_are_answered_after_sigterm(slow: Path) -> None:
    """Also those that wait in the queue, and those inside a stream that the client keeps open."""
    with (
        process(slow, "--drain-delay-s=1") as server,  # time for all of them to arrive
        triton.InferenceServerClient(server.address) as client,
    ):
        answers: list[Any] = []

        def keep(result: Any, error: Any) -> None:
            answers.append(result or error)

        client.start_stream(callback=keep)
        for number in (600, 601, 602):
            client.async_infer("slow", work(number, rows=3), callback=keep)
            client.async_stream_infer("slow", work(number, rows=3))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        until(lambda: len(answers) == 7)
        client.stop_stream()
        values = sorted(a.as_numpy("y")[0, 0] for a in answers if isinstance(a, triton.InferResult))
        assert values == [600, 600, 601, 601, 602, 602]
        (ended,) = [a for a in answers if isinstance(a, InferenceServerException)]
        assert (ended.status(), ended.message()) == (
            "StatusCode.UNAVAILABLE",
            "the server stops: open a stream to another one",
        )


def test_a_health_watcher_does_not_hold_up_the_stop(slow: Path) -> None:
    with process(slow, "--drain-grace-s=60") as server, grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.wait(20) == 0


def test_second_signal_cuts_the_drain_delay_short(slow: Path) -> None:
    with process(slow, "--drain-delay-s=600") as server, triton.InferenceServerClient(server.address) as client:
        server.signal(signal.SIGTERM)
        until(lambda: not client.is_server_ready())
        assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_second_signal_does_not_wait_for_a_run_that_hangs(slow: Path) -> None:
    with process(slow, "--drain-grace-s=600") as server, triton.InferenceServerClient(server.address) as client:
        errors: list[Any] = []
        client.async_infer("slow", work(10_000_000), callback=lambda result, error: errors.append(error))
        until(lambda: _running(server))
        server.signal(signal.SIGTERM)
        until(lambda: "stopping" in events(server))
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        until(lambda: len(errors) == 1)
        assert errors[0].status() in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")


def test_a_run_that_hangs_does_not_outlive_the_grace(slow: Path) -> None:
    with process(slow, "--drain-grace-s=0.5") as server, triton.InferenceServerClient(server.address) as client:
        errors: list[Any] = []
        client.async_infer("slow", work(10_000_000), callback=lambda result, error: errors.append(error))
        until(lambda: _running(server))
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
        until(lambda: len(errors) == 1)


def _running(server: Server) -> bool:
    """Whether the model is being run: the process takes processor time although nobody asks it anything."""
    return bool(psutil.Process(server.process.pid).cpu_percent(0.2) > 50)


def test_sigint_stops_at_once(slow: Path) -> None:
    with process(slow, "--drain-delay-s=600") as server:
        server.signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert events(server)[-1] == "stopped"
        assert "Traceback" not in server.stderr


# Connections


def goes_away(address: str, pings: int, gap_s: float) -> bool:
    """Whether the server sends a raw HTTP/2 client away that pings so often. tritonclient cannot: gRPC's own client
    spaces its pings by a second."""

    def frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, 0) + payload

    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b""))
        received = connection.makefile("rb")
        acknowledged = 0
        for number in range(pings):
            time.sleep(gap_s)
            connection.sendall(frame(6, struct.pack(">Q", number)))
            while acknowledged <= number:
                header = received.read(9)
                if len(header) < 9:
                    return True
                payload = received.read(int.from_bytes(header[:3], "big"))
                kind, flags = header[3], header[4]
                if kind == 7:
                    assert b"too_many_pings" in payload
                    return True
                if kind == 6 and flags & 1:
                    acknowledged += 1
                elif kind == 6:
                    connection.sendall(frame(6, payload, 1))
    return False


def test_only_clients_that_ping_too_often_are_sent_away(server: Server) -> None:
    """The server of this fixture allows a ping every 50 ms."""
    assert not goes_away(server.address, pings=8, gap_s=0.06)
    assert goes_away(server.address, pings=8, gap_s=0)


# Starting


def test_startup_table_and_ready_line(slow: Path) -> None:
    onnx_models.shaped_models(slow)
    with process(slow) as server:
        lines = server.stdout.splitlines()
        assert lines[-1] == f"ready: {server.address}"
        assert server.address.startswith("127.0.0.1:") and not server.address.endswith(":0")
        (row,) = [line for line in lines if "scale/2" in line]
        assert row.split()[:7] == ["scale", "blue", "scale/2", "READY", "100", "%", "cpu"]
        (pinned,) = [line for line in lines if "scale/1" in line]
        assert "by pin" in pinned


def test_used_port(slow: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", f"--model-repository={slow}", "--host=127.0.0.1", f"--grpc-port={port}")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"turnout: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --host or --grpc-port\n"
    )
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("flags", "refusal"),
    [
        (
            ("--grpc-port=18111", "--admin-port=18111", "--admin-host=127.0.0.1"),
            "port 18111 is asked for twice, on 127.0.0.1 and on 127.0.0.1; choose another --admin-host or "
            "--admin-port, or use --no-admin",
        ),
        (
            ("--grpc-port=18111", "--ops-port=18111", "--ops-host=0.0.0.0"),
            "port 18111 is asked for twice, on 127.0.0.1 and on 0.0.0.0; choose another --ops-host or --ops-port, or "
            "use --no-ops",
        ),
    ],
)
def test_one_port_for_two_servers(slow: Path, flags: tuple[str, ...], refusal: str) -> None:
    ended = run("serve", f"--model-repository={slow}", "--host=127.0.0.1", *flags)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"turnout: {refusal}\n")


@pytest.mark.parametrize("flag", ["--grpc-port", "--admin-port"])
def test_a_port_that_is_taken_while_models_load(tmp_path: Path, flag: str) -> None:
    """Where the admin server runs already, it is stopped, and gRPC has nothing to complain of."""
    hostile(tmp_path, hostile_models.never_loads)
    onnx_models.write(tmp_path, "good", onnx_models.NO_BATCH)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    flags = {"--grpc-port": 0} | {flag: port}
    arguments = [f"{name}={number}" for name, number in flags.items()]
    with subprocess.Popen(
        [
            *COMMAND,
            "serve",
            f"--model-repository={tmp_path}",
            "--preflight-timeout-s=2",
            "--host=127.0.0.1",
            *arguments,
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            until(lambda: psutil.Process(started.pid).children())
            with socket.create_server(("127.0.0.1", port)):
                stdout, stderr = started.communicate(timeout=60)
        finally:
            started.kill()
    assert (started.returncode, stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port}" in stderr
    assert "__del__" not in stderr and "Traceback" not in stderr and "never awaited" not in stderr


def test_port_of_another_turnout(slow: Path) -> None:
    """Two servers on one port would share its calls at random."""
    with process(slow) as server:
        port = server.address.rsplit(":", 1)[1]
        ended = run("serve", f"--model-repository={slow}", "--host=127.0.0.1", f"--grpc-port={port}")
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert f"127.0.0.1:{port}" in ended.stderr


def test_a_gpu_that_was_asked_for_and_is_not_there(slow: Path) -> None:
    ended = run("serve", f"--model-repository={slow}", "--host=127.0.0.1", "--grpc-port=0", "--provider=cuda:63")
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("turnout: ")]
    assert "provider 'cuda" in line and "was asked for" in line
    assert "Traceback" not in ended.stderr


def test_repository_that_is_not_there(tmp_path: Path) -> None:
    ended = run("serve", f"--model-repository={tmp_path / 'nowhere'}", "--host=127.0.0.1", "--grpc-port=0")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"turnout: model repository '{tmp_path / 'nowhere'}' is not a folder: see --model-repository\n"
    )


def test_repository_without_models(tmp_path: Path) -> None:
    ended = run("serve", f"--model-repository={tmp_path}", "--host=127.0.0.1", "--grpc-port=0")
    assert ended.returncode == 1
    assert "no model" in ended.stderr and "it has no folders" in ended.stderr


def test_repository_of_broken_models(tmp_path: Path) -> None:
    onnx_models.broken_models(tmp_path)
    ended = run("serve", f"--model-repository={tmp_path}", "--host=127.0.0.1", "--grpc-port=0", "--log-level=error")
    assert ended.returncode == 1
    told = [line for line in ended.stderr.splitlines() if line.startswith("turnout: ")]
    assert told[0] == f"turnout: no model of '{tmp_path}' can be served:"
    assert [line.split(":")[1].strip() for line in told[1:]] == ["broken/1", "contradicted/1", "unversioned"]
    assert "Traceback" not in ended.stderr and ended.stdout == ""


def test_broken_models_do_not_stop_the_others(tmp_path: Path) -> None:
    onnx_models.broken_models(tmp_path)
    onnx_models.write(tmp_path, "good", onnx_models.NO_BATCH)
    with process(tmp_path) as server, triton.InferenceServerClient(server.address) as client:
        rows = {m.name: m for m in client.get_model_repository_index().models}
        assert rows["good"].state == "READY"
        told = server.stdout
        for name, words in (
            ("broken", "ONNX Runtime cannot load it"),
            ("contradicted", "input 'x' is TYPE_INT32, the model file has TYPE_FP32"),
            ("unversioned", "it has no version folder"),
        ):
            assert rows[name].state == "UNAVAILABLE" and words in rows[name].reason
            assert words in told
        assert all(str(tmp_path) not in row.reason for row in rows.values())
        with pytest.raises(InferenceServerException) as refused:
            client.get_model_metadata("broken")
        assert refused.value.status() == "StatusCode.NOT_FOUND"
        assert str(tmp_path) not in refused.value.message()


def test_one_broken_version_does_not_stop_the_others(tmp_path: Path) -> None:
    for version in (1, 2):
        onnx_models.write(
            tmp_path, "scale", onnx_models.SCALE.format(factor=version), "version_policy { all {} }", version
        )
    (tmp_path / "scale" / "1" / "model.onnx").write_bytes(b"no model")
    with process(tmp_path) as server, triton.InferenceServerClient(server.address) as client:
        states = {m.version: m.state for m in client.get_model_repository_index().models}
        assert states == {"1": "UNAVAILABLE", "2": "READY"}
        assert client.is_model_ready("scale") and not client.is_model_ready("scale", "1")


def hostile(root: Path, *models: Callable[[], onnx.ModelProto]) -> Path:
    for model in models:
        path = root / model.__name__ / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(model().SerializeToString())
    return root


def test_models_that_would_end_the_server_cost_themselves_alone(tmp_path: Path) -> None:
    hostile(tmp_path, hostile_models.takes_memory_at_run, hostile_models.never_loads)
    words = {
        "takes_memory_at_run": "running it once needs more than 100000000 bytes: --preflight-memory-bytes-max",
        "never_loads": "loading it in a child process took longer than 5 s: --preflight-timeout-s",
    }
    if hostile_models.DIVISION_TRAPS:
        hostile(tmp_path, hostile_models.crashes_at_load, hostile_models.crashes_at_run)
        words["crashes_at_load"] = "loading it in a child process ended with signal SIGFPE"
        words["crashes_at_run"] = "running it once in a child process ended with signal SIGFPE"
    onnx_models.write(tmp_path, "good", onnx_models.NO_BATCH)
    limits = ("--preflight-memory-bytes-max=100000000", "--preflight-timeout-s=5")
    with process(tmp_path, *limits) as server, triton.InferenceServerClient(server.address) as client:
        rows = {m.name: (m.state, m.reason) for m in client.get_model_repository_index().models}
        assert rows == {"good": ("READY", "")} | {name: ("UNAVAILABLE", why) for name, why in words.items()}
        for name, why in words.items():
            assert f"note  {name}/1: {why}\n" in server.stdout
        given = triton.InferInput("x", [3], "FP32")
        given.set_data_from_numpy(np.ones(3, np.float32))
        assert client.infer("good", [given]).as_numpy("y").tolist() == [2, 2, 2]


def test_a_model_that_is_being_tried_does_not_outlive_the_server(tmp_path: Path) -> None:
    hostile(tmp_path, hostile_models.never_loads)
    arguments = ("--preflight-timeout-s=600", "--host=127.0.0.1", "--grpc-port=0")
    with subprocess.Popen(
        [*COMMAND, "serve", f"--model-repository={tmp_path}", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as started:
        try:
            until(lambda: psutil.Process(started.pid).children())
            (tried,) = psutil.Process(started.pid).children()
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == 0
        finally:
            started.kill()
    until(lambda: not tried.is_running() or tried.status() == psutil.STATUS_ZOMBIE)


def test_a_log_that_nobody_reads_holds_up_neither_the_start_nor_the_stop(slow: Path) -> None:
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(full, b"x" * 512):
            pass
    os.set_blocking(full, True)
    arguments = ("--host=127.0.0.1", "--grpc-port=0", "--drain-delay-s=0")
    with subprocess.Popen(
        [*COMMAND, "serve", f"--model-repository={slow}", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=full,
        text=True,
    ) as started:
        try:
            assert started.stdout is not None
            until(lambda: started.stdout.readline().startswith("ready: "), 60)
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == 0
        finally:
            started.kill()
    os.close(unread)
    os.close(full)


def test_strict_refuses_to_start_with_every_reason(tmp_path: Path) -> None:
    onnx_models.broken_models(tmp_path)
    onnx_models.write(tmp_path, "good", onnx_models.NO_BATCH)
    ended = run("serve", f"--model-repository={tmp_path}", "--host=127.0.0.1", "--grpc-port=0", "--strict")
    assert ended.returncode == 1 and ended.stdout == ""
    told = [line for line in ended.stderr.splitlines() if line.startswith("turnout: ")]
    assert told[0] == f"turnout: not all of '{tmp_path}' can be served, as --strict asks:"
    for line, name, words in zip(
        told[1:],
        ("broken/1", "contradicted/1", "unversioned"),
        ("ONNX Runtime cannot load it", "input 'x' is TYPE_INT32", "it has no version folder"),
        strict=True,
    ):
        assert line.startswith(f"turnout:   {name}: ") and words in line


def test_strict_starts_where_nothing_is_wrong(slow: Path) -> None:
    with process(slow, "--strict") as server:
        assert server.address


def test_no_path_of_the_host_reaches_a_client(tmp_path: Path) -> None:
    root = tmp_path / "models"
    onnx_models.broken_models(root)
    onnx_models.write(root, "good", onnx_models.NO_BATCH)
    with process(root) as server, triton.InferenceServerClient(server.address) as client:
        reasons = {m.name: m.reason for m in client.get_model_repository_index().models}
    assert "ONNX Runtime cannot load it" in reasons["broken"]
    for piece in ("models", "model.onnx", tmp_path.name):
        assert piece not in reasons["broken"]


def test_start_is_refused_before_models_are_loaded_when_the_port_is_used(slow: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        ended = run(
            "serve", f"--model-repository={slow}", "--host=127.0.0.1", f"--grpc-port={port}", "--log-level=debug"
        )
        assert ended.returncode == 1 and time.monotonic() - started < 30
    assert "slot changed" not in ended.stderr


def test_no_process_is_left_behind(slow: Path) -> None:
    with process(slow) as server:
        pid = server.process.pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
