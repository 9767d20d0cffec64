"""Servers that come and go under load: nothing that is safe to send again is lost, and the budget is kept."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import numpy as np
import pytest

from support.edge import edge
from support.fake_inference import IMAGE, KINDS, TRANSPORTS, AnyClient, FakeServer, Refusal, fake_server
from turnout_client import Retry

both = pytest.mark.parametrize("kind", KINDS)
ways = pytest.mark.parametrize("transport", TRANSPORTS)
CALLERS = 8


async def load(to: AnyClient, stop: asyncio.Event, answers: list[Any]) -> None:
    """Asks until told to stop; an error ends it, and each answer must be its own request's."""
    number = 0
    while not stop.is_set():
        number += 1
        sent = np.full((1, 4), number, np.float32)
        got = (await to.infer("m", {"x": sent}, timeout_s=20)).outputs
        assert got[next(iter(got))][0, 0] in (number, 2 * number)  # a fake's, an edge's
        answers.append(number)


async def more(answers: list[Any], count: int = 20) -> None:
    """Until so many further answers have come."""
    due = len(answers) + count
    for _ in range(10_000):
        if len(answers) >= due:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("no more answers come")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@both
@ways
async def test_a_server_that_restarts_costs_no_call(kind: str, transport: str) -> None:
    """It breaks off what is under way, is gone for a while, and comes back, three times."""
    port, stop = free_port(), asyncio.Event()
    answers: list[Any] = []
    async with AnyClient(kind, f"127.0.0.1:{port}", transport=transport) as to:
        callers = [asyncio.ensure_future(load(to, stop, answers)) for _ in range(CALLERS)]
        for _ in range(3):
            async with fake_server(port=port):
                await more(answers)
            await asyncio.sleep(0.05)
        async with fake_server(port=port):
            await more(answers)
            stop.set()
            await asyncio.gather(*callers)


@both
@ways
async def test_a_server_that_drains_costs_no_call(kind: str, transport: str) -> None:
    """Of two real ones: it says so, refuses, lets what is under way finish, and ends."""
    stop = asyncio.Event()
    answers: list[Any] = []
    async with edge() as stays, edge() as leaves:  # noqa: SIM117 - the client needs both addresses
        async with AnyClient(kind, [stays.address, leaves.address], transport=transport) as to:
            callers = [asyncio.ensure_future(load(to, stop, answers)) for _ in range(CALLERS)]
            await more(answers)
            leaves.server.set_not_ready()
            await more(answers)
            await leaves.server.stop(5)
            await more(answers)
            stop.set()
            await asyncio.gather(*callers)


@both
@ways
async def test_an_endpoint_that_is_lost_costs_no_call(kind: str, transport: str) -> None:
    """Without a word: the connection breaks."""
    stop = asyncio.Event()
    answers: list[Any] = []
    async with fake_server() as stays:
        async with fake_server() as dies:
            to = AnyClient(kind, [stays.address, dies.address], transport=transport)
            callers = [asyncio.ensure_future(load(to, stop, answers)) for _ in range(CALLERS)]
            await more(answers)
        await more(answers)
        stop.set()
        await asyncio.gather(*callers)
        await to.__aexit__()


@both
@ways
async def test_a_server_that_only_refuses_gets_no_storm(kind: str, transport: str) -> None:
    """120 calls, each of which fails: half of the 40 tokens may go on further attempts, and calls beside."""
    retry = Retry(backoff_s=0.01, backoff_s_max=0.01, tokens_max=40, token_ratio=0.001)
    async with fake_server(*[Refusal(grpc.StatusCode.UNAVAILABLE)] * 1000) as server:
        async with AnyClient(kind, server.address, transport=transport, retry=retry) as to:
            errors = await asyncio.gather(*(to.failure("m", IMAGE) for _ in range(120)))
        assert {error.code for error in errors} == {"UNAVAILABLE"}
        assert 120 < sent(server) <= 120 + 20


@both
@ways
async def test_without_retries_a_break_is_told(kind: str, transport: str) -> None:
    """The control of the tests above: it does cost calls."""
    stop = asyncio.Event()
    answers: list[Any] = []
    async with AnyClient(kind, f"127.0.0.1:{(port := free_port())}", transport=transport, retry=None) as to:
        callers = [asyncio.ensure_future(load(to, stop, answers)) for _ in range(CALLERS)]
        async with fake_server(port=port) as server:
            await more(answers)
            server.gate.clear()
            await asyncio.sleep(0.05)
            server.script.extend([Refusal(ends=True)] * CALLERS)
        stop.set()
        async with fake_server(port=port):
            outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert any(getattr(outcome, "code", "") == "UNAVAILABLE" for outcome in outcomes)


def sent(server: FakeServer) -> int:
    return len(server.received)
