"""The demo's load: closed loops of clients, each with one request under way. Says nothing and draws nothing.

An error of any request ends the whole run: grpc.RpcError.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

import plain_stub
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub, GRPCInferenceServiceStub

CLIENTS = 8
ROWS = 32  # the model's largest batch
TIMEOUT_S = 30

Images = NDArray[np.float32]


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
