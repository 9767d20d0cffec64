"""The most that a server can do: closed loops of twice as many clients, until that gains less than 3 %."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from turnout_bench.bench import Bench
from turnout_bench.results import Run

GAIN_MIN = 1.03
_CLIENTS_FIRST = 8


async def find_saturation(measure: Callable[[int], Awaitable[Run]], clients_max: int) -> Run:
    """The run with the highest rate; `measure` takes the number of clients."""
    clients = min(_CLIENTS_FIRST, clients_max)
    best = await measure(clients)
    while (clients := clients * 2) <= clients_max:
        run = await measure(clients)
        gained = run.per_second >= GAIN_MIN * best.per_second
        best = max(best, run, key=lambda each: each.per_second)
        if not gained:
            break
    return best


async def saturation(bench: Bench, model: str) -> Run:
    """Of the server with its defaults; measured once."""
    server = await bench.turnout()

    def measure(clients: int) -> Awaitable[Run]:
        return bench.closed(server, model, clients, seconds=bench.plan.saturation_s)

    return await bench.once(f"saturation {model}", lambda: find_saturation(measure, bench.plan.clients_max))
