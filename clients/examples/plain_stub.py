"""A complete client on the plain generated stubs: a few digits, once as routed and once with version 2 pinned."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub
from turnout_wire.tensors import DataType, from_raw, to_bytes

DIRECT = (("grpc.enable_http_proxy", 0),)  # a proxy meant for the Internet cannot reach a server near by


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for n images: labels [n] ([n, 1] on the wire), probabilities [n, 10], who answered."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    version: str
    slot: str
    revision: str


def request(images: NDArray[np.float32], version: str = "") -> pb.ModelInferRequest:
    """For images [n, 64] with pixels 0..16. Without a version the server routes the request."""
    message = pb.ModelInferRequest(model_name="digits", model_version=version)
    message.inputs.add(name="image", datatype="FP32", shape=images.shape)
    message.raw_input_contents.append(to_bytes(images, DataType.FP32))
    return message


def answer(response: pb.ModelInferResponse) -> Answer:
    tensors = zip(response.outputs, response.raw_output_contents, strict=True)
    arrays = {tensor.name: from_raw(raw, DataType(tensor.datatype), tensor.shape) for tensor, raw in tensors}
    slot, revision = (response.parameters[key].string_param for key in ("turnout_slot", "turnout_revision"))
    return Answer(arrays["label"].reshape(-1), arrays["probabilities"], response.model_version, slot, revision)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", default="127.0.0.1:8001", help="HOST:PORT of the server (default: %(default)s)")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))
    from zoo.samples import heldout

    images, labels = heldout(16)
    with grpc.insecure_channel(parser.parse_args().endpoint, options=DIRECT) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for how, pin in (("routed:", ""), ("pinned to 2:", "2")):
            got = answer(stub.ModelInfer(request(images, pin), timeout=10))
            print(f"{how:12} version {got.version} ({got.revision} in slot {got.slot}) says".ljust(50), got.labels)
    print("the true labels:".ljust(50), labels)
