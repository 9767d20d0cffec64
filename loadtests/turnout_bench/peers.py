"""Other servers to measure in the same rounds: NAME=HOST:PORT, already running, with models of the same names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from turnout_bench.processes import process_cpu_s

_FORM = re.compile(r"(?P<name>[\w.-]+)=(?P<address>(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):\d{1,5})(:(?P<pid>\d+))?")


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that somebody else started.

    Attributes:
        pid: of its process on this machine, whose CPU time is then read; None: only rates and latencies are known.
            Processes that it has started itself are not counted.
    """

    name: str
    address: str
    pid: int | None = None

    @classmethod
    def parse(cls, text: str) -> Peer:
        """NAME=HOST:PORT or NAME=HOST:PORT:PID; an IPv6 HOST in brackets.

        Raises:
            ValueError: the text has another form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                f"'{text}' is no peer: NAME=HOST:PORT, or NAME=HOST:PORT:PID for a process of this machine"
            )
        return cls(match["name"], match["address"], int(match["pid"]) if match["pid"] else None)

    def cpu_s(self) -> float:
        assert self.pid is not None
        return process_cpu_s(self.pid)
