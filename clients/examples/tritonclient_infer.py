"""A complete client on the stock tritonclient: a few digits, once as routed and once with version 2 pinned."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray

DIRECT = [("grpc.enable_http_proxy", 0)]  # a proxy meant for the Internet cannot reach a server near by


def connect(endpoint: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(endpoint, channel_args=DIRECT)


def infer(client: triton.InferenceServerClient, images: NDArray[np.float32], version: str = "") -> triton.InferResult:
    """For images [n, 64] with pixels 0..16. Without a version the server routes the request."""
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    return client.infer("digits", [tensor], model_version=version, client_timeout=10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", default="127.0.0.1:8001", help="HOST:PORT of the server (default: %(default)s)")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))
    from zoo.samples import heldout

    images, labels = heldout(16)
    with connect(parser.parse_args().endpoint) as client:
        for how, pin in (("routed:", ""), ("pinned to 2:", "2")):
            result = infer(client, images, pin)
            message = result.get_response()
            slot, revision = (message.parameters[key].string_param for key in ("turnout_slot", "turnout_revision"))
            answered = result.as_numpy("label").reshape(-1)  # [n, 1] on the wire
            print(f"{how:12} version {message.model_version} ({revision} in slot {slot}) says".ljust(50), answered)
    print("the true labels:".ljust(50), labels)
