"""What is read of a runtime on virtual time: every instrument, with the attributes that it names."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.control import Control, FlakyJournal
from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import ServingError
from turnout.core.sketch import Sketch
from turnout.core.tracing import TraceContext
from turnout.runtime.jobs import SlotLimits
from turnout.telemetry import instruments as i
from turnout.telemetry import triton
from turnout.telemetry.gpu import GpuReadings
from turnout.telemetry.instruments import INSTRUMENTS, Instrument, Kind
from turnout.telemetry.process import ProcessReadings
from turnout.telemetry.readings import Distribution, Reading, Readings, ServingReadings, Value, sketched
from turnout.telemetry.server_readings import CallReadings, LoopLag, ServerReadings

MS = 1_000_000
BLUE = ("m", "blue", "m/1")


def points(readings: list[Reading], instrument: Instrument) -> dict[Any, Any]:
    """Values, or counts, by attributes."""
    (reading,) = [reading for reading in readings if reading.instrument is instrument]
    return {p.attributes: p.value if isinstance(p, Value) else sum(n for _, n in p.counts) for p in reading.points}


async def world_of(loop: VirtualLoop, queue_rows_max: int = 1000) -> tuple[World, Readings, SyntheticModel]:
    model = SyntheticModel(DECLARED, poison=13)
    world = await World.open(loop, {"m": model}, limits=SlotLimits(queue_rows_max, 1 << 30))
    model.wait = lambda rows: world.clock.spend(10 * MS)
    sources = [
        ServingReadings(world.fleet, world.accounts, queue_rows_max),
        triton.TritonReadings(world.fleet, world.accounts),
    ]
    return world, Readings(sources), model


@virtual
async def test_requests_and_batches(loop: VirtualLoop) -> None:
    world, readings, _ = await world_of(loop)
    world.infer(request(rows=2))
    await world.after(0.001)
    for _ in range(3):
        world.infer(request())
    world.infer(request(version=1))
    taken = readings.take()
    assert points(taken, i.QUEUE_DEPTH) == {BLUE: 4}
    assert points(taken, i.REQUEST_ACTIVE) == {BLUE: 5}
    await world.after(1)
    taken = readings.take()
    assert points(taken, i.REQUEST_DURATION) == {(*BLUE, "success", False): 4, (*BLUE, "success", True): 1}
    assert points(taken, i.QUEUE_DURATION) == {(*BLUE, False): 4, (*BLUE, True): 1}
    assert points(taken, i.REQUEST_ROWS) == {BLUE: 6}
    assert points(taken, i.BATCH_SIZE) == {BLUE: 2}
    assert points(taken, i.EXECUTION_DURATION) == {BLUE: 2}
    assert points(taken, i.BATCH_LIMIT) == {BLUE: 8}
    assert points(taken, i.QUEUE_LIMIT) == {(): 1000}
    stages = points(taken, i.STAGE_TIME)
    assert stages[*BLUE, "compute_infer"] == pytest.approx(0.05)
    assert stages[*BLUE, "queue"] == pytest.approx(4 * 0.009, rel=1e-3)


@virtual
async def test_the_last_traced_request_of_a_bucket(loop: VirtualLoop) -> None:
    world, readings, _ = await world_of(loop)
    for number in (1, 2):
        world.infer(request(trace=TraceContext(number, 7)))
        await world.after(1)
    world.infer(request())
    await world.after(1)
    (reading,) = [reading for reading in readings.take() if reading.instrument is i.REQUEST_DURATION]
    (distribution,) = reading.points
    assert isinstance(distribution, Distribution)
    (exemplar,) = distribution.exemplars
    assert (exemplar.trace.trace_id, exemplar.duration_ns) == (2, 10 * MS)
    assert exemplar.ended_ns == pytest.approx(world.clock() - 2 * 10**9 + 10 * MS, abs=MS)


@virtual
async def test_how_requests_ended(loop: VirtualLoop) -> None:
    world, readings, _ = await world_of(loop, queue_rows_max=2)
    world.infer(request(13.0))
    await world.after(1)
    gone = world.infer(request())
    assert gone.ticket is not None
    gone.ticket.cancel()
    world.infer(request(deadline_ns=world.clock() + MS))
    await world.after(0.001)
    for _ in range(2):
        world.infer(request())
    with pytest.raises(ServingError):
        world.infer(request())
    await world.after(1)
    taken = readings.take()
    ended = {key[3]: count for key, count in points(taken, i.REQUEST_DURATION).items()}
    assert ended == {"success": 3, "failed": 1, "cancelled": 1, "rejected": 1}
    failures = points(taken, triton.FAILURE)
    assert failures == {("m", "1", r): n for r, n in {"REJECTED": 1, "CANCELED": 1, "BACKEND": 1, "OTHER": 0}.items()}
    assert points(taken, triton.SUCCESS) == {("m", "1"): 3}
    assert points(taken, triton.COUNT) == {("m", "1"): 3}
    assert points(taken, triton.FIRST_RESPONSE) == {("m", "1"): 3}
    (responses,) = [reading for reading in taken if reading.instrument is triton.FIRST_RESPONSE]
    (distribution,) = responses.points
    assert isinstance(distribution, Distribution)
    assert all(5 < ms < 30 for ms, _ in distribution.counts)


@virtual
async def test_slots_weights_and_changes(loop: VirtualLoop) -> None:
    control = await Control.open(loop, pause_s=0.5)
    admin = control.admin
    readings = Readings([
        ServingReadings(admin.fleet, admin.controller.works.opener.accounts, 5),
        ServerReadings(admin.counts, admin.controller.health, lambda: True),
        CallReadings(lambda: (3, 7)),
    ])  # fmt: skip
    await control.load("green", 2)
    await control.weights(blue=9_000, green=1_000)
    control.infer()
    await asyncio.sleep(1)
    taken = readings.take()
    assert points(taken, i.ROUTE_WEIGHT) == {
        ("m", "blue", "desired"): 0.9,
        ("m", "green", "desired"): 0.1,
        ("m", "blue", "actual"): 0.0,
        ("m", "green", "actual"): 1.0,
    }
    states = points(taken, i.SLOT_STATE)
    assert [key for key, value in states.items() if value] == [("m", "blue", "READY"), ("m", "green", "READY")]
    assert len(states) == 12
    transitions = points(taken, i.SLOT_TRANSITIONS)
    assert transitions == {("m", s, to): 1 for s in ("blue", "green") for to in ("LOADING", "WARMING", "READY")}
    await control.swap("green")
    await control.roll_back()
    taken = readings.take()
    (moves,) = [reading for reading in taken if reading.instrument is i.SWAP_DURATION]
    assert {p.attributes: round(p.total, 3) for p in moves.points if isinstance(p, Distribution)} == {
        ("m", "weights"): 0.5,
        ("m", "swap"): 0.5,
        ("m", "rollback"): 0.0,
    }
    assert points(taken, i.CALL_ACTIVE) == {(): 3}
    assert points(taken, i.ANSWER_UNREAD) == {(): 7}
    assert points(taken, i.SERVER_READY) == {(): 1}
    assert points(taken, i.MODEL_HEALTH)["m", "HEALTHY"] == 1


@virtual
async def test_a_journal_that_fails_is_counted_and_degrades_the_model(loop: VirtualLoop) -> None:
    journal = FlakyJournal()
    control = await Control.open(loop, journal=journal)
    readings = Readings([ServerReadings(control.admin.counts, control.controller.health, lambda: True)])
    await control.load("green", 2)
    assert points(readings.take(), i.JOURNAL_FAILURES) == {(): 0}
    journal.broken = True
    with pytest.raises(Exception, match="journal"):
        await control.swap("green")
    taken = readings.take()
    assert points(taken, i.JOURNAL_FAILURES)[()] >= 1
    assert points(taken, i.MODEL_HEALTH) == {("m", "HEALTHY"): 0, ("m", "PROGRESSING"): 0, ("m", "DEGRADED"): 1}
    for name, health in control.controller.health():
        assert health is control.controller.view(name).health
    assert points(taken, i.SWAP_DURATION) == {}, "nothing was moved"


@virtual
async def test_the_loop_s_delay(loop: VirtualLoop) -> None:
    lag = LoopLag()
    readings = Readings([lag])
    lag.start()
    await asyncio.sleep(1.05)
    assert points(readings.take(), i.LOOP_LAG) == {(): 10}
    assert points(readings.take(), i.LOOP_LAG_MAX)[()] == pytest.approx(0, abs=1e-6)
    loop.now_s += 0.75  # as if a callback had taken so long
    await asyncio.sleep(0.5)
    assert points(readings.take(), i.LOOP_LAG_MAX)[()] == pytest.approx(0.7, abs=0.011)
    await asyncio.sleep(61)
    assert points(readings.take(), i.LOOP_LAG_MAX)[()] == pytest.approx(0, abs=1e-6)
    lag.stop()
    before = points(readings.take(), i.LOOP_LAG)
    await asyncio.sleep(1)
    assert points(readings.take(), i.LOOP_LAG) == before


def test_what_is_read_stays_as_it_was() -> None:
    sketch = Sketch()
    sketch.observe(MS)
    taken = sketched((), sketch, MS)
    sketch.observe(MS)
    assert [count for _, count in taken.counts] == [1]


@given(st.lists(st.integers(1, 20_000 * MS), max_size=50))
def test_buckets_hold_everything_within_the_sketch_s_error(durations: list[int]) -> None:
    sketch = Sketch()
    for ns in durations:
        sketch.observe(ns)
    found = Distribution((), sketch, 0.0).buckets(i.SECONDS)
    assert len(found) == len(i.SECONDS) + 1
    assert sum(found) == len(durations)
    below = 0
    for bound, count in zip(i.SECONDS, found, strict=False):
        below += count
        assert sum(ns * 1e-9 * 1.011 <= bound for ns in durations) <= below
        assert below <= sum(ns * 1e-9 / 1.011 <= bound for ns in durations)


def test_the_process(tmp_path: Path) -> None:
    gc.collect()
    readings = Readings([], [ProcessReadings(0)])
    assert readings.take() == []
    taken = readings.take_slow()
    assert points(taken, i.CPU_TIME)["user",] > 0
    assert 10e6 < points(taken, i.MEMORY_USAGE)[()] < 100e9
    assert 2 < points(taken, i.FILE_DESCRIPTORS)[()] < 10_000
    assert 1 <= points(taken, i.THREADS)[()] < 1000
    assert points(taken, i.UPTIME)[()] > 0
    assert points(taken, i.GC_COLLECTIONS)["2",] >= 1
    elsewhere = {reading.instrument for reading in ProcessReadings(0, tmp_path)()}
    assert elsewhere == {i.CPU_TIME, i.UPTIME, i.GC_COLLECTIONS}


def test_fields_of_proc_are_found_whatever_the_command_is_called(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(f"1 (a ) 9 b) S {' '.join(str(number) for number in range(4, 53))}")
    (tmp_path / "statm").write_text("100 50 1 1 0 1 0")
    (tmp_path / "fd").mkdir()
    (tmp_path / "fd" / "0").touch()
    taken = list(ProcessReadings(0, tmp_path)())
    assert points(taken, i.THREADS) == {(): 20}, "num_threads is field 20 of proc(5)"
    assert points(taken, i.FILE_DESCRIPTORS) == {(): 1}


class FakeNvml:
    """As much of nvidia-ml-py as is used, around two GPUs: the second tells no utilisation (MIG) and may be lost."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.driver = True
        self.lost = False

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("driver not loaded")

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.1"  # older ones of the package answer bytes

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H200"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=40, memory=5)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        if handle == 1 and self.lost:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=25, total=100)


