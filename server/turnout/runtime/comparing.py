"""Compares pairs of answers in a thread, a few at a time, in the order in which they came.

Comparing is plain Python around numpy: it needs the interpreter that live requests need, at each of their steps. So it
begins when none is under way and ends with the pair at which one comes, which waits for this one comparison and for no
other. That is for servers with pauses: where more than a few pairs have gathered, nothing waits any longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from secrets import token_bytes

from turnout.core.comparators import Comparator, Precision
from turnout.core.copies import Pair
from turnout.core.divergence import compare
from turnout.core.pairs import PairDivergence
from turnout.core.tensors import Tensors
from turnout.runtime.ports import Observer, Offload
from turnout.runtime.under_way import UnderWay

_CHUNK = 32
_PATIENCE_S = 0.05  # with live requests, for each chunk
_ELEMENTS = 65_536  # of BYTES, after which others get the interpreter
_KEY = token_bytes(32)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be compared, and how. `done` is called on the loop thread, with a digest of the request's inputs; with
    None where comparing failed. `precision`: of the coarser of both sides."""

    pair: Pair
    comparators: Mapping[str, Sequence[Comparator]]
    batched: bool
    done: Callable[[Pair, PairDivergence | None, str], None]
    precision: Precision = Precision.SINGLE


class Comparer:
    """Used on the loop thread only. Bounded by those who put pairs in: each holds its place in a lane until `done`."""

    def __init__(self, offload: Offload, observer: Observer, under_way: UnderWay) -> None:
        self._offload = offload
        self._observer = observer
        self._under_way = under_way
        self._stopped = False
        self._waiting: deque[Comparison] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, comparison: Comparison) -> None:
        self._waiting.append(comparison)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """What waits is forgotten; what is being compared is waited for."""
        self._stopped = True
        self._waiting.clear()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            behind = len(self._waiting) > _CHUNK
            until_s = loop.time() if behind else loop.time() + _PATIENCE_S
            quiet = await self._under_way.pause(until_s)
            chunk = [self._waiting.popleft() for _ in range(min(_CHUNK, len(self._waiting)))]
            try:
                results = await self._offload(partial(_compare_some, heeded=self._under_way if quiet else None), chunk)
            except Exception as error:  # noqa: BLE001 - there is no thread to be had, say: those to come may fare better
                results = [error] * len(chunk)
            if not self._stopped:
                self._waiting.extendleft(reversed(chunk[len(results) :]))
            for comparison, result in zip(chunk, results, strict=False):
                await self._under_way.pause(until_s)  # counting a pair takes time too
                self._end(comparison, result)
        self._task = None

    def _end(self, comparison: Comparison, result: tuple[PairDivergence, str] | Exception) -> None:
        inference_id = comparison.pair.copy.request.inference_id
        try:
            if isinstance(result, Exception):
                self._observer.handler_failed("compare", inference_id, result)
                comparison.done(comparison.pair, None, "")
            else:
                comparison.done(comparison.pair, *result)
        except Exception as error:  # noqa: BLE001 - whoever is told has a fault: the others are compared all the same
            self._observer.handler_failed("compare", inference_id, error)


def _compare_some(chunk: Sequence[Comparison], heeded: UnderWay | None) -> list[tuple[PairDivergence, str] | Exception]:
    """In order, at least one: until a live request that is heeded comes."""
    results: list[tuple[PairDivergence, str] | Exception] = []
    for comparison in chunk:
        if results and heeded is not None and heeded.count:
            break
        try:
            results.append((_compare(comparison), digest_of(comparison.pair.copy.request.inputs)))
        except Exception as error:  # noqa: BLE001 - of one pair: the others are compared all the same
            results.append(error)
        time.sleep(0)
    return results


def _compare(comparison: Comparison) -> PairDivergence:
    live, shadow = comparison.pair.copy.live, comparison.pair.shadow
    return compare(
        live.outputs,
        shadow.outputs,
        comparison.comparators,
        precision=comparison.precision,
        batched=comparison.batched,
    )


def digest_of(inputs: Tensors) -> str:
    """Equal where a request is repeated while this process lives: of names, datatypes, shapes and elements. Without its
    key nobody can find out inputs of which there are few by trying them all."""
    digest = blake2b(digest_size=8, key=_KEY)
    for name, array in sorted(inputs.items()):
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode(errors="surrogatepass"))
        if array.dtype.kind != "O":
            digest.update(array.tobytes())
            continue
        for number, each in enumerate(array.flat, 1):
            element = each if isinstance(each, bytes) else str(each).encode(errors="surrogatepass")
            digest.update(len(element).to_bytes(8) + element)
            if number % _ELEMENTS == 0:
                time.sleep(0)
    return digest.hexdigest()
