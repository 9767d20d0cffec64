"""The demo's load: closed loops of clients, each with one request under way. Says nothing and draws nothing.

An error of any request ends the whole run: grpc.RpcError or tritonclient's InferenceServerException.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

import plain_stub
import tritonclient_infer
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub, GRPCInferenceServiceStub

CLIENTS = 8  # of each kind
ROWS = 32  # the model's largest batch
TIMEOUT_S = 30

Images = NDArray[np.float32]


@dataclass(slots=True)
class Kind:
    """What the clients of one kind saw: a latency for each request, and answers by (revision, slot)."""

    name: str
    latencies_ns: list[int] = field(default_factory=list)
    answered_by: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Answers:
    """One version's answers to n images: labels [n], confidence [n] (the largest probability)."""

    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    latencies_ns: list[int]


def statistics(endpoint: str) -> dict[str, pb.ModelStatistics]:
    """The server's own count, by version."""
    with grpc.insecure_channel(endpoint, options=plain_stub.DIRECT) as channel:
        reply = GRPCInferenceServiceStub(channel).ModelStatistics(
            pb.ModelStatisticsRequest(name="digits"), timeout=TIMEOUT_S
        )
    return {row.version: row for row in reply.model_stats}


async def send_singles(endpoint: str, images: Images, tick: Callable[[], None]) -> list[Kind]:
    """Every image in a request of its own, routed by the server, from both kinds of clients at the same time."""
    triton, plain = Kind("tritonclient, threads"), Kind("generated stubs, asyncio")
    todo = iter(range(len(images)))  # one list of work for all clients
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(CLIENTS) as threads:
        try:
            await asyncio.gather(
                *(
                    loop.run_in_executor(threads, _triton_client, endpoint, images, todo, triton, tick)
                    for _ in range(CLIENTS)
                ),
                *(_plain_client(endpoint, images, todo, plain, tick) for _ in range(CLIENTS)),
            )
        finally:
            deque(todo, maxlen=0)  # after an error or Ctrl-C nobody finds more work
    return [triton, plain]


def _triton_client(endpoint: str, images: Images, todo: Iterator[int], kind: Kind, tick: Callable[[], None]) -> None:
    with tritonclient_infer.connect(endpoint) as client:
        for index in todo:
            started_ns = time.perf_counter_ns()
            message = tritonclient_infer.infer(client, images[index : index + 1]).get_response()
            kind.latencies_ns.append(time.perf_counter_ns() - started_ns)
            parameters = message.parameters
            kind.answered_by[parameters["turnout_revision"].string_param, parameters["turnout_slot"].string_param] += 1
            tick()


async def _plain_client(
    endpoint: str, images: Images, todo: Iterator[int], kind: Kind, tick: Callable[[], None]
) -> None:
    async with grpc.aio.insecure_channel(endpoint, options=plain_stub.DIRECT) as channel:
        stub = GRPCInferenceServiceAioStub(channel)
        for index in todo:
            started_ns = time.perf_counter_ns()
            response = await stub.ModelInfer(plain_stub.request(images[index : index + 1]), timeout=TIMEOUT_S)
            answer = plain_stub.answer(response)
            kind.latencies_ns.append(time.perf_counter_ns() - started_ns)
            kind.answered_by[answer.revision, answer.slot] += 1
            tick()


async def send_to_versions(
    endpoint: str, images: Images, versions: tuple[str, ...], tick: Callable[[], None]
) -> dict[str, Answers]:
    """Every image to every version, pinned, ROWS at a time. The versions take turns, so they meet the same load."""
    answers = {
        version: Answers(np.empty(len(images), np.int64), np.empty(len(images), np.float32), []) for version in versions
    }
    todo = iter([(start, version) for start in range(0, len(images), ROWS) for version in versions])

    async def client() -> None:
        async with grpc.aio.insecure_channel(endpoint, options=plain_stub.DIRECT) as channel:
            stub = GRPCInferenceServiceAioStub(channel)
            for start, version in todo:
                rows, into = slice(start, start + ROWS), answers[version]
                started_ns = time.perf_counter_ns()
                response = await stub.ModelInfer(plain_stub.request(images[rows], version), timeout=TIMEOUT_S)
                into.latencies_ns.append(time.perf_counter_ns() - started_ns)
                answer = plain_stub.answer(response)
                into.labels[rows], into.confidence[rows] = answer.labels, answer.probabilities.max(axis=1)
                tick()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers
