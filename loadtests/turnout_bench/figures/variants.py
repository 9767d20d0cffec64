"""int8 against fp32 of the same version, made by `turnout quantize`: how far they agree, how much smaller the file is,
and how many more answers per second the whole server gives at saturation. Both are served by one process.

What int8 gains is the processor's: with VNNI it multiplies four times as many 8-bit numbers per instruction as floats.
Its flags stand beside each value, and the ratio of throughputs has a target only where it has VNNI.
"""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from turnout.variants import machine
from turnout_bench import loops
from turnout_bench.bench import Bench
from turnout_bench.callers import caller
from turnout_bench.figures.figure import Figure, Measured, doubts, medians, raw
from turnout_bench.processes import Child, server_arguments
from turnout_bench.ratios import estimate, paired
from turnout_bench.results import BenchError, Run
from turnout_bench.samples import Sample, reference_samples
from turnout_wire.tensors import Array
from zoo import cnn, networks
from zoo.samples import DIGITS, heldout

VERSIONS = {"digits": DIGITS / "2", "digits_cnn": cnn.FOLDER / "1"}  # the others are networks of the zoo
CLIENTS = {"digits": 64, "digits_cnn": 64, "mlp_big": 32, "resnet50": 4}  # with which throughput no longer grows
HELDOUT_ROWS = 2000
NETWORK_ROWS = 64
_QUANTIZE_S_MAX = 600
_HAS_VNNI = not machine.reduces_range(machine.read())


async def _agreement(model: str, bench: Bench) -> Measured:
    report = await _report(bench, model)
    outputs = {each["name"]: each for each in report["outputs"]}
    shares = [each["top1_agreement"] for each in outputs.values() if each["top1_agreement"] is not None]
    return Measured(estimate([min(shares)]), _about(report), outputs)


async def _size(model: str, bench: Bench) -> Measured:
    report = await _report(bench, model)
    ratio = report["source_bytes"] / report["result_bytes"]
    sizes = {"fp32_bytes": report["source_bytes"], "int8_bytes": report["result_bytes"]}
    return Measured(estimate([ratio]), {**sizes, **_about(report)}, report)


async def _throughput(model: str, bench: Bench) -> Measured:
    report = await _report(bench, model)
    server = await _server(bench, model)
    contestants = {name: functools.partial(_closed, bench, server, model, name) for name in ("fp32", "int8")}
    runs = await bench.rounds(contestants)
    ratios = paired([run.per_second for run in runs["int8"]], [run.per_second for run in runs["fp32"]])
    absolute = {**medians(runs), "clients": CLIENTS[model], **_about(report)}
    return Measured(estimate(ratios), absolute, {"ratios": ratios, **raw(runs)}, doubts(runs))


async def _report(bench: Bench, model: str) -> dict[str, Any]:
    """Of the int8 variant, which is made when it is first asked for."""
    report: dict[str, Any] = await bench.once(f"int8 {model}", lambda: asyncio.to_thread(_quantize, bench, model))
    return report


def _quantize(bench: Bench, model: str) -> dict[str, Any]:
    """Through the command, with calibration and judging samples apart; the networks' answers mean nothing, so theirs
    are forced."""
    root = bench.folder / "variants"
    version = root / "made" / model / "1"
    calibration, judged = root / f"{model}-calibration.npz", root / f"{model}-judged.npz"
    if model in VERSIONS:
        shutil.copytree(VERSIONS[model], version)
        shutil.copy(version / "golden.npz", calibration)
        _save(judged, {"image": heldout(HELDOUT_ROWS)[0]})
    else:
        networks.write(model, root / "made")
        for file, seed in ((calibration, 1), (judged, 2)):
            _save(file, networks.inputs(model, NETWORK_ROWS, seed))
    command = [sys.executable, "-m", "turnout.cli", "quantize", f"{model}/1", "--json", "--force", "--provider=cpu"]
    command += [f"--model-repository={root / 'made'}", f"--calibration={calibration}", f"--samples={judged}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_QUANTIZE_S_MAX, check=False)
    if not done.stdout:
        raise BenchError(f"turnout quantize failed with {done.returncode}: {done.stderr[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _save(file: Path, inputs: Mapping[str, Array]) -> None:
    arrays: dict[str, Any] = {f"input.{name}": array for name, array in inputs.items()}
    np.savez(file, **arrays)


async def _server(bench: Bench, model: str) -> Child:
    """One server with both as models of their own, so that nothing but the file differs."""

    def arguments() -> list[str]:
        served, made = bench.folder / "variants" / f"served-{model}", bench.folder / "variants" / "made" / model / "1"
        for name in ("fp32", "int8"):
            (served / name / "1").mkdir(parents=True)
            (served / name / "config.pbtxt").write_text(networks.CONFIG)
            shutil.copy(_file(made, name), served / name / "1" / "model.onnx")
        return server_arguments(served)

    return await bench.child(f"turnout, int8 {model}", arguments)


def _file(version: Path, name: str) -> Path:
    return version / ("model.onnx" if name == "fp32" else "model.int8.onnx")


async def _closed(bench: Bench, server: Child, model: str, name: str) -> Run:
    file = _file(bench.folder / "variants" / "made" / model / "1", name)
    samples: list[Sample] = await bench.once(f"samples {model} {name}", lambda: _samples(name, file))
    async with caller("unary", server.address, samples, check_every=1) as calling:
        run = await loops.closed_loop(
            calling,
            CLIENTS[model],
            seconds=bench.plan.seconds,
            warmup_s=bench.plan.warmup_s,
            cpu_s=server.cpu_s,
        )
    return run.refuse_failures(f"{server.name}, {name}")


async def _samples(name: str, file: Path) -> list[Sample]:
    """Requests with their answers; those of int8 are not known to the last step, which another batch size may round
    to the other side: its agreement is a figure of its own."""
    made = await asyncio.to_thread(reference_samples, name, file)
    return made if name == "fp32" else [Sample(each.head, each.tail, {}) for each in made]


def _about(report: dict[str, Any]) -> dict[str, Any]:
    kept = ("cpu", "flags")
    rows = {"judged_rows": report["samples"]["rows"], "calibration_rows": report["recipe"]["calibration_rows"]}
    return {
        **{name: report["machine"][name] for name in kept},
        **rows,
        "reduce_range": report["recipe"]["reduce_range"],
    }


_MEASURES = {"agreement": _agreement, "size_ratio": _size, "throughput_ratio": _throughput}
_WHAT = {
    "agreement": "share of rows with the same class in int8 as in fp32",
    "size_ratio": "bytes of the fp32 model over those of its int8 variant",
    "throughput_ratio": "answers per second of int8 over those of fp32, at saturation",
}
_LARGE = ("mlp_big", "resnet50")  # of random weights: that they agree would say nothing


def _target(what: str, model: str) -> float | None:
    match what:
        case "agreement":
            return 0.99
        case "size_ratio":
            return 3.5 if model in _LARGE else None
        case _:
            return 1.5 if model in _LARGE and _HAS_VNNI else None


FIGURES = tuple(
    Figure(
        f"int8_{what}_{model}",
        f"{_WHAT[what]}: {model}",
        "higher",
        _target(what, model),
        functools.partial(measure, model),
    )
    for model in CLIENTS
    for what, measure in _MEASURES.items()
    if not (what == "agreement" and model in _LARGE)
)
