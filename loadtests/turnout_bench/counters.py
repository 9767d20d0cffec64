"""What a server has counted itself, by the ModelStatistics RPC: answers, queue time, and rows in each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import grpc.aio

from turnout_bench.callers import CHANNEL_OPTIONS
from turnout_bench.results import BenchError
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub

_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums since the server started, over the versions of one model; the difference of two is what a run did.

    Attributes:
        answers: requests that succeeded.
        queue_ns: that they waited, in total.
        batches: runs of the model by rows.
    """

    answers: int
    queue_ns: int
    batches: Mapping[int, int]

    def __sub__(self, earlier: Counters) -> Counters:
        batches = {rows: runs - earlier.batches.get(rows, 0) for rows, runs in self.batches.items()}
        return Counters(
            self.answers - earlier.answers,
            self.queue_ns - earlier.queue_ns,
            {rows: runs for rows, runs in batches.items() if runs},
        )

    @property
    def rows_mean(self) -> float:
        """Rows of a run in the mean; nan without runs."""
        runs = sum(self.batches.values())
        return sum(rows * count for rows, count in self.batches.items()) / runs if runs else float("nan")

    @property
    def wait_ms_mean(self) -> float:
        return self.queue_ns / self.answers / 1e6 if self.answers else float("nan")


async def counters(address: str, model: str) -> Counters:
    """Raises:
    BenchError: the server has no such statistics.
    """
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            reply: pb.ModelStatisticsResponse = await GRPCInferenceServiceAioStub(channel).ModelStatistics(
                pb.ModelStatisticsRequest(name=model), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise BenchError(f"{address} gives no statistics of '{model}': {error.code().name}") from None
    batches: dict[int, int] = {}
    for row in reply.model_stats:
        for batch in row.batch_stats:
            batches[batch.batch_size] = batches.get(batch.batch_size, 0) + batch.compute_infer.count
    stats = [row.inference_stats for row in reply.model_stats]
    return Counters(
        sum(s.success.count for s in stats),
        sum(s.queue.ns for s in stats),
        batches,
    )
