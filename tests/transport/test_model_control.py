"""RepositoryModelLoad and -Unload on virtual time: what a client has begun goes on to its end without it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.control import BAKE_NS, Control
from support.virtual import VirtualLoop, virtual
from turnout.runtime.admin import AdminLimits
from turnout.transport.model_control import ModelControl
from turnout_wire.gen import grpc_service_pb2 as pb


class Peer:
    """The part of a call's context that tells who calls."""

    def peer_identities(self) -> None:
        return None

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"


def control_of(control: Control) -> ModelControl:
    return ModelControl(control.operations, control.admin.requests, BAKE_NS)


async def left_after(seconds: float, call: Any) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@virtual
async def test_an_unload_whose_client_leaves_while_it_is_written_is_carried_out(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    request = pb.RepositoryModelUnloadRequest(model_name="m").SerializeToString()
    await left_after(0.5, control_of(control).unload(request, Peer()))  # type: ignore[arg-type]
    await asyncio.sleep(10)
    assert control.in_force == control.journaled == {}
    assert control.state("blue") == "EMPTY"


@virtual
async def test_etags_may_be_required_of_everybody_else(loop: VirtualLoop) -> None:
    control = await Control.open(loop, limits=AdminLimits(require_etag=True, bake_ns=BAKE_NS))
    request = pb.RepositoryModelLoadRequest(model_name="m").SerializeToString()
    await control_of(control).load(request, Peer())  # type: ignore[arg-type]
    assert control.in_force == {"green": 10_000}
    request = pb.RepositoryModelUnloadRequest(model_name="m").SerializeToString()
    await control_of(control).unload(request, Peer())  # type: ignore[arg-type]
    assert control.in_force == {}


@virtual
async def test_a_load_whose_client_leaves_while_it_loads_is_swapped_to(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=1)
    control.shelf.load_s = 20
    request = pb.RepositoryModelLoadRequest(model_name="m").SerializeToString()
    await left_after(10, control_of(control).load(request, Peer()))  # type: ignore[arg-type]
    await asyncio.sleep(100)
    assert control.in_force == control.journaled == {"green": 10_000}
    assert control.state("green") == "READY m/3"
