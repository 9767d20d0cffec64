"""Fuzzes the targets with atheris (libFuzzer), one process after the other, and prints what each run saw.

An input that breaks a promise is written to build/fuzz/TARGET/, its trace is printed, and the exit status is 1; what
is in `known.py` is passed over. `--replay TARGET FILE ...` repeats inputs, `--merge` takes over into the committed
corpus what long runs found.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fuzz import oracle
from fuzz.targets import CORPUS, TARGETS, Target

BUILD = Path("build/fuzz")
# Packages compiled for coverage: ours, and the parsers written in Python that untrusted text goes through. Of YAML only
# what makes values: its scanner is another project's, and costs most of the time.
_INSTRUMENTED = ["turnout", "turnout_wire", "google", "yaml"]
_LEFT_OUT = ["yaml.reader", "yaml.scanner", "yaml.parser", "yaml.composer"]
_ADDRESS_BYTES_MAX = 1 << 30  # beside what the process has at its start: a claimed size must not allocate
_RSS_MIB_MAX = 512
_INPUT_SECONDS_MAX = 5
# A warning is a line on the server's stderr that a client can write. DeprecationWarning is off by default there, and
# protobuf's text parser has one.
_WARNINGS = ("-W", "error", "-W", "ignore::DeprecationWarning")
_NO_WHEEL = (
    "fuzz: skipped, atheris has no wheel for this platform (CPython 3.11 to 3.13 on Linux x86_64 has one); "
    "the tests replay and mutate the corpus without it"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fuzz.run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs over the targets (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="repeats a run; default: another one each time")
    parser.add_argument("--seconds-max", type=int, default=0, help="of each target; default: no limit")
    parser.add_argument("--merge", action="store_true", help="minimise into the committed corpus")
    parser.add_argument("--replay", action="store_true", help="run the files named after the target")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        _child(TARGETS[chosen.child[0]], chosen.child[1:])
    if chosen.replay:
        return _replay(TARGETS[chosen.targets[0]], [Path(name) for name in chosen.targets[1:]])
    if importlib.util.find_spec("atheris") is None:
        print(_NO_WHEEL)
        return 0
    targets = [TARGETS[name] for name in chosen.targets or TARGETS]
    if chosen.merge:
        return max([_merge(target) for target in targets])
    total = sum(target.share for target in targets)
    return max([_fuzz(t, int(chosen.runs * t.share / total), chosen.seed, chosen.seconds_max) for t in targets])


def _fuzz(target: Target, runs: int, seed: int, seconds_max: int) -> int:
    flags = [f"-runs={runs}", f"-seed={seed or random.SystemRandom().randrange(1, 2**31)}"]
    flags += [f"-max_total_time={seconds_max}"] if seconds_max else []
    with tempfile.TemporaryDirectory() as fresh:
        # A seed repeats itself only from the same corpus: then what was found before is left aside.
        found = fresh if seed else str(_folder(BUILD / target.name / "corpus"))
        began = time.monotonic()
        status, text = _start(target, [*flags, found, str(CORPUS / target.name)])
        seconds = time.monotonic() - began
    print(_summary(target, text, seconds), flush=True)
    if status:
        print(text[-6000:], flush=True)
    return 1 if status else 0


def _merge(target: Target) -> int:
    """The fewest inputs, old and new, that reach every edge of the code that any of them reaches. The committed ones
    stay as they are; of the others those come in that reach more."""
    with tempfile.TemporaryDirectory(dir=_folder(BUILD)) as kept:
        for path in target.corpus():
            (Path(kept) / path.name).write_bytes(path.read_bytes())
        status, text = _start(
            target, ["-merge=1", "-use_counters=0", kept, str(_folder(BUILD / target.name / "corpus"))]
        )
        if status:
            print(text[-6000:])
            return 1
        committed = {path.name for path in target.corpus()}
        fresh = [path for path in Path(kept).iterdir() if path.name not in committed]
        for path in fresh:
            (CORPUS / target.name / path.name[:16]).write_bytes(path.read_bytes())
    print(f"{target.name}: {len(committed)} inputs and {len(fresh)} new ones")
    return 0


def _replay(target: Target, files: Sequence[Path]) -> int:
    module = target.load()
    for file in files:
        oracle.watched(target.name, module.run, file.read_bytes())
    print(f"{target.name}: {len(files)} inputs hold")
    return 0


def _start(target: Target, flags: Sequence[str]) -> tuple[int, str]:
    """One atheris process, with whatever Python draws by itself held still."""
    _folder(BUILD / target.name)
    done = subprocess.run(
        [*_command(target), *flags],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def _command(target: Target) -> list[str]:
    return [sys.executable, *_WARNINGS, "-m", "fuzz.run", "--child", target.name]


def _summary(target: Target, text: str, seconds: float) -> str:
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", text))
    marks = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    edges, features, corpus = marks[-1] if marks else ("?", "?", "?")
    inputs = int(stats.get("number_of_executed_units", 0))
    return (
        f"{target.name:13} {inputs:8} inputs in {seconds:6.1f} s, {inputs / seconds:6.0f}/s, edges {edges}, features "
        f"{features}, corpus {corpus}, slowest {stats.get('slowest_unit_time_sec', '?')} s, peak "
        f"{stats.get('peak_rss_mb', '?')} MiB"
    )


def _child(target: Target, flags: Sequence[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED, exclude=_LEFT_OUT):
        module = target.load()

    def test(data: bytes) -> None:
        oracle.watched(target.name, module.run, data, pass_over=True)

    def mutate(data: bytes, bytes_max: int, seed: int) -> bytes:
        return module.mutate(data, bytes_max, random.Random(seed), atheris.Mutate)

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_bytes() + _ADDRESS_BYTES_MAX, hard))
    own = [
        f"-max_len={target.bytes_max}",
        f"-timeout={_INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={_RSS_MIB_MAX}",
        f"-artifact_prefix={BUILD / target.name}/",
        "-print_final_stats=1",
    ]
    # To merge, libFuzzer hands its first argument to a shell, as the command that runs it again.
    again = shlex.join(_command(target))
    atheris.Setup([again, *own, *flags], test, custom_mutator=mutate)
    atheris.Fuzz()


def _address_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
