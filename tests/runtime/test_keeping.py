"""Pairs on their way to a disk: one at a time, bounded, and whatever the disk does, nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from support.shadows import compared, confused, side, told
from support.virtual import VirtualLoop, virtual
from support.world import Seen
from turnout.core.errors import Reason
from turnout.core.records import Compared
from turnout.core.sampling import Export
from turnout.core.tensors import Tensors
from turnout.runtime import keeping
from turnout.runtime.keeping import NAME, Keeper


@dataclass
class Disk:
    """The Archive port, and a thread that takes `wait_s` to write; what is in `failing` is refused.

    Attributes:
        room: whether an archive is small enough at all.
    """

    wait_s: float = 1.0
    failing: set[int] = field(default_factory=set)
    room: bool = True
    names: list[str] = field(default_factory=list)
    tensors: list[Mapping[str, Tensors]] = field(default_factory=list)
    about: list[Mapping[str, object]] = field(default_factory=list)
    writing: int = 0

    def keep(self, name: str, tensors: Mapping[str, Tensors], about: Mapping[str, object]) -> bool:
        self.names.append(name)
        if len(self.names) in self.failing:
            raise OSError(28, "No space left on device", "/a/path/of/the/server")
        self.tensors.append(tensors)
        self.about.append(about)
        return self.room

    async def offload(self, blocking: Callable[..., Any], *args: Any) -> Any:
        self.writing += 1
        assert self.writing == 1, "one thread at a time"
        await asyncio.sleep(self.wait_s)
        self.writing -= 1
        return blocking(*args)


def keeper_of(disk: Disk) -> tuple[Keeper, Seen]:
    seen = Seen()
    return Keeper(disk, disk.offload, seen), seen


def pair(number: int, size: int = 100) -> Export[Compared]:
    record = confused(inference_id=f"id-{number}")
    return told(replace(record, pair=replace(record.pair, copy=replace(record.pair.copy, bytes=size))))


@virtual
async def test_a_pair_is_written_with_all_that_is_told_of_it(loop: VirtualLoop) -> None:
    disk = Disk()
    keeper, seen = keeper_of(disk)
    name = keeper.keep(pair(1))
    assert disk.names == [], "off the loop"
    await asyncio.sleep(1.5)
    assert disk.names == [name]
    assert name.startswith("turnout-m-green-1700000000000000000-")
    (tensors,), (about,) = disk.tensors, disk.about
    np.testing.assert_array_equal(tensors["input"]["x"], np.full((1, 4), 1.5))
    np.testing.assert_array_equal(tensors["live"]["p"], [[0.75, 0.25]])
    np.testing.assert_array_equal(tensors["shadow"]["p"], [[0.125, 0.875]])
    assert (about["turnout.inference.id"], about["turnout.comparison.result"]) == ("id-1", "mismatch")
    assert seen.notices == []


@virtual
async def test_a_side_that_failed_has_no_tensors(loop: VirtualLoop) -> None:
    disk = Disk()
    keeper, _ = keeper_of(disk)
    live = side("blue", 1, {"p": np.zeros((1, 2), np.float32)})
    keeper.keep(told(compared(live, side("green", 2, None, reason=Reason.EXECUTION_FAILED))))
    await asyncio.sleep(2)
    assert disk.tensors[0]["shadow"] == {}
    assert disk.about[0]["error.type"] == "execution_failed", "OpenTelemetry's names have no prefix of ours"


@virtual
async def test_names_tell_pairs_apart_and_hold_nothing_of_a_client(loop: VirtualLoop) -> None:
    keeper, _ = keeper_of(Disk())
    names = {keeper.keep(told(confused(inference_id=id_))) for id_ in ("../../etc", "\ud800", "a\0b", "x" * 4000)}
    assert len(names) == 4
    assert all(len(name) < 64 and name.replace("-", "").isalnum() for name in names)
    other = keeper.keep(told(confused("v-2", "m.1_x-y")))
    assert all(NAME.fullmatch(name) for name in (*names, other)), "or they would never be deleted"


@virtual
async def test_a_disk_that_fails_costs_the_pair_and_no_more(loop: VirtualLoop) -> None:
    disk = Disk(failing={1, 3})
    keeper, seen = keeper_of(disk)
    names = [keeper.keep(pair(number)) for number in range(4)]
    await asyncio.sleep(10)
    assert disk.names == names
    assert [about["turnout.inference.id"] for about in disk.about] == ["id-1", "id-3"]
    assert seen.notices == [f"the pair '{names[place]}' could not be kept: OSError" for place in (0, 2)]
    assert keeper.keep(pair(4))
    await asyncio.sleep(2)
    assert len(disk.names) == 5


@virtual
async def test_a_pair_that_is_too_large_is_noticed(loop: VirtualLoop) -> None:
    disk = Disk(room=False)
    keeper, seen = keeper_of(disk)
    name = keeper.keep(pair(1))
    await asyncio.sleep(2)
    (notice,) = seen.notices
    assert name in notice and "--shadow-capture-bytes-max" in notice


@virtual
async def test_a_disk_that_hangs_holds_a_bounded_number(loop: VirtualLoop) -> None:
    disk = Disk(wait_s=10**6)
    keeper, _ = keeper_of(disk)
    keeper.keep(pair(0))
    await asyncio.sleep(1)
    names = [keeper.keep(pair(number)) for number in range(1, 200)]
    assert all(names[: keeping._WAITING_MAX])
    assert not any(names[keeping._WAITING_MAX :]), "they are told without a place"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(keeper.stop(), 0.5)


@virtual
async def test_what_waits_is_bounded_in_bytes_too(loop: VirtualLoop) -> None:
    disk = Disk()
    keeper, _ = keeper_of(disk)
    half = keeping._BYTES_MAX // 2
    for _ in range(3):
        assert [bool(keeper.keep(pair(number, half))) for number in range(4)] == [True, True, False, False]
        await asyncio.sleep(10)  # what has been written makes room


@virtual
async def test_a_stop_waits_for_what_is_being_written_alone(loop: VirtualLoop) -> None:
    disk = Disk()
    keeper, _ = keeper_of(disk)
    names = [keeper.keep(pair(number)) for number in range(5)]
    await asyncio.sleep(0.5)
    await keeper.stop()
    assert disk.names == names[:1]
