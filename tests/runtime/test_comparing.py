"""Pairs on their way through the thread that compares: in order, a few at a time, and no fault stops the rest."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.shadows import confused
from support.virtual import VirtualLoop, inline, virtual
from support.world import Seen
from turnout.core.copies import Pair
from turnout.core.pairs import PairDivergence, Result
from turnout.runtime.comparing import _CHUNK, _PATIENCE_S, Comparer, Comparison, digest_of
from turnout.runtime.under_way import UnderWay


class Desk:
    """A comparer, and what it has found: inference ids with results."""

    def __init__(self, offload: Callable[..., Any] = inline) -> None:
        self.seen = Seen()
        self.under_way = UnderWay()
        self.comparer = Comparer(offload, self.seen, self.under_way)
        self.found: list[tuple[str, Result | None]] = []

    def put(self, *ids: str, done: Callable[..., None] | None = None) -> None:
        for inference_id in ids:
            pair = confused(inference_id=inference_id).pair
            self.comparer.put(Comparison(pair, {}, True, done or self._done))

    def _done(self, pair: Pair, divergence: PairDivergence | None, digest: str) -> None:
        self.found.append((pair.copy.request.inference_id, divergence.result if divergence else None))


@virtual
async def test_in_order_and_a_few_at_a_time(loop: VirtualLoop) -> None:
    chunks: list[int] = []

    async def offload(blocking: Callable[..., Any], chunk: list[Comparison]) -> Any:
        chunks.append(len(chunk))
        await asyncio.sleep(1)
        return blocking(chunk)

    desk = Desk(offload)
    desk.put(*map(str, range(_CHUNK + 3)))
    await asyncio.sleep(0.5)
    desk.put("late")
    await asyncio.sleep(10)
    assert desk.found == [(str(number), Result.MISMATCH) for number in range(_CHUNK + 3)] + [("late", Result.MISMATCH)]
    assert chunks == [_CHUNK, 4]


@virtual
async def test_who_is_told_may_have_a_fault(loop: VirtualLoop) -> None:
    desk = Desk()

    def breaks(*_: object) -> None:
        raise RuntimeError("a bug")

    desk.put("1")
    desk.put("2", done=breaks)
    desk.put("3")
    await asyncio.sleep(1)
    desk.put("4")
    await asyncio.sleep(1)
    assert [inference_id for inference_id, _ in desk.found] == ["1", "3", "4"]
    assert [(method, id_) for method, id_, _ in desk.seen.handler_failures] == [("compare", "2")]


@virtual
async def test_there_may_be_no_thread_to_be_had(loop: VirtualLoop) -> None:
    refusals = iter([RuntimeError("can't start new thread")])

    async def offload(blocking: Callable[..., Any], *args: Any) -> Any:
        if (error := next(refusals, None)) is not None:
            raise error
        return blocking(*args)

    desk = Desk(offload)
    desk.put("1", "2")
    await asyncio.sleep(1)
    desk.put("3")
    await asyncio.sleep(1)
    assert desk.found == [("1", None), ("2", None), ("3", Result.MISMATCH)], "places are free again"


@virtual
async def test_a_stop_waits_for_what_is_being_compared_alone(loop: VirtualLoop) -> None:
    async def offload(blocking: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(1)
        return blocking(*args)

    desk = Desk(offload)
    desk.put(*map(str, range(3 * _CHUNK)))
    await asyncio.sleep(0.5)
    await desk.comparer.stop()
    assert len(desk.found) == _CHUNK


@virtual
async def test_live_requests_go_first(loop: VirtualLoop) -> None:
    desk = Desk()
    desk.under_way.begin()
    desk.put("1", "2")
    await asyncio.sleep(_PATIENCE_S / 2)
    assert desk.found == []
    desk.under_way.end()
    await asyncio.sleep(0.001)
    assert len(desk.found) == 2


@virtual
async def test_live_requests_without_a_pause_are_waited_for_in_vain(loop: VirtualLoop) -> None:
    desk = Desk()
    desk.under_way.begin()
    desk.put(*map(str, range(_CHUNK)))
    await asyncio.sleep(_PATIENCE_S + 0.001)
    assert len(desk.found) == _CHUNK, "all at once: there was no pause to be had"


@virtual
async def test_nothing_waits_once_many_have_gathered(loop: VirtualLoop) -> None:
    desk = Desk()
    desk.under_way.begin()
    desk.put(*map(str, range(_CHUNK + 1)))
    await asyncio.sleep(0.001)
    assert len(desk.found) == _CHUNK
    await asyncio.sleep(_PATIENCE_S)
    assert len(desk.found) == _CHUNK + 1


@virtual
async def test_a_live_request_waits_for_one_comparison(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[int] = []
    desk: Desk

    def comes_meanwhile(_: float) -> None:  # the comparing thread has just let go of the interpreter
        if not desk.under_way.count:
            desk.under_way.begin()
            loop.call_later(0.001, desk.under_way.end)

    async def offload(blocking: Callable[..., Any], chunk: list[Comparison]) -> Any:
        results = blocking(chunk)
        chunks.append(len(results))
        return results

    monkeypatch.setattr("turnout.runtime.comparing.time.sleep", comes_meanwhile)
    desk = Desk(offload)
    desk.put("1", "2", "3")
    await asyncio.sleep(1)
    assert chunks == [1, 1, 1]
    assert [inference_id for inference_id, _ in desk.found] == ["1", "2", "3"], "in order"


@virtual
async def test_counting_waits_for_live_requests_too(loop: VirtualLoop) -> None:
    async def offload(blocking: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0.001)
        results = blocking(*args)
        desk.under_way.begin()
        loop.call_later(0.004, desk.under_way.end)
        return results

    desk = Desk(offload)
    desk.put("1", "2")
    await asyncio.sleep(0.004)
    assert desk.found == []
    await asyncio.sleep(0.002)
    assert len(desk.found) == 2


@virtual
async def test_a_stop_forgets_what_was_left_for_a_live_request(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def offload(blocking: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(1)
        return blocking(*args)

    desk = Desk(offload)
    monkeypatch.setattr("turnout.runtime.comparing.time.sleep", lambda _: desk.under_way.begin())
    desk.put("1", "2", "3")
    await asyncio.sleep(0.5)
    await desk.comparer.stop()
    await asyncio.sleep(5)
    assert [inference_id for inference_id, _ in desk.found] == ["1"]


X = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize(
    "other",
    [
        {"y": X},
        {"x": X.reshape(2, 2)},
        {"x": X.view(np.int32)},
        {"x": X + 1},
        {"x": X, "y": X},
        {},
    ],
)
def test_the_digest_of_inputs_tells_requests_apart(other: dict[str, Any]) -> None:
    assert digest_of({"x": X}) != digest_of(other)
    assert digest_of({"x": X, "y": X}) == digest_of({"y": X.copy(), "x": X.copy()})


def test_the_digest_of_texts() -> None:
    def texts(*given: object) -> dict[str, Any]:
        return {"x": np.array(given, object)}

    assert digest_of(texts(b"a", b"bc")) != digest_of(texts(b"ab", b"c"))
    assert digest_of(texts(b"a")) == digest_of(texts(b"a"))
    assert digest_of(texts(b"a\0", b"")) != digest_of(texts(b"a", b"\0"))
    assert digest_of(texts("ä", "\ud800")) == digest_of(texts("ä".encode(), b"\xed\xa0\x80")), "the same on the wire"


def test_the_digest_of_many_texts_lets_others_have_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("turnout.runtime.comparing.time.sleep", pauses.append)
    digest_of({"x": np.full((3, 70_000), b"a", object)})
    assert pauses == [0, 0, 0]


def test_another_process_has_other_digests() -> None:
    """Whoever reads one cannot try all inputs of a small space: the key is known to the process alone."""
    program = (
        "import numpy as np; from turnout.runtime.comparing import digest_of; print(digest_of({'x': np.zeros(1)}))"
    )
    command = [sys.executable, "-c", program]
    other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert len(other) == 16
    assert other != digest_of({"x": np.zeros(1)})
