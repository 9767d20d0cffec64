"""A server whose slots are changed while it is measured: its repository, its process, and its operator."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import grpc.aio
import onnx

from turnout_bench.bench import Bench
from turnout_bench.callers import CHANNEL_OPTIONS
from turnout_bench.changes import Change
from turnout_bench.processes import Child, server_arguments
from turnout_bench.results import BenchError
from turnout_wire.admin import SlotServiceAioStub
from turnout_wire.gen import slots_pb2 as pb
from zoo import networks
from zoo.samples import DIGITS

SMALL = "digits"  # in blue version 1, in green version 2
BIG = "mlp_big"  # 80 MB: in blue version 1; version 2 is there to be loaded
LIVE, BESIDE = "blue", "green"
VERSIONS = {LIVE: 1, BESIDE: 2}
_BIG_SEED = 2
_ANSWER_S_MAX = 120.0
T = TypeVar("T")


async def managed_server(bench: Bench) -> Child:
    """Version 1 of both models, by the server's defaults with its pre-flight and a journal on disk; then version 2 of
    both appears in the repository, and the small one's is loaded."""
    return await bench.once("managed", lambda: _start(bench))


async def _start(bench: Bench) -> Child:
    root = bench.folder / "managed"

    def arguments() -> Sequence[str]:
        for folder in (DIGITS, bench.model_file(BIG).parents[1]):
            shutil.copytree(folder, root / folder.name, ignore=lambda _, names: [n for n in names if n in ("2", "3")])
        return server_arguments(root, "--preflight=on", f"--state-dir={bench.folder / 'state'}")

    def appear() -> None:
        shutil.copytree(DIGITS / "2", root / SMALL / "2")
        (root / BIG / "2").mkdir()
        onnx.save(networks.mlp(networks.NETWORKS[BIG], _BIG_SEED), root / BIG / "2" / "model.onnx")

    server = await bench.child("turnout, slots", arguments)
    await asyncio.to_thread(appear)
    async with Operator(server.admin_address) as operator:
        await operator.load(SMALL)
    return server


class Operator:
    """Who changes slots. Methods raise BenchError where the server refuses."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Operator:
        self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        self._stub = SlotServiceAioStub(self._channel)
        await self._channel.channel_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def load(self, model: str) -> None:
        """Version 2 beside the live one; returns when it is READY."""
        revision = pb.Revision(version=VERSIONS[BESIDE])
        request = pb.LoadSlotRequest(model=model, slot=BESIDE, revision=revision, wait=True)
        await _answer(self._stub.LoadSlot(request, timeout=_ANSWER_S_MAX))

    async def renew(self) -> None:
        """The small model's live slot, with what it holds: what is counted of it begins anew."""
        request = pb.LoadSlotRequest(
            model=SMALL,
            slot=LIVE,
            revision=pb.Revision(version=VERSIONS[LIVE]),
            wait=True,
            replace=True,
            accept_outage=True,
        )
        await _answer(self._stub.LoadSlot(request, timeout=_ANSWER_S_MAX))

    async def shadow(self, share: float) -> None:
        """Copies of that share of the small model's requests to the slot beside the live one; 0: none."""
        if share:
            rule = pb.ShadowRule(slot=BESIDE, sample_bp=round(share * 10_000))
            await _answer(self._stub.SetShadow(pb.SetShadowRequest(model=SMALL, rule=rule), timeout=_ANSWER_S_MAX))
        else:
            await _answer(
                self._stub.ClearShadow(pb.ClearShadowRequest(model=SMALL, slot=BESIDE), timeout=_ANSWER_S_MAX)
            )

    async def shadowed(self) -> tuple[int, dict[str, int]]:
        """Copies of the small model that were compared since the rule was set, and those dropped by reason."""
        watch = self._stub.WatchComparisons(pb.WatchComparisonsRequest(model=SMALL, slot=BESIDE))
        try:
            async with asyncio.timeout(_ANSWER_S_MAX):
                async for event in watch:
                    if event.HasField("summary"):
                        return event.summary.total.pair_count, dict(event.summary.dropped)
        except grpc.aio.AioRpcError as error:
            raise BenchError(f"the operator was refused: {error.code().name} {error.details()}") from None
        finally:
            watch.cancel()
        raise BenchError("no comparison was told")

    async def latency_ms(self) -> tuple[float, float]:
        """From arrival to answer inside the server, p50 and p99 of the small model's live slot since it was loaded."""
        reply = await _answer(self._stub.GetModel(pb.GetModelRequest(model=SMALL), timeout=_ANSWER_S_MAX))
        (counts,) = (slot.routed for slot in reply.model.slots if slot.name == LIVE)
        return counts.latency_p50.ToNanoseconds() / 1e6, counts.latency_p99.ToNanoseconds() / 1e6

    async def unload(self, model: str) -> None:
        request = pb.UnloadSlotRequest(model=model, slot=BESIDE, wait=True)
        await _answer(self._stub.UnloadSlot(request, timeout=_ANSWER_S_MAX))

    async def swap(self, slot: str) -> Change:
        """All traffic of the small model to the slot."""
        sent_ns = time.monotonic_ns()
        await _answer(self._stub.SwapSlots(pb.SwapSlotsRequest(model=SMALL, slot=slot), timeout=_ANSWER_S_MAX))
        return Change("swap", f"{SMALL}/{VERSIONS[slot]}", sent_ns, time.monotonic_ns())

    async def roll_back(self, slot: str) -> Change:
        """The small model's. `slot`: where the traffic must go; it is not named to the server."""
        sent_ns = time.monotonic_ns()
        await _answer(self._stub.RollbackModel(pb.RollbackModelRequest(model=SMALL), timeout=_ANSWER_S_MAX))
        return Change("rollback", f"{SMALL}/{VERSIONS[slot]}", sent_ns, time.monotonic_ns())

    async def answers(self) -> dict[str, int]:
        """The small model's, by revision, as the server counts them."""
        reply = await _answer(self._stub.GetModel(pb.GetModelRequest(model=SMALL), timeout=_ANSWER_S_MAX))
        return {
            f"{SMALL}/{slot.revision.version}": slot.routed.successes + slot.pinned.successes
            for slot in reply.model.slots
        }


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise BenchError(f"the operator was refused: {error.code().name} {error.details()}") from None
