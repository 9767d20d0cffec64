"""The generator against real servers: both ways to call, answers checked, and a process that is paused for a second."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.edge import Served, edge, signature
from turnout.backends.synthetic import SyntheticModel
from turnout_bench import callers, schedules
from turnout_bench.callers import UnaryCaller, caller
from turnout_bench.counters import counters
from turnout_bench.loops import closed_loop, open_loop
from turnout_bench.machine import ForeignLoad, machine, versions
from turnout_bench.processes import PROGRAMS, ROOT, Child
from turnout_bench.results import OK, WRONG_ANSWER, BenchError
from turnout_bench.samples import Sample, declared_samples, frame_sample, reference_samples, sample
from turnout_bench.saturation import find_saturation
from turnout_wire.gen import grpc_service_pb2 as pb
from zoo import networks


def doubled(count: int = 5, right: bool = True) -> list[Sample]:
    rows = [np.full((1, 4), number, np.float32) for number in range(1, count + 1)]
    return [sample("m", {"x": x}, {"y": 2 * x if right else x}) for x in rows]


@pytest.mark.parametrize("mode", ["unary", "stream"])
async def test_every_answer_is_its_own_requests(mode: str) -> None:
    async with edge() as server:
        before = await counters(server.address, "m")
        async with caller(mode, server.address, doubled()) as calling:
            run = await open_loop(calling, schedules.poisson(400, 0.5, 1), seconds=0.5)
            looped = await closed_loop(calling, 8, seconds=0.2)
        did = await counters(server.address, "m") - before
    assert run.refuse_failures("m").ok == len(schedules.poisson(400, 0.5, 1))
    looped.refuse_failures("m")
    assert did.answers >= run.ok + looped.ok  # and what was answered outside of the window
    assert did.rows_mean >= 1 and did.wait_ms_mean >= 0


@pytest.mark.parametrize("mode", ["unary", "stream"])
async def test_a_wrong_answer_is_seen(mode: str) -> None:
    async with edge() as server:
        async with caller(mode, server.address, doubled(right=False)) as calling:
            assert await calling.call(0) == WRONG_ANSWER
        async with caller(mode, server.address, doubled(right=False), check_every=2) as calling:
            assert [await calling.call(number) for number in range(3)] == [WRONG_ANSWER, OK, WRONG_ANSWER]


async def test_failures_have_the_servers_status() -> None:
    x = np.zeros((1, 4), np.float32)
    async with edge({"m": Served(SyntheticModel(signature(), poison=1.0))}) as server:
        async with caller("unary", server.address, [sample("other", {"x": x})]) as calling:
            assert await calling.call(0) == "NOT_FOUND"
        async with caller("stream", server.address, [sample("m", {"x": x + 1})]) as calling:
            assert await calling.call(0) == callers.STREAM_ERROR
            assert await calling.call(4) == callers.STREAM_ERROR  # the same stream goes on
        with pytest.raises(BenchError, match="no statistics of 'other': INVALID_ARGUMENT"):
            await counters(server.address, "other")
    async with caller("unary", server.address, doubled()) as calling:
        assert await calling.call(0) == "UNAVAILABLE"
    async with caller("stream", server.address, doubled()) as calling:
        assert await calling.call(0) == "UNAVAILABLE"
        assert await calling.call(0) == "UNAVAILABLE"


async def test_a_server_paused_for_a_second_shows_in_the_p99(tmp_path: Path) -> None:
    """Real time and a real process, stopped by SIGSTOP: a third of the requests are due while it stands still."""
    (tmp_path / "reply").write_bytes(b"")
    echo = Child("echo", [str(PROGRAMS / "echo.py"), str(tmp_path / "reply")], None)
    await asyncio.to_thread(echo.start)
    try:
        async with UnaryCaller(echo.address, [frame_sample(b"request")]) as calling:
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, echo.process.send_signal, signal.SIGSTOP)
            loop.call_later(2.0, echo.process.send_signal, signal.SIGCONT)
            run = await open_loop(calling, schedules.poisson(100, 3.0, 1), seconds=3.0)
    finally:
        echo.process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(echo.stop)
    assert run.statuses == {OK: len(schedules.poisson(100, 3.0, 1))}
    assert run.latency.percentile_us(99) > 800_000
    assert run.latency.percentile_us(75) > 100_000


def test_a_child_that_does_not_start_says_what_it_said() -> None:
    child = Child("broken", ["-c", "import sys; sys.exit('no such thing')"], None)
    with pytest.raises(BenchError, match=r"'broken' did not start, exit status 1:\nno such thing"):
        child.start()
    child.stop()


def test_samples_have_the_models_own_answers(tmp_path: Path) -> None:
    file = networks.write("mlp_small", tmp_path) / "1" / "model.onnx"
    one, other = reference_samples("mlp_small", file, count=2)
    request = pb.ModelInferRequest.FromString(one.frame)
    assert (request.model_name, request.id, list(request.inputs[0].shape)) == ("mlp_small", "", [1, 784])
    named = pb.ModelInferRequest.FromString(one.frame_with_id("1f"))
    assert named.id == "1f"
    named.id = ""
    assert named == request
    answer = pb.ModelInferResponse(model_name="mlp_small", raw_output_contents=[one.last_raw])
    answer.outputs.add(name="y", datatype="FP32", shape=[1, 10])
    assert one.right(answer.SerializeToString()) and one.right_message(answer)
    assert not other.right(answer.SerializeToString())
    nearly = np.frombuffer(one.last_raw, "<f4") * np.float32(1 + 1e-5)
    answer.raw_output_contents[0] = nearly.tobytes()
    assert one.right(answer.SerializeToString())
    answer.raw_output_contents[0] = one.last_raw[:-4]
    assert not one.right_message(answer)
    answer.outputs[0].name = "z"
    assert not one.right_message(answer)


def test_requests_are_made_up_from_what_a_server_declares() -> None:
    metadata = pb.ModelMetadataResponse()
    metadata.inputs.add(name="ids", datatype="INT64", shape=[-1, 3])
    metadata.inputs.add(name="mask", datatype="BOOL", shape=[-1, 3])
    (one,) = declared_samples("m", metadata, count=1, rows=2)
    request = pb.ModelInferRequest.FromString(one.frame)
    assert [(given.name, given.datatype, list(given.shape)) for given in request.inputs] == [
        ("ids", "INT64", [2, 3]),
        ("mask", "BOOL", [2, 3]),
    ]
    assert one.right(b"anything")
    metadata.inputs.add(name="text", datatype="BYTES", shape=[1])
    with pytest.raises(ValueError, match="'text' of model 'm' is BYTES"):
        declared_samples("m", metadata)


async def test_saturation_is_where_doubling_stops_to_pay() -> None:
    asked: list[int] = []

    async def measure(clients: int) -> object:
        asked.append(clients)
        return type("Run", (), {"per_second": min(clients, 30) * 10})

    best = await find_saturation(measure, 256)  # type: ignore[arg-type]
    assert asked == [8, 16, 32, 64] and best.per_second == 300
    asked.clear()
    await find_saturation(measure, 16)  # type: ignore[arg-type]
    assert asked == [8, 16]


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "loadtests" / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command(tmp_path: Path) -> None:
    """Against a model that it does not know; a run that is void has its own exit status."""
    async with edge() as server:
        out, page = tmp_path / "out.json", tmp_path / "page.html"
        base = ["--target", server.address, "--model", "m", "--seconds", "0.5", "--warmup", "0", "--json", str(out)]
        opened = await asyncio.to_thread(generate, "open", "--rate", "50", *base)
        assert opened.returncode in (0, 3), opened.stderr  # 3: this machine was too busy to keep the schedule
        result = json.loads(out.read_text())
        assert result["statuses"] == {OK: len(schedules.poisson(50, 0.5, 0))} and result["loop"] == "open"
        assert bool(result["void"]) is (opened.returncode == 3) is ("VOID" in opened.stderr)
        swept = await asyncio.to_thread(
            generate, "sweep", "--rates", "20", "40", "--mode", "stream", "--html", str(page), *base
        )
        assert swept.returncode in (0, 3), swept.stderr
        assert len(json.loads(out.read_text())["points"]) == 2 and page.read_text().count("<svg") == 3
        unknown = await asyncio.to_thread(generate, "closed", *base, "--model", "other")
        assert unknown.returncode == 1 and "NOT_FOUND" in unknown.stderr
        wrong = await asyncio.to_thread(generate, "open", *base)
        assert wrong.returncode == 2 and "need a rate" in wrong.stderr


def test_the_machine_is_described() -> None:
    described = machine()
    assert described["cores"] and len(described["load_average"]) == 3
    assert "onnxruntime" in versions() and versions()["python"].startswith("3.")
    foreign = ForeignLoad(lambda: 0.0)
    foreign.start()
    assert foreign.cores() >= 0
