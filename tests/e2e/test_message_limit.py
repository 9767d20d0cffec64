"""Models that are loaded while a server runs take requests larger than those of the models that it started with."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from support import onnx_models
from support.server import Server, process
from turnout_wire.admin import SlotServiceStub, error_info
from turnout_wire.gen import grpc_service_pb2, slots_pb2
from turnout_wire.service import GRPCInferenceServiceStub

SHAPE = [3, 1000, 1000]
LARGE = "g (float[3, 1000, 1000] x) => (float y) { y = ReduceMean<keepdims = 0>(x) }"


def load(server: Server, root: Path) -> None:
    """A model that was not there at start."""
    onnx_models.write(root, "large", LARGE)
    port = re.search(r"admin +127\.0\.0\.1:(\d+)", server.stdout)
    assert port is not None
    revision = slots_pb2.Revision(version=1)
    with grpc.insecure_channel(f"127.0.0.1:{port[1]}") as channel:
        stub = SlotServiceStub(channel)
        stub.LoadSlot(slots_pb2.LoadSlotRequest(model="large", slot="blue", revision=revision, wait=True), timeout=60)
        stub.SwapSlots(slots_pb2.SwapSlotsRequest(model="large", slot="blue"), timeout=10)


def test_a_model_with_larger_inputs_is_loaded_and_reached(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, "small", onnx_models.NO_BATCH)
    with process(tmp_path, "--preflight=off") as server, grpc.insecure_channel(server.address) as channel:
        load(server, tmp_path)
        message = grpc_service_pb2.ModelInferRequest(model_name="large")
        message.inputs.add(name="x", datatype="FP32", shape=SHAPE)
        message.raw_input_contents.append(np.ones(SHAPE, "<f4").tobytes())
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=20)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4") == pytest.approx([1.0])


def test_a_model_that_no_message_could_reach_is_refused(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, "small", onnx_models.NO_BATCH)
    flags = ("--preflight=off", "--message-bytes-max=4194304")
    with process(tmp_path, *flags) as server, pytest.raises(grpc.RpcError) as refused:
        load(server, tmp_path)
    info = error_info(refused.value)
    assert info is not None and (info.reason, info.metadata["gate"]) == ("GATE_FAILED", "message")
    assert "4194304 (--message-bytes-max" in refused.value.details()
