"""The batching policies that are compared: the server's default, and Triton's fixed delays; as a value for virtual
time, and as a config.pbtxt for a real server."""

from __future__ import annotations

from pathlib import Path

from turnout.core.batch_policy import BatchPolicy

DELAYS_US = (0, 500, 1000, 2000, 5000, 10_000)


def default() -> BatchPolicy:
    """What a server does without any flag and any configuration of the model."""
    return BatchPolicy(gathers=True)


def fixed(delay_us: int) -> BatchPolicy:
    """Hold the oldest request back for up to this long; 0: never hold anything."""
    return BatchPolicy(delay_ns_max=delay_us * 1000, gathers=False)


def write_fixed(folder: Path, delay_us: int) -> None:
    """Gives the model in `folder`, of a repository, a fixed delay."""
    block = (
        f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n"
        if delay_us
        else 'parameters { key: "batching" value { string_value: "eager" } }\n'
    )
    file = folder / "config.pbtxt"
    file.write_text(file.read_text(encoding="utf-8") + block, encoding="utf-8")
