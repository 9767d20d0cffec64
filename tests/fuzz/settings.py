"""Target: the server's YAML settings, and the same names and values from the environment."""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path

from fuzz import oracle
from fuzz.mutation import INTEGERS, Mutate, mutate_text
from turnout.config import ENV_PREFIX, Config, ConfigError, load


def run(data: bytes) -> None:
    fd = _file()
    file = Path(f"/proc/self/fd/{fd}")
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    try:
        config = load({}, {}, file)
    except ConfigError as refusal:
        oracle.refused(refusal, data, lines=True, own=str(file))
    else:
        _check(config)
    try:
        config = load({}, _environment(data.decode(errors="replace")), None)
    except ConfigError as refusal:
        oracle.refused(refusal, data, lines=True)
    else:
        _check(config)


def _check(config: Config) -> None:
    oracle.require(Config(**config.model_dump()) == config, "valid settings that are not valid again")


def _environment(text: str) -> dict[str, str]:
    """`name: value` lines as environment variables; no variable holds a NUL."""
    pairs = (line.partition(":")[::2] for line in text.replace("\0", "").splitlines())
    return {ENV_PREFIX + name.strip().upper(): value.strip() for name, value in pairs}


@cache
def _file() -> int:
    """A file without a name, in memory: a fuzzer that stops leaves nothing behind."""
    return os.memfd_create("settings")


# Mutations

_TOKENS = (
    *(f"{name}: " for name in Config.model_fields),
    *(f"\n{name}: {value}\n" for name in ("grpc_port", "provider", "drain_grace_s") for value in (0, -1, "x", 1.5)),
    *("provider: cuda:0,1\n", "provider: cuda:\n", "provider: cpu:0\n", "provider: cuda:1,1\n", "host: '::'\n"),
    *("host: 127.0.0.1\n", "host: fe80::1%eth0\n", "log_level: info\n", "response_identity: no\n", "{a: " * 20),
    *("[", "]", "{", "}", "- ", "? ", ": ", "#", "&a ", "*a", "<<: ", "|\n ", ">\n ", "---\n", "...\n", "%YAML 1.1\n"),
    *("!!int ", "!!float ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!python/object:os.system ", "!x "),
    *("2001-01-01", "2001-99-99", "1:60:60", "0x", "0b_", "1_000", ".inf", ".nan", "~", "null", "yes", "=", "<<"),
    *('"\\x"', '"\\ud800"', '"', "'", "\t", "\0", "\u2028", "\ufeff", "\x85", "\x7f", " ", "\n", "9" * 5000),
    "[" * 30,  # over more PyYAML takes quadratic time
    *(str(value) for value in INTEGERS[::7]),
)


def mutate(data: bytes, bytes_max: int, rng: random.Random, mutate_bytes: Mutate) -> bytes:
    if rng.random() < 0.15:
        return mutate_bytes(data, bytes_max)
    text = data.decode(errors="ignore")
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = mutate_text(rng, text, _TOKENS)
    return text.encode()[:bytes_max]
