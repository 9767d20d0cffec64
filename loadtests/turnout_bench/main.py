"""`make bench`: measures the figures, one after the other, and writes build/bench.json, the raw rounds and a report.

Each figure is a ratio of what was measured in the same rounds. A target that is missed does not fail the benchmark:
`make bench-compare` judges changes. What fails it is a wrong answer, or a server that does not run.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from turnout_bench import document, report
from turnout_bench.bench import Bench
from turnout_bench.figures import FIGURES, Figure, Measured
from turnout_bench.machine import FOREIGN_CORES_MAX, ForeignLoad, machine, versions
from turnout_bench.peers import Peer
from turnout_bench.plans import PLANS
from turnout_bench.processes import ROOT
from turnout_bench.results import BenchError

_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    console = Console(soft_wrap=True, highlight=False)
    about = machine()  # before this process is pinned
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers are stopped then too
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        bench = Bench(PLANS[options.plan], Path(folder), options.peer, console)
        try:
            figures, raw = uvloop.run(_measure(bench, options.figures))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return _FAILED
        finally:
            bench.stop()
    written = {
        "schema": document.SCHEMA,
        "plan": options.plan,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "versions": versions(),
        "peers": [f"{peer.name}={peer.address}" for peer in options.peer],
        "noisy": [name for name, entry in figures.items() if entry["noisy"]],
        "figures": figures,
    }
    document.write(options.output, written, raw)
    page = options.output.with_suffix(".html")
    page.write_text(report.page(written, raw.get("tail_p99_at_70", {}).get("sweep", [])), encoding="utf-8")
    console.print(f"written: {_short(options.output)}, {_short(document.raw_file(options.output))}, {_short(page)}")
    return 0


async def _measure(bench: Bench, chosen: Sequence[Figure]) -> tuple[dict[str, Any], dict[str, Any]]:
    entries: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    foreign = ForeignLoad(bench.children_cpu_s)
    bench.start()
    if bench.server_core is None:
        bench.console.print("one core, or no way to choose: server and generator share it, and disturb each other")
    for figure in chosen:
        if figure.needs and shutil.which(figure.needs) is None:
            bench.console.print(f"{figure.name}: skipped, it needs {figure.needs}, which is not installed")
            continue
        began_s = time.monotonic()
        foreign.start()
        measured = await figure.measure(bench)
        entry = document.figure_entry(figure, measured, foreign.cores(), FOREIGN_CORES_MAX)
        entries[figure.name], raw[figure.name] = entry, measured.rounds
        _print(bench.console, figure, measured, entry, time.monotonic() - began_s)
    return entries, raw


def _print(console: Console, figure: Figure, measured: Measured, entry: dict[str, Any], took_s: float) -> None:
    value = measured.estimate
    target = ""
    if figure.target is not None:
        verdict = "met" if entry["met"] else "MISSED"
        target = f", target {'<=' if figure.better == 'lower' else '>='} {figure.target:g}: {verdict}"
    noisy = f", NOISY: others used {entry['foreign_cores']:.2f} cores" if entry["noisy"] else ""
    interval = f"\\[{value.low:.4g}, {value.high:.4g}]"  # the backslash is for rich
    console.print(f"[bold]{figure.name}[/] = {value.value:.4g} {interval}{target}{noisy} ({took_s:.0f} s)")
    for name, figures in measured.absolute.items():
        console.print(f"  {name}: {_inline(figures)}", markup=False, style="dim")
    for doubt in measured.doubts:
        console.print(f"  in doubt: {doubt}", markup=False)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    by_name = {figure.name: figure for figure in FIGURES}
    listed = "\n".join(f"  {figure.name:24} {figure.what}" for figure in FIGURES)
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description=__doc__,
        epilog=f"figures:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plan", choices=PLANS, default="full", help="how much is measured (default: full)")
    parser.add_argument("--figures", nargs="+", metavar="NAME", help="only these (default: all that the plan has)")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=_peer,
        metavar="NAME=HOST:PORT[:PID]",
        help="also measure this server, which runs already and has the models mlp_small, mlp_big and image_small "
        "(python -m zoo.networks writes them); with a PID of this machine, its CPU time too; may be repeated",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args(arguments)
    if options.figures is None:
        options.figures = [name for name in by_name if name not in PLANS[options.plan].left_out]
    if unknown := [name for name in options.figures if name not in by_name]:
        parser.error(f"no figure is called {', '.join(unknown)}; there are {', '.join(by_name)}")
    options.figures = [by_name[name] for name in options.figures]
    return options


def _peer(text: str) -> Peer:
    try:
        return Peer.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
