"""Loads and unloads one model again and again, in a process of its own, and prints the resident memory after each cycle
in MiB. `--leak` keeps every batcher that was unloaded: the control of whoever judges the numbers."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

import psutil

from support.world import Seen
from turnout.backends.onnx import OnnxBackend, OnnxOptions
from turnout.backends.threads import ThreadExecutors, offload
from turnout.core.commands import Load, Unload
from turnout.core.ids import Revision
from turnout.core.model import Placement, Provider
from turnout.runtime.admin import Admin, AdminLimits
from turnout.runtime.budget import Budget
from turnout.runtime.jobs import SlotLimits
from turnout.runtime.opening import Opener
from turnout.runtime.operations import Wanted
from turnout.runtime.requests import Ask
from turnout.store import Repository
from turnout.store.memory_journal import MemoryJournal


async def cycle(repository: Path, model: str, cycles: int, leak: bool) -> None:
    loop = asyncio.get_running_loop()
    store = Repository(repository)
    opener = Opener(
        backend=OnnxBackend(OnnxOptions(Placement(Provider.CPU), 1, 1), None),
        new_executors=lambda name: ThreadExecutors(name, loop, time.monotonic_ns),
        limits=SlotLimits(1000, 1 << 30),
        budget=Budget(1 << 20, 1 << 40),
        clock_ns=time.monotonic_ns,
        offload=offload,
        observer=Seen(),
    )
    admin = Admin(opener, store, MemoryJournal(), time.time_ns, "run", AdminLimits())
    await admin.start([])
    kept: list[Any] = []
    memory = psutil.Process(os.getpid())
    for _ in range(cycles):
        ask = Ask("test")
        await admin.operations.load(model, Load("blue", Revision(model, 1, "", "")), Wanted(1), ask, wait=True)
        if leak:
            kept.append(admin.fleet.model(model).slots["blue"].cargo)
        await admin.operations.unload(model, Unload("blue"), ask, wait=True)
        print(memory.memory_info().rss / 2**20, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("cycles", type=int)
    parser.add_argument("--leak", action="store_true")
    options = parser.parse_args()
    asyncio.run(cycle(options.repository, options.model, options.cycles, options.leak))


if __name__ == "__main__":
    main()
