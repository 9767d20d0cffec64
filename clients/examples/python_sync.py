"""A blocking client of `digits` through digits_client.py, which `turnoutctl codegen digits` wrote, and of the admin
service: python python_sync.py HOST:8001 HOST:8003"""

from __future__ import annotations

import sys

import numpy as np

from digits_client import DigitsClient
from turnout_client import AdminClient, Client
from turnout_wire.gen import slots_pb2 as pb

IMAGE = np.arange(64).reshape(1, 64) % 16


def show(digits: DigitsClient) -> None:
    # Requests with the same key are answered by the same slot while traffic is split.
    got = digits.predict(IMAGE, key="user-7")
    print(f"{got.answer.revision} in slot {got.answer.slot} says {got.label[0, 0]}")


def main(endpoint: str = "127.0.0.1:8001", admin_endpoint: str = "127.0.0.1:8003") -> None:
    with Client(endpoint, timeout_s=10) as client, AdminClient(admin_endpoint) as admin:
        digits = DigitsClient(client)
        show(digits)

        # As many threads as there are may share the client; with transport="stream" their calls share a few streams.
        with Client(endpoint, transport="stream") as streaming:
            several = DigitsClient(streaming).predict(np.repeat(IMAGE, 2, axis=0))
            print(f"the stream says {several.label.ravel().tolist()}")
        try:
            digits.predict(IMAGE[:, :1])
        except ValueError as error:
            print(error)

        # All traffic to another slot in one assignment, and back.
        admin.swap(pb.SwapSlotsRequest(model="digits", slot="v2"))
        show(digits)
        admin.rollback(pb.RollbackModelRequest(model="digits"))
        show(digits)


if __name__ == "__main__":
    main(*sys.argv[1:])
