"""The start-up table: what is served where, and what an operator should know. Printed once, on standard output."""

from __future__ import annotations

import contextlib
import sys
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from turnout import __version__
from turnout.app import Started
from turnout.core.ids import printable
from turnout.core.slots import SlotState
from turnout.runtime.fleet import Model
from turnout.runtime.slot import Slot

_LINE_WIDTH = 200


def announce(started: Started) -> None:
    """Print the table. The last line, `ready: HOST:PORT`, is for scripts that wait for it. A reader that has gone, or a
    terminal that cannot show a name, is no reason not to serve."""
    terminal = sys.stdout.isatty()
    # Where there is no terminal, a log collector reads lines: none may wrap.
    width = None if terminal else _LINE_WIDTH
    text = StringIO()
    _print(started, Console(file=text, width=width, force_terminal=terminal))
    encoding = sys.stdout.encoding or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text.getvalue().encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


def _print(started: Started, console: Console) -> None:
    console.print(f"Turnout {__version__}: models of {started.config.model_repository}", highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "slot", "revision", "state", "traffic", "on", "batch", "warm sizes", "MiB", "ready in"):
        table.add_column(heading)
    notes: list[str] = []
    for model in started.fleet:
        if not model.slots:
            state = "FAILED" if model.problem else "EMPTY"  # the latter: a journal says that it was unloaded
            table.add_row(Text(model.name), "-", "-", Text(state, "red"), "", "", "", "", "", "")
            notes += [f"{model.name}: {model.problem}"] if model.problem else []
        for slot in model.slots.values():
            table.add_row(*_row(model, slot))
            notes += [f"{slot.revision}: {note}" for note in (*slot.warnings, slot.message) if note]
    console.print(table)
    for note in notes:
        console.print(Text(f"note  {printable(note)}", "yellow"), soft_wrap=not console.is_terminal)
    if not any(model.ready_slots() for model in started.fleet):
        console.print(Text("nothing is served: no slot is READY, load one", "bold red"))
    console.print(
        f"limits  message {started.message_bytes_max / 2**20:.0f} MiB, "
        f"queue {started.config.queue_rows_max} rows per slot",
        highlight=False,
    )
    if started.admin_port is not None:
        where = started.config.admin_host
        state = f"journal in {started.config.state_dir}" if started.config.state_dir else "no journal: --state-dir"
        console.print(
            f"admin  {f'[{where}]' if ':' in where else where}:{started.admin_port}, {state}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if started.ops_port is not None:
        where = started.config.ops_host or started.config.host
        address = f"{f'[{where}]' if ':' in where else where}:{started.ops_port}"
        console.print(f"ops  http://{address}: /metrics, /livez, /readyz", highlight=False, markup=False)
    host = started.config.host
    console.print(f"ready: {f'[{host}]' if ':' in host else host}:{started.port}", highlight=False, markup=False)


def _row(model: Model, slot: Slot) -> tuple[str | Text, ...]:
    style = "green" if slot.state is SlotState.READY else "red"
    cells: tuple[str | Text, ...] = (model.name, slot.name, str(slot.revision), Text(slot.state.value, style))
    if slot.cargo is None or model.route is None:
        return (*cells, "", "", "", "", "", "")
    weight_bp = sum(model.route.weight_bp(target) for target in model.route.targets if target.slot == slot.name)
    rows = slot.cargo.spec.signature.rows_max
    return (
        *cells,
        f"{weight_bp / 100:g} %" if weight_bp else "by pin",
        ", ".join(slot.cargo.providers),
        f"up to {rows}" if rows else "none",
        str(len(slot.cargo.profile_ns)),
        "" if slot.cargo.memory_bytes is None else f"{slot.cargo.memory_bytes / 2**20:.0f}",
        f"{slot.cargo.opening_ns / 1e9:.2f} s",
    )
