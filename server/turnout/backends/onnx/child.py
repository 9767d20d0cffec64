"""The child process of `preflight`: limits itself, loads a model as the server does, runs it once, and tells how that
went, in lines of JSON. Its order comes on standard input, the files as descriptors."""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from turnout.backends.onnx.backend import OnnxBackend, OnnxOptions
from turnout.core.errors import LoadError
from turnout.core.ids import Revision
from turnout.core.model import Artefact, Device, Execution, OpenArtefact, Placement, Provider
from turnout.core.tensors import ANY, TensorSpec
from turnout.runtime.ports import Loaded
from turnout_wire.tensors import Array, DataType

_PR_SET_PDEATHSIG = 1
_WRITTEN_BYTES_MAX = 1 << 16  # into any file: what it says on standard error
_STACK_BYTES = 8 << 20  # of a thread, where there is no limit to tell
# How numpy, C++ and ONNX Runtime say it.
_NO_MEMORY = ("Unable to allocate", "bad_alloc", "Failed to allocate", "Cannot allocate memory")


def main() -> None:
    """Ends the process: ONNX Runtime's threads are not waited for."""
    order = json.load(sys.stdin.buffer)
    _end_with(order["parent"])
    _limit(order)
    told = _try(order)
    _tell(order["answer"], told)
    os._exit(0)


def _try(order: Mapping[str, Any]) -> dict[str, object]:
    opened = OpenArtefact(order["model"], order["files"], order["libraries"])
    artefact = Artefact(Revision("", 0, "", ""), lambda: nullcontext(opened))
    backend = OnnxBackend(OnnxOptions(Placement(Provider.CPU), *order["threads"]), alone=True)
    bytes_before = _status_bytes("VmRSS")
    try:
        loaded = backend.load(artefact, _execution(order["execution"]))
        _tell(order["answer"], {"step": "run"})
        _run(loaded)
    except (LoadError, MemoryError) as error:
        return {"out_of_memory": True} if _lacks_memory(error) else {"problem": str(error)}
    return {"memory_bytes": max(_status_bytes("VmHWM") - bytes_before, 0)}


def _run(loaded: Loaded) -> None:
    """A model may refuse data that was made up; that is no reason not to serve it.

    Raises:
        MemoryError: it did not get the memory that it needs.
    """
    outputs = [spec.name for spec in loaded.declared.outputs]
    for number in (0, 1):  # an index of 1 may be out of range, a divisor of 0 is
        inputs = {spec.name: _filled(spec, number) for spec in loaded.declared.inputs if not spec.optional}
        try:
            loaded.sessions[0].run(inputs, outputs)
        except Exception as error:
            if _lacks_memory(error):
                raise MemoryError from error
        else:
            return


def _filled(spec: TensorSpec, number: int) -> Array:
    shape = [1 if dim == ANY else dim for dim in spec.shape]
    return np.full(shape, str(number) if spec.datatype is DataType.BYTES else number, spec.datatype.dtype)


def _execution(fields: Mapping[str, Any]) -> Execution:
    return Execution(**{**{name: _frozen(value) for name, value in fields.items()}, "device": Device(fields["device"])})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _lacks_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or any(words in str(error) for words in _NO_MEMORY)
        or (error.__cause__ is not None and _lacks_memory(error.__cause__))
    )


def _end_with(parent: int) -> None:
    """Let the kernel end this process with the server; and if memory runs out all the same, this one first."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(order: Mapping[str, Any]) -> None:
    cores = os.cpu_count() or 1
    execution = order["execution"]
    asked = (*order["threads"], execution["intra_op_threads"] or 0, execution["inter_op_threads"] or 0)
    stack_bytes, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stacks = (cores + sum(asked)) * (_STACK_BYTES if stack_bytes == resource.RLIM_INFINITY else stack_bytes)
    files = sum(os.fstat(fd).st_size for fd in order["files"].values())
    limits = {
        # Address space, of which importing has taken much without using it, and stacks will.
        resource.RLIMIT_AS: _status_bytes("VmSize") + stacks + files + order["memory_bytes_max"],
        # Ends it even where nobody waits for it any more.
        resource.RLIMIT_CPU: math.ceil(order["timeout_s"] * cores) + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _WRITTEN_BYTES_MAX,
    }
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (value, value))


def _status_bytes(name: str) -> int:
    """VmSize: address space; VmRSS, VmHWM: memory in use, and its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not tell {name}")


def _tell(fd: int, told: Mapping[str, object]) -> None:
    os.write(fd, json.dumps(told).encode() + b"\n")
