"""A load generator for any server of the Open Inference Protocol over gRPC.

open    sends by a schedule that is fixed beforehand; latency counts from when a request was due, so a server that
        stalls cannot hide it. The generator's own lag is reported, and a run that it spoils is refused.
closed  a number of clients, each of which waits for its answer: the most a server can do.
sweep   open-loop runs at several rates, and a report of one HTML page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop
from rich.console import Console

from turnout_bench import loops, report
from turnout_bench.callers import CHANNEL_OPTIONS, caller
from turnout_bench.machine import machine, versions
from turnout_bench.results import BenchError, Run, print_run
from turnout_bench.samples import Sample, declared_samples, frame_sample, reference_samples
from turnout_bench.schedules import ScheduleError, arrivals
from turnout_bench.sweep import open_point
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub
from zoo import networks

_FAILED, _UNUSABLE, _VOID = 1, 2, 3
_TIMEOUT_S = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 1 answers were wrong or failed, 2 wrong use, 3 the run is void."""
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=True)
    try:
        status: int = uvloop.run(options.run(options, console))
        return status
    except (ScheduleError, ValueError, OSError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return _UNUSABLE
    except BenchError as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return _FAILED


async def _open(options: argparse.Namespace, console: Console) -> int:
    schedule = arrivals(options.arrivals, options.rate, options.seconds, options.seed)
    samples = await _samples(options, console)
    async with caller(options.mode, options.target, samples, options.check_every) as calling:
        run = await loops.open_loop(calling, schedule, seconds=options.seconds, warmup_s=options.warmup)
    return _finish(run, options, console)


async def _closed(options: argparse.Namespace, console: Console) -> int:
    samples = await _samples(options, console)
    async with caller(options.mode, options.target, samples, options.check_every) as calling:
        run = await loops.closed_loop(calling, options.clients, seconds=options.seconds, warmup_s=options.warmup)
    return _finish(run, options, console)


async def _sweep(options: argparse.Namespace, console: Console) -> int:
    samples = await _samples(options, console)
    points: list[dict[str, Any]] = []
    status = 0
    for rate in options.rates:
        schedule = arrivals(options.arrivals, rate, options.seconds, options.seed)
        model, check_every = options.model, options.check_every
        point = await open_point(options.target, model, samples, schedule, options.seconds, options.mode, check_every)
        print_run(point.run, console)
        status = max(status, _status(point.run))
        points.append(point.as_json())
    document = {"title": f"{options.model} at {options.target}", "machine": machine(), "versions": versions()}
    await asyncio.to_thread(options.html.write_text, report.page(document, points), "utf-8")
    if options.json is not None:
        text = json.dumps({**document, "points": points}, indent=1)
        await asyncio.to_thread(options.json.write_text, text + "\n", "utf-8")
    return status


def _finish(run: Run, options: argparse.Namespace, console: Console) -> int:
    print_run(run, console)
    if options.json is not None:
        about = {"target": options.target, "model": options.model, "mode": options.mode, "loop": options.loop}
        options.json.write_text(json.dumps({**about, **run.as_json()}, indent=1) + "\n", encoding="utf-8")
    return _status(run)


def _status(run: Run) -> int:
    if void := run.void():
        print(f"VOID: {void}", file=sys.stderr)
        return _VOID
    return 0 if run.ok == run.sent else _FAILED


async def _samples(options: argparse.Namespace, console: Console) -> list[Sample]:
    """The requests, with answers where some model file can give them."""
    if options.frame is not None:
        console.print("answers are not checked: the request came from --frame")
        return [frame_sample(await asyncio.to_thread(options.frame.read_bytes))]
    if options.onnx is not None:
        return await asyncio.to_thread(reference_samples, options.model, options.onnx, rows=options.rows)
    if options.model in (*networks.NETWORKS, networks.IMAGE):
        with tempfile.TemporaryDirectory(prefix="turnout-generate-") as folder:
            file = networks.write(options.model, Path(folder)) / "1" / "model.onnx"
            return await asyncio.to_thread(reference_samples, options.model, file, rows=options.rows)
    console.print("answers are not checked against the model: name its file with --onnx for that")
    async with grpc.aio.insecure_channel(options.target, options=CHANNEL_OPTIONS) as channel:
        try:
            metadata: pb.ModelMetadataResponse = await GRPCInferenceServiceAioStub(channel).ModelMetadata(
                pb.ModelMetadataRequest(name=options.model), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise BenchError(f"{options.target}: {error.code().name}: {error.details()}") from None
    return declared_samples(options.model, metadata, rows=options.rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="generate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="loop", required=True, metavar="open | closed | sweep")
    opened = commands.add_parser("open", help="by a schedule")
    closed = commands.add_parser("closed", help="clients that wait for their answers")
    sweep = commands.add_parser("sweep", help="several rates, and a report")
    for command, run in ((opened, _open), (closed, _closed), (sweep, _sweep)):
        command.set_defaults(run=run)
        _common(command)
    for command in (opened, sweep):
        command.add_argument(
            "--arrivals",
            default="poisson",
            metavar="poisson | bursty | trace=FILE",
            help="bursty: Gamma gaps with cv 3; a trace has one offset in seconds on each line (default: poisson)",
        )
        command.add_argument("--seed", type=int, default=0)
    opened.add_argument("--rate", type=float, help="requests per second; a trace without it keeps its own")
    closed.add_argument("--clients", type=int, default=32)
    sweep.add_argument("--rates", type=float, nargs="+", required=True, help="requests per second")
    sweep.add_argument("--html", type=Path, required=True, help="where the report goes")
    return parser


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--target", required=True, metavar="HOST:PORT")
    command.add_argument("--model", default="mlp_small", help="default: %(default)s, of models/zoo/networks.py")
    command.add_argument("--onnx", type=Path, help="the model's file, to check answers against")
    command.add_argument("--frame", type=Path, help="a serialised ModelInferRequest to send instead")
    command.add_argument("--rows", type=int, default=1, help="of each request, where the model leaves that open")
    command.add_argument("--mode", choices=("unary", "stream"), default="unary")
    command.add_argument("--seconds", type=float, default=10.0)
    command.add_argument("--warmup", type=float, default=1.0, help="seconds that are not counted")
    command.add_argument("--check-every", type=int, default=1, help="check each n-th answer; 0: none")
    command.add_argument("--json", type=Path, help="where the result goes, with its HDR histograms")
