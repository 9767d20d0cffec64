"""Says when its core was not to be had: answers each line on its input with the pauses since the one before, each as
two monotonic nanoseconds. On a shared machine, what somebody else did then is in everybody's latency."""

from __future__ import annotations

import json
import sys
import threading
import time

_TICK_S = 0.002
_PAUSE_NS = 5_000_000  # longer than the scheduler lets one process of this core keep another one waiting


def watch(pauses: list[tuple[int, int]]) -> None:
    before_ns = time.monotonic_ns()
    while True:
        time.sleep(_TICK_S)
        now_ns = time.monotonic_ns()
        if now_ns - before_ns > _PAUSE_NS:
            pauses.append((before_ns, now_ns))
        before_ns = now_ns


def main() -> None:
    pauses: list[tuple[int, int]] = []
    threading.Thread(target=watch, args=(pauses,), daemon=True).start()
    print("ready: pauses", flush=True)
    for _ in sys.stdin:
        told = list(pauses)
        del pauses[: len(told)]
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
