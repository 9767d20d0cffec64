"""The trial in a child process: what passes, what crashes, hangs or grows there, and that nothing is left of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import parser

from support import hostile_models
from support.artefacts import artefact_of
from support.server import until
from turnout.backends.onnx import OnnxBackend, OnnxOptions, Preflight, PreflightLimits
from turnout.backends.onnx.available import available_bytes
from turnout.backends.onnx.child import _execution
from turnout.backends.onnx.preflight import _command
from turnout.core.errors import LoadError
from turnout.core.model import Artefact, Device, Execution, Placement

CPU = OnnxOptions(Placement.parse("cpu"), intra_op_threads=1)
MIB = 1 << 20
SMALL = PreflightLimits(memory_bytes_max=100 * MIB, timeout_s=30)
GOOD = "g (float[batch, 3] x) => (float[batch, 3] y) { y = Add(x, x) }"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    fds, children = os.listdir("/proc/self/fd"), psutil.Process().children()  # servers of other files' tests
    yield
    assert set(psutil.Process().children()) <= set(children)
    assert len(os.listdir("/proc/self/fd")) <= len(fds)


def save(folder: Path, model: onnx.ModelProto | str) -> Artefact:
    if isinstance(model, str):
        model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{model}')
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return artefact_of(folder / "model.onnx")


def check(
    artefact: Artefact,
    limits: PreflightLimits = SMALL,
    execution: Execution | None = None,
    command: Sequence[str] | None = None,
    threads: tuple[int, int] = (1, 1),
) -> int | None:
    with artefact.open() as files:
        return Preflight(limits, command).check("d", files, execution or Execution(), threads)


def refusal(artefact: Artefact, limits: PreflightLimits = SMALL, **more: Any) -> LoadError:
    with pytest.raises(LoadError) as refused:
        check(artefact, limits, **more)
    return refused.value


# What passes


@pytest.mark.parametrize(
    "model",
    [
        GOOD,
        "g (string[n] x) => (string[n] y) { y = Identity(x) }",
        "g (bfloat16[n, 2] x) => (bfloat16[n, 2] y) { y = Identity(x) }",
        "g (bool[n] x, int64 k) => (bool[n] y, int64 z) { y = Identity(x) z = Identity(k) }",
        "g (float[3] x, float[3] k = {1.0, 2.0, 3.0}) => (float[3] y) { y = Add(x, k) }",
        hostile_models.refuses_made_up_data(),
    ],
)
def test_models_that_load(tmp_path: Path, model: onnx.ModelProto | str) -> None:
    memory_bytes = check(save(tmp_path, model))
    assert memory_bytes is not None and 0 < memory_bytes < 50 * MIB


def test_memory_is_measured(tmp_path: Path) -> None:
    """A run that holds one tensor of 80 MB."""
    artefact = save(tmp_path, hostile_models.takes_memory_at_run(10_000_000))
    memory_bytes = check(artefact, PreflightLimits(300 * MIB, 30))
    assert memory_bytes is not None and 80 * MIB * 0.9 < memory_bytes < 250 * MIB


def test_external_data_is_passed_on(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((300, 100), np.float32), "w")
    artefact = save(tmp_path, "g (float[n, 300] x) => (float[n, 100] y) <float[1] k = {1.0}> { y = MatMul(x, w) }")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.initializer.append(weights)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin")
    assert check(artefact) is not None
    loaded = OnnxBackend(CPU, Preflight(SMALL)).load(artefact, Execution())
    assert loaded.sessions[0].run({"x": np.ones((1, 300), np.float32)}, ["y"])[0].tolist() == [[300] * 100]
    (tmp_path / "w.bin").write_bytes(b"short")
    assert "its data ends at byte 120000 of 'w.bin', which has 5" in str(refusal(artefact))


def test_a_file_s_size_is_not_held_against_the_model(tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path, GOOD) and tmp_path / "model.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(10 * MIB, np.float32), "unused"))
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin")
    assert check(artefact_of(tmp_path / "model.onnx"), PreflightLimits(90 * MIB, 30)) is not None


def test_the_backend_tries_a_model_first_and_says_what_it_took(tmp_path: Path) -> None:
    backend = OnnxBackend(CPU, Preflight(SMALL))
    loaded = backend.load(save(tmp_path, GOOD), Execution(instances=2))
    assert loaded.memory_bytes is not None and loaded.memory_bytes > 0
    assert OnnxBackend(CPU).load(save(tmp_path, GOOD), Execution()).memory_bytes is None


def test_a_trusted_digest_needs_no_trial(tmp_path: Path) -> None:
    limits = PreflightLimits(trusted_digests=frozenset({"d"}))
    assert check(save(tmp_path, GOOD), limits, command=["/nothing/here"]) is None


# What does not


@pytest.mark.skipif(not hostile_models.DIVISION_TRAPS, reason="integer division does not trap here")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (hostile_models.crashes_at_load, "loading it in a child process ended with signal SIGFPE"),
        (hostile_models.crashes_at_run, "running it once in a child process ended with signal SIGFPE"),
    ],
)
def test_a_model_that_crashes_onnx_runtime(tmp_path: Path, model: Any, words: str) -> None:
    assert words in str(refusal(save(tmp_path, model())))
    with pytest.raises(LoadError, match="SIGFPE"):
        OnnxBackend(CPU, Preflight(SMALL)).load(save(tmp_path, model()), Execution())


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (hostile_models.takes_memory_at_load(), "loading it"),
        (hostile_models.takes_memory_at_run(), "running it once"),
        ("g (float[100000, 100000] x) => (float[100000, 100000] y) { y = Add(x, x) }", "running it once"),
    ],
)
def test_a_model_that_takes_too_much_memory(tmp_path: Path, model: onnx.ModelProto | str, step: str) -> None:
    artefact = save(tmp_path, model)
    assert str(refusal(artefact)) == f"{step} needs more than {100 * MIB} bytes: --preflight-memory-bytes-max"


def test_what_is_available_is_the_limit_where_none_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout.backends.onnx.preflight.available_bytes", lambda: 200 * MIB)
    error = refusal(save(tmp_path, hostile_models.takes_memory_at_load()), PreflightLimits())
    assert str(error) == (
        f"loading it needs more than {180 * MIB} bytes, which is what is available here: --preflight-memory-bytes-max"
    )


@pytest.mark.parametrize(
    ("model", "step", "timeout_s"),
    [(hostile_models.never_loads(), "loading it", 1), (hostile_models.never_answers(), "running it once", 4)],
)
def test_a_model_that_never_ends(tmp_path: Path, model: onnx.ModelProto, step: str, timeout_s: int) -> None:
    error = refusal(save(tmp_path, model), PreflightLimits(100 * MIB, timeout_s))
    assert str(error) == f"{step} in a child process took longer than {timeout_s} s: --preflight-timeout-s"


def test_what_onnx_runtime_refuses_is_said_as_the_server_would(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model\x1b[31m")
    artefact = artefact_of(tmp_path / "model.onnx")
    with pytest.raises(LoadError) as without:
        OnnxBackend(CPU).load(artefact, Execution())
    with pytest.raises(LoadError) as tried:
        OnnxBackend(CPU, Preflight(SMALL)).load(artefact, Execution())
    for said in (str(tried.value), str(without.value)):  # ONNX Runtime words it by the way it was given the model
        assert re.fullmatch(r"ONNX Runtime cannot load it: .*[Pp]rotobuf parsing failed\.", said), said


def test_the_model_s_own_options_count(tmp_path: Path) -> None:
    execution = Execution(session_entries=(("session.intra_op_thread_affinities", "zz"),))
    assert "does not take its settings" in str(refusal(save(tmp_path, GOOD), execution=execution, threads=(2, 1)))


def test_libraries_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "ops.so").write_bytes(b"no library")
    artefact = save(tmp_path / "m", GOOD)
    with artefact.open() as files, (tmp_path / "ops.so").open("rb") as library:
        given = dataclasses.replace(files, libraries={"ops.so": library.fileno()})
        with pytest.raises(LoadError, match=r"'ops\.so' is no library of custom operators"):
            Preflight(SMALL).check("d", given, Execution(), (1, 1))


def test_every_field_of_an_execution_reaches_the_child() -> None:
    execution = Execution(
        instances=2,
        device=Device.CPU,
        gpus=(1, 2),
        graph_level=-1,
        intra_op_threads=3,
        inter_op_threads=4,
        parallel=True,
        cpu_arena=False,
        memory_pattern=False,
        session_entries=(("a", "b"),),
        run_entries=(("c", "d"),),
        disabled_optimizers=("e",),
        cuda=(("f", "g"),),
        tensorrt=(("h", "i"),),
        openvino=(),
        op_libraries=("j",),
    )
    for given in (execution, Execution()):
        fields = dataclasses.asdict(given) | {"device": given.device.value}
        assert _execution(json.loads(json.dumps(fields))) == given
    defaults = Execution()
    assert all(getattr(execution, f.name) != getattr(defaults, f.name) for f in dataclasses.fields(Execution))


# The child


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


ANSWER = "import json, os, sys; order = json.load(sys.stdin); fd = order['answer']\n"


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "loading it in a child process ended with signal SIGSEGV", ""),
        ("import os; os.kill(os.getpid(), 6)", "loading it in a child process ended with signal SIGABRT", ""),
        ("import os; os.kill(os.getpid(), 40)", "loading it in a child process ended with signal 40", ""),
        ("import os; os.kill(os.getpid(), 9)", "loading it in a child process ended with signal SIGKILL", ""),
        ("import os; os.kill(os.getpid(), 24)", "took longer than 30 s: --preflight-timeout-s", ""),
        ("raise SystemExit(3)", "loading it in a child process ended with status 3", ""),
        ("raise RuntimeError('broken')", "ended with status 1", "RuntimeError: broken"),
        ("", "loading it in a child process ended with status 0", ""),
        (f"{ANSWER}os.write(fd, b'garbage')", "ended with status 0", ""),
        (f"{ANSWER}os.write(fd, b'[1]')", "ended with status 0", ""),
        (f'{ANSWER}os.write(fd, b\'{{"memory_bytes": "x"}}\')', "ended with status 0", ""),
        (f'{ANSWER}os.write(fd, b\'{{"step": "run"}}\\n\'); os.kill(os.getpid(), 7)', "running it once in a child", ""),
        (f"{ANSWER}os.write(fd, b'x' * (1 << 20))", "loading it in a child process ended with", ""),
        (f"{ANSWER}print('x' * (1 << 20), file=sys.stderr)", "ended with status 0", "xxx"),
    ],
)
def test_whatever_the_child_does_is_a_reason(tmp_path: Path, program: str, words: str, said: str) -> None:
    error = refusal(save(tmp_path, GOOD), command=python(program))
    assert words in str(error)
    assert said in str(error.__cause__) and len(str(error.__cause__)) < 3000


def test_a_child_that_hangs_after_its_answer_is_ended(tmp_path: Path) -> None:
    program = f"{ANSWER}os.close(fd); import signal; signal.pause()"
    error = refusal(save(tmp_path, GOOD), PreflightLimits(timeout_s=1), command=python(program))
    assert "took longer than 1 s" in str(error)


def test_a_child_that_cannot_be_started(tmp_path: Path) -> None:
    error = refusal(save(tmp_path, GOOD), command=["/nothing/here"])
    assert str(error) == "no child process to try it in can be started: No such file or directory; see --preflight"


def test_neither_the_working_directory_nor_the_environment_decides_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "json", "onnxruntime", "turnout"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the wrong place')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    assert check(save(tmp_path / "m", GOOD)) is not None


def test_it_needs_no_installed_package(tmp_path: Path) -> None:
    """With -S, no site-packages and no editable install are found: only the folders that the command names."""
    executable, isolated, *rest = _command()
    assert isolated == "-I"
    assert check(save(tmp_path, GOOD), command=[executable, "-I", "-S", *rest]) is not None


def test_the_child_sees_no_secret_and_nothing_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    program = f"""{ANSWER}
import signal
fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))
known = {{0, 1, 2, fd, *order['files'].values()}}
left = [os.readlink(f'/proc/self/fd/{{f}}') for f in fds if f not in known and os.path.exists(f'/proc/self/fd/{{f}}')]
print(json.dumps([sorted(os.environ), os.getcwd(), left, os.getsid(0) == os.getpid()]), file=sys.stderr)
"""
    error = refusal(save(tmp_path, GOOD), command=[sys.executable, "-I", "-c", program])
    names, folder, left, own_session = json.loads(str(error.__cause__).partition("said: ")[2])
    assert set(names) <= {"MALLOC_ARENA_MAX", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert (folder, left, own_session) == ("/", [], True)


def child_of(parent: int) -> psutil.Process | None:
    """The running trial of a process, once its limits are set."""
    for process in psutil.Process(parent).children():
        if process.rlimit(psutil.RLIMIT_CORE) == (0, 0) and process.rlimit(psutil.RLIMIT_AS)[0] > 0:
            return process
    return None


def test_its_limits(tmp_path: Path) -> None:
    artefact = save(tmp_path, hostile_models.never_loads())
    size = (tmp_path / "model.onnx").stat().st_size
    with ThreadPoolExecutor(1) as pool:
        tried = pool.submit(refusal, artefact, PreflightLimits(200 * MIB, 3))
        until(lambda: child_of(os.getpid()))
        child = child_of(os.getpid())
        assert child is not None
        _, address_space = child.rlimit(psutil.RLIMIT_AS)
        stacks = (os.cpu_count() or 1) * 1.5 * max(resource.getrlimit(resource.RLIMIT_STACK)[0], 8 * MIB)
        assert 200 * MIB < address_space - size < 200 * MIB + 1000 * MIB + stacks
        assert child.rlimit(psutil.RLIMIT_CPU)[1] == 3 * (os.cpu_count() or 1) + 1
        assert child.rlimit(psutil.RLIMIT_FSIZE) == (1 << 16, 1 << 16)
        assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"
        assert "took longer" in str(tried.result())
    assert not psutil.pid_exists(child.pid)


def test_it_ends_with_the_server(tmp_path: Path) -> None:
    save(tmp_path, hostile_models.never_loads())
    program = f"""