def test_gpus() -> None:
    nvml = FakeNvml()
    gpus = GpuReadings.of(nvml)
    assert gpus is not None
    first, second = (("GPU-0", "H200", "NVIDIA", "580.1"), ("GPU-1", "H200", "NVIDIA", "580.1"))
    taken = list(gpus())
    assert points(taken, i.GPU_UTILIZATION) == {first: 0.4}
    assert points(taken, i.GPU_MEMORY_USAGE) == {first: 25, second: 25}
    assert points(taken, i.GPU_MEMORY_LIMIT) == {first: 100, second: 100}
    assert points(taken, i.GPU_MEMORY_UTILIZATION) == {first: 0.25, second: 0.25}
    nvml.lost = True
    assert points(list(gpus()), i.GPU_MEMORY_USAGE) == {first: 25}
    nvml.driver = False
    assert GpuReadings.of(nvml) is None


def test_the_table_names_everything_once() -> None:
    every = (*INSTRUMENTS, *triton.TRITON_INSTRUMENTS)
    assert len({each.name for each in every}) == len({each.prometheus for each in every}) == len(every)
    listed = {each for name, each in vars(i).items() if isinstance(each, Instrument)}
    assert listed == set(INSTRUMENTS)
    for each in every:
        assert bool(each.bounds) == (each.kind is Kind.HISTOGRAM), each.name
        assert list(each.bounds) == sorted(set(each.bounds)), each.name
        assert each.meaning.endswith("."), each.name
    assert all(each.foreign for each in triton.TRITON_INSTRUMENTS)
    assert i.REQUEST_DURATION.prometheus == "turnout_request_duration_seconds"
    assert i.ROUTE_WEIGHT.prometheus == "turnout_route_weight_ratio"
    assert i.CPU_TIME.prometheus == "process_cpu_time_seconds_total"
