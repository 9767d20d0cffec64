"""Keeps the tensors of pairs that differ, off the loop and a bounded number at a time. Off unless a folder is given."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

from turnout.core.records import Compared, comparison_fields, qualified
from turnout.core.sampling import Export
from turnout.core.tensors import Tensors
from turnout.runtime.ports import Observer, Offload

NAME = re.compile(r"turnout-[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9]+-[0-9a-f]{12}")  # of a pair that is kept
_WAITING_MAX = 64
_BYTES_MAX = 64 << 20  # of tensors that wait, beside the pair that is being written


class Archive(Protocol):
    def keep(self, name: str, tensors: Mapping[str, Tensors], about: Mapping[str, object]) -> bool:
        """Write one pair; blocks; called by one thread at a time. False: it is too large.

        Raises:
            OSError: it cannot be written.
        """


class Keeper:
    """The PairStore port. Used on the loop thread only."""

    def __init__(self, archive: Archive, offload: Offload, observer: Observer) -> None:
        self._archive = archive
        self._offload = offload
        self._observer = observer
        self._waiting: list[tuple[str, Export[Compared]]] = []
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def keep(self, told: Export[Compared]) -> str:
        pair = told.record.pair
        if len(self._waiting) >= _WAITING_MAX or self._bytes + pair.copy.bytes > _BYTES_MAX:
            return ""
        self._bytes += pair.copy.bytes
        which = blake2b(pair.copy.request.inference_id.encode(errors="surrogatepass"), digest_size=6).hexdigest()
        name = f"turnout-{pair.copy.request.model}-{pair.shadow.slot}-{told.record.time_ns}-{which}"
        self._waiting.append((name, told))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return name

    async def stop(self) -> None:
        """What is being written is waited for; what waits is forgotten."""
        self._waiting.clear()
        self._bytes = 0
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._waiting:
            name, told = self._waiting.pop(0)
            pair = told.record.pair
            self._bytes -= pair.copy.bytes
            tensors = {
                "input": pair.copy.request.inputs,
                "live": pair.copy.live.outputs or {},
                "shadow": pair.shadow.outputs or {},
            }
            about = qualified(comparison_fields(told))
            try:
                if not await self._offload(self._archive.keep, name, tensors, about):
                    self._observer.noticed(
                        f"the pair '{name}' is larger than all that may be kept: raise --shadow-capture-bytes-max"
                    )
            except Exception as error:  # noqa: BLE001 - a full disk, say: shadowing goes on
                self._observer.noticed(f"the pair '{name}' could not be kept: {type(error).__name__}")
        self._task = None