from pathlib import Path
from support.artefacts import artefact_of
from turnout.backends.onnx import Preflight, PreflightLimits
from turnout.core.model import Execution
with artefact_of(Path({str(tmp_path / "model.onnx")!r})).open() as files:
    Preflight(PreflightLimits(0, 600)).check("d", files, Execution(), (1, 1))
"""
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as server:
        try:
            until(lambda: child_of(server.pid))
            child = child_of(server.pid)
        finally:
            server.send_signal(signal.SIGKILL)
    assert child is not None
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_it_takes_a_moment(tmp_path: Path) -> None:
    """No limit, but a number to see with `pytest -s`."""
    artefact = save(tmp_path, GOOD)
    started = time.perf_counter()
    for _ in range(3):
        check(artefact)
    print(f"{(time.perf_counter() - started) / 3 * 1e3:.0f} ms for each trial")


# How much memory there is


def system(root: Path, files: dict[str, str]) -> int:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return available_bytes(root)


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 1000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 1 << 62),
        (MEMINFO, 1_024_000),
        # cgroup 2, in a container with a name space of its own
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "500000\n",
                "sys/fs/cgroup/memory.current": "300000\n",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 50000\n",
            },
            250_000,
        ),
        # a limit of a group above
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.current": "1\n",
                "sys/fs/cgroup/a/memory.max": "400000\n",
                "sys/fs/cgroup/a/memory.current": "300000\n",
            },
            100_000,
        ),
        # paths of the host
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/kubepods/pod1/c1\n",
                "sys/fs/cgroup/memory.max": "400000\n",
                "sys/fs/cgroup/memory.current": "100000\n",
            },
            300_000,
        ),
        # cgroup 1, beside other controllers
        (
            MEMINFO
            | {
                "proc/self/cgroup": "5:cpu,cpuacct:/d\n4:memory:/d\n0::/\n",
                "sys/fs/cgroup/memory/d/memory.limit_in_bytes": "700000\n",
                "sys/fs/cgroup/memory/d/memory.usage_in_bytes": "300000\n",
                "sys/fs/cgroup/memory/d/memory.stat": "total_inactive_file 100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "300000\n",
            },
            500_000,
        ),
        # more used than allowed
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1\n",
                "sys/fs/cgroup/memory.current": "300000\n",
            },
            0,
        ),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert system(tmp_path, files) == expected


def test_available_memory_of_this_machine() -> None:
    assert 0 < available_bytes() < psutil.virtual_memory().total
