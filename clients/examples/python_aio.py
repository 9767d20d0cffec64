"""A microservice on asyncio: many callers at once through digits_client.py, which `turnoutctl codegen digits` wrote,
over a few shared streams, while traffic is swapped: python python_aio.py HOST:8001 HOST:8003"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import numpy as np

from digits_client import AioDigitsClient, DigitsAnswer
from turnout_client import AdminClient, InferenceError, aio
from turnout_wire.gen import slots_pb2 as pb

IMAGE = np.arange(64).reshape(1, 64) % 16


class Recogniser:
    """What a handler of the service calls. One client for the whole process."""

    def __init__(self, client: aio.Client) -> None:
        self._digits = AioDigitsClient(client)

    async def recognise(self, user: str) -> DigitsAnswer | None:
        try:
            # The sticky key: while traffic is split, a user stays with one revision.
            return await self._digits.predict(IMAGE, key=user, timeout_s=2)
        except InferenceError as error:  # what could be sent again has been
            print(f"{user}: {error}")
            return None


async def main(endpoint: str = "127.0.0.1:8001", admin_endpoint: str = "127.0.0.1:8003") -> None:
    async with aio.Client(endpoint, transport="stream") as client:
        recogniser = Recogniser(client)
        with AdminClient(admin_endpoint) as admin:
            for move in ("as it is", "swapped", "rolled back"):
                if move == "swapped":  # all traffic to another slot in one assignment, and back
                    await asyncio.to_thread(admin.swap, pb.SwapSlotsRequest(model="digits", slot="v2"))
                if move == "rolled back":
                    await asyncio.to_thread(admin.rollback, pb.RollbackModelRequest(model="digits"))
                answers = await asyncio.gather(*(recogniser.recognise(f"user-{n}") for n in range(50)))
                by = Counter(f"{a.answer.revision} in slot {a.answer.slot}" for a in answers if a is not None)
                print(f"{move}: " + ", ".join(f"{count} answers of {who}" for who, count in by.items()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
