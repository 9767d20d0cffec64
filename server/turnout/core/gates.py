"""What a load is checked for, and the checks that need nothing but data: signatures and golden samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from turnout.core.tensors import Signature, Tensors, TensorSpec
from turnout_wire.tensors import Array

# Relative to the largest element of an output. Other processors and batch sizes round differently; another model
# differs by far more.
RTOL = 1e-3
RTOL_HALF = 1e-2  # FP16 and BF16


class Gate(Enum):
    """In the order in which they are tried."""

    MEMORY = "memory"
    DIGEST = "digest"
    MANIFEST = "manifest"
    REPORT = "report"  # of a variant
    PREFLIGHT = "preflight"
    SIGNATURE = "signature"
    MESSAGE = "message"  # the largest request message that the server takes, which is fixed at its start
    WARMUP = "warmup"
    GOLDEN = "golden"
    FINITE = "finite"


class Verdict(Enum):
    PENDING = "PENDING"
    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"  # nothing speaks against it, and nothing could be shown
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one check came to; `observed` and `limit` where it has numbers."""

    gate: Gate
    verdict: Verdict
    message: str = ""
    observed: float = 0.0
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Golden:
    """Samples of a revision: inputs and the outputs that they gave where it was made, as the model itself takes and
    gives them. `rtol` is relative to the largest element of an output; None: by its datatype."""

    inputs: Tensors
    outputs: Tensors
    rtol: float | None = None


def signature_difference(stable: Signature, other: Signature) -> str:
    """The first thing that a client of `stable` would trip over; "": nothing. More optional inputs, more outputs and
    larger batches are none."""
    for kind, ours, theirs in (
        ("input", stable.inputs, other.inputs),
        ("output", stable.outputs, other.outputs),
    ):
        by_name = {spec.name: spec for spec in theirs}
        for spec in ours:
            if (found := by_name.pop(spec.name, None)) is None:
                return f"it has no {kind} '{spec.name}', the stable one has"
            if difference := _spec_difference(spec, found):
                return f"{kind} '{spec.name}' {difference}"
        for spec in by_name.values():
            if kind == "input" and not spec.optional:
                return f"it needs an input '{spec.name}', the stable one has none"
    if other.rows_max < stable.rows_max:
        return f"its largest batch is {other.rows_max}, that of the stable one {stable.rows_max}"
    if (other.rows_max > 0) != (stable.rows_max > 0):
        return "it batches, the stable one does not"
    return ""


def _spec_difference(ours: TensorSpec, theirs: TensorSpec) -> str:
    if ours.datatype is not theirs.datatype:
        return f"is {theirs.datatype.value}, that of the stable one {ours.datatype.value}"
    if ours.shape != theirs.shape:
        return f"has shape {list(theirs.shape)}, that of the stable one {list(ours.shape)}"
    if ours.optional and not theirs.optional:
        return "is not optional, that of the stable one is"
    return ""


def golden_difference(expected: Mapping[str, Array], actual: Mapping[str, Array], rtol: float | None) -> GateResult:
    """Every output against its golden one, the worst of them told."""
    worst = GateResult(Gate.GOLDEN, Verdict.PASS)
    for name, want in expected.items():
        have = actual[name]
        if have.size != want.size:
            message = f"output '{name}' has shape {list(have.shape)}, its golden samples {list(want.shape)}"
            return GateResult(Gate.GOLDEN, Verdict.FAIL, message)
        have = have.reshape(want.shape)
        limit = rtol if rtol is not None else (RTOL_HALF if have.dtype.itemsize < 4 else RTOL)
        if have.dtype.kind in "fV" and want.dtype.kind in "fV":  # V: bfloat16
            observed = _relative(np.asarray(want, "f8"), np.asarray(have, "f8"))
        else:
            observed, limit = float(np.count_nonzero(have != want)) / max(want.size, 1), 0.0
        if observed > limit:
            message = f"output '{name}' differs from its golden samples by {observed:.3g}, the limit is {limit:.3g}"
            return GateResult(Gate.GOLDEN, Verdict.FAIL, message, observed, limit)
        if observed >= worst.observed:
            worst = GateResult(Gate.GOLDEN, Verdict.PASS, "", observed, limit)
    return worst


def _relative(want: Array, have: Array) -> float:
    """The largest difference over the largest element. What is not finite must be so in both, alike."""
    finite = np.isfinite(want) & np.isfinite(have)
    if not np.array_equal(want[~finite], have[~finite], equal_nan=True):
        return float("inf")
    scale = max(float(np.abs(want[finite]).max(initial=0)), 1e-30)
    return float(np.abs(want[finite] - have[finite]).max(initial=0)) / scale


def nonfinite(outputs: Mapping[str, Array]) -> str:
    """The first output with a NaN or an infinity; "": none."""
    for name, array in outputs.items():
        if array.dtype.kind in "fV" and not np.isfinite(np.asarray(array, "f8")).all():
            return name
    return ""
