"""A state that was acknowledged is one that a server starts with, also where nothing can be served in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.server import Server, process, run, until
from turnout_wire.admin import SlotServiceStub
from turnout_wire.gen import grpc_service_pb2, slots_pb2
from turnout_wire.service import GRPCInferenceServiceStub

DIGITS = Path(__file__).parents[2] / "models" / "repository" / "digits"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copytree(DIGITS, tmp_path / "models" / "digits")
    return tmp_path / "models"


@contextmanager
def started(repository: Path, *flags: str) -> Iterator[tuple[Server, SlotServiceStub, grpc.Channel]]:
    """With a state directory beside the repository."""
    with process(repository, f"--state-dir={repository.parent / 'state'}", "--preflight=off", *flags) as server:
        port = re.search(r"admin +127\.0\.0\.1:(\d+)", server.stdout)
        assert port is not None, server.stdout
        with (
            grpc.insecure_channel(f"127.0.0.1:{port[1]}") as admin,
            grpc.insecure_channel(server.address) as channel,
        ):
            yield server, SlotServiceStub(admin), channel


def refused(repository: Path, *flags: str) -> str:
    """What a start says that ends with status 1."""
    ended = run(
        "serve", f"--model-repository={repository}", "--host=127.0.0.1", "--grpc-port=0", "--provider=cpu",
        "--preflight=off", "--log-level=error", f"--state-dir={repository.parent / 'state'}", *flags,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


def status(channel: grpc.Channel) -> str:
    stub = health_pb2_grpc.HealthStub(channel)
    code: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status
    ready = GRPCInferenceServiceStub(channel).ServerReady(grpc_service_pb2.ServerReadyRequest(), timeout=10).ready
    assert ready == (code == health_pb2.HealthCheckResponse.SERVING)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(code))


def repaired(stub: SlotServiceStub, channel: grpc.Channel, version: int) -> None:
    """By an operator who loads a version and swaps to it."""
    revision = slots_pb2.Revision(version=version)
    stub.LoadSlot(slots_pb2.LoadSlotRequest(model="digits", slot="red", revision=revision, wait=True), timeout=60)
    stub.SwapSlots(slots_pb2.SwapSlotsRequest(model="digits", slot="red"), timeout=10)
    until(lambda: status(channel) == "SERVING")
    message = grpc_service_pb2.ModelInferRequest(model_name="digits")
    message.inputs.add(name="image", datatype="FP32", shape=[1, 64])
    message.raw_input_contents.append(np.zeros((1, 64), "<f4").tobytes())
    answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=10)
    assert answer.model_version == str(version)


def test_a_server_whose_only_model_was_unloaded_starts_and_can_be_repaired(repository: Path) -> None:
    with started(repository, "--model-control=explicit") as (_, _, channel):
        assert status(channel) == "SERVING"
        unload = grpc_service_pb2.RepositoryModelUnloadRequest(model_name="digits")
        GRPCInferenceServiceStub(channel).RepositoryModelUnload(unload, timeout=20)
        assert status(channel) == "NOT_SERVING"
    assert "start with --admin and without --strict" in refused(repository, "--strict")
    assert "start with --admin and without --strict" in refused(repository, "--no-admin")
    with started(repository) as (server, stub, channel):
        assert "nothing is served" in server.stdout and "nothing is served" in server.stderr
        assert "FAILED" not in server.stdout
        assert status(channel) == "NOT_SERVING"
        repaired(stub, channel, 1)


def test_a_server_whose_revision_is_gone_starts_degraded_and_can_be_repaired(repository: Path) -> None:
    with started(repository) as (_, stub, _):
        (blue,) = [s for s in stub.GetModel(slots_pb2.GetModelRequest(model="digits")).model.slots if s.name == "blue"]
        for name in ("v1", "v2"):  # what else is loaded would serve those who pin it
            stub.UnloadSlot(slots_pb2.UnloadSlotRequest(model="digits", slot=name, wait=True), timeout=20)
    shutil.rmtree(repository / "digits" / str(blue.revision.version))
    assert "start with --admin and without --strict" in refused(repository, "--strict")
    with started(repository) as (server, stub, channel):
        assert "nothing is served" in server.stdout
        model = stub.GetModel(slots_pb2.GetModelRequest(model="digits"), timeout=10).model
        assert model.health == slots_pb2.HEALTH_DEGRADED
        assert status(channel) == "NOT_SERVING"
        repaired(stub, channel, 2)


def test_a_first_start_with_nothing_to_serve_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert "it has no folders" in refused(tmp_path / "models")
