"""What each revision must answer to each sample, known before the load starts, and what is wrong with an answer.

A folder has one `golden.npz` for each revision, in a folder named as the revision is behind its model: `2/golden.npz`
for `digits/2`. A model's own folder in a repository is one. Knows no clock and no channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnout_locust.scenarios import LoadTestError
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import Array, DataType, TensorError, from_raw, to_bytes

GOLDEN = "golden.npz"
RTOL, ATOL = 1e-3, 1e-5  # another batch size may sum in another order
Answer = pb.ModelInferResponse
Told = pb.ModelInferResponse.InferOutputTensor


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one revision answers to one sample, by output. `rtol` is relative to the expected element."""

    arrays: Mapping[str, Array]
    rtol: float = RTOL


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, without id and sticky key, and the answer of each revision."""

    number: int
    request: pb.ModelInferRequest
    by_revision: Mapping[str, Outputs]

    def fault(self, answer: Answer) -> str:
        """What is wrong with an answer of the revision that it names; empty: nothing."""
        revision = revision_of(answer)
        if (expected := self.by_revision.get(revision)) is None:
            known = ", ".join(self.by_revision)
            return f"revision {revision or '(none)'} answered, and expected outputs are known of {known} only"
        pairs = zip(answer.outputs, answer.raw_output_contents, strict=False)
        got = {output.name: (output, raw) for output, raw in pairs}
        for name, array in expected.arrays.items():
            if found := _difference(got.get(name), array, expected.rtol):
                return f"wrong answer: revision {revision}, sample {self.number}, output '{name}' {found}"
        return ""


def revision_of(answer: Answer) -> str:
    """`digits/2@int8`, as the answer's parameter says, where its model_version says the same; else empty. A server
    with --no-response-identity says the version only."""
    plain = f"{answer.model_name}/{answer.model_version}"
    if "turnout_revision" not in answer.parameters:
        return plain
    named = answer.parameters["turnout_revision"].string_param
    return named if named.partition("@")[0] == plain else ""


def read_samples(folder: Path, model: str, batched: bool, versions: Sequence[str] = ()) -> list[Sample]:
    """The samples that the revisions in a folder have in common: each row is one where the model batches.

    Args:
        versions: only these; none: all that there are.

    Raises:
        LoadTestError: there are none, or the revisions have different inputs.
    """
    found = sorted(file.parent.name for file in folder.glob(f"*/{GOLDEN}"))
    chosen = [name for name in found if name.partition("@")[0] in versions] if versions else found
    missing = sorted(set(versions) - {name.partition("@")[0] for name in chosen})
    if missing or not chosen:
        wanted = f"version {', '.join(missing)}" if missing else "any version"
        raise LoadTestError(f"'{folder.name}' has no {GOLDEN} of {wanted}: SAMPLES=FILE.npz makes them")
    stored = {f"{model}/{name}": _read(folder / name / GOLDEN) for name in chosen}
    (first, inputs), *others = ((revision, each[0]) for revision, each in stored.items())
    for revision, other in others:
        if inputs.keys() != other.keys() or any((inputs[name] != other[name]).any() for name in inputs):
            raise LoadTestError(
                f"the golden inputs of {first} and {revision} differ; give one file for both: SAMPLES=FILE.npz"
            )
    rows = min(len(array) for array in inputs.values()) if batched else 1
    return [
        Sample(
            row,
            _request(model, _row(inputs, row, batched)),
            {revision: Outputs(_row(each[1], row, batched), each[2]) for revision, each in stored.items()},
        )
        for row in range(rows)
    ]


def request_of(model: str, inputs: Mapping[str, Array]) -> pb.ModelInferRequest:
    """A request with these inputs, in the raw form."""
    return _request(model, inputs)


def _request(model: str, inputs: Mapping[str, Array]) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = DataType.from_numpy(array.dtype)
        message.inputs.add(name=name, datatype=datatype.value, shape=array.shape)
        message.raw_input_contents.append(to_bytes(array, datatype))
    return message


def _row(arrays: Mapping[str, Array], row: int, batched: bool) -> dict[str, Array]:
    return {name: array[row : row + 1] if batched else array for name, array in arrays.items()}


def _read(file: Path) -> tuple[dict[str, Array], dict[str, Array], float]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise LoadTestError(f"{file.parent.name}/{GOLDEN} cannot be read: {error}") from None
    inputs, outputs = (
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for prefix in ("input.", "output.")
    )
    if not inputs or not outputs:
        raise LoadTestError(f"{file.parent.name}/{GOLDEN} needs an input.NAME and an output.NAME at least")
    return inputs, outputs, float(arrays["rtol"]) if "rtol" in arrays else RTOL


def _difference(told: tuple[Told, bytes] | None, expected: Array, rtol: float) -> str:
    """How what came differs from what is expected; empty: not beyond the tolerance."""
    if told is None:
        return "is missing"
    output, raw = told
    datatype = DataType.from_numpy(expected.dtype)
    if (output.datatype, *_sides(output.shape)) != (datatype.value, *_sides(expected.shape)):
        got, wanted = list(output.shape), list(expected.shape)
        return f"is {output.datatype} {got}, and not {datatype.value} {wanted}"
    try:
        return _apart(from_raw(raw, datatype, expected.shape), expected, rtol)
    except TensorError as error:
        return f"has another size: {error}"


def _apart(got: Array, expected: Array, rtol: float) -> str:
    """As `_difference`, of elements."""
    if DataType.from_numpy(expected.dtype) is DataType.BYTES:
        right = [str(each).encode() for each in expected.reshape(-1).tolist()]
        return "" if got.reshape(-1).tolist() == right else "has other strings"
    if expected.dtype.kind not in "fV":
        differing = int(np.count_nonzero(got != expected))
        return f"has {differing} other elements of {expected.size}" if differing else ""
    ours, wanted = got.astype(np.float64), expected.astype(np.float64)
    close = np.isclose(ours, wanted, rtol, ATOL, equal_nan=True)  # an infinity is close to itself alone
    if close.all():
        return ""
    apart = np.max(np.abs(ours[~close] - wanted[~close]))
    return f"differs by {float(apart):.2g}, {ATOL:g} + {rtol:g} of the expected value is allowed"


def _sides(shape: Iterable[int]) -> list[int]:
    """Without those of 1, which a model's configuration may add to what is in the file, or take away."""
    return [side for side in shape if side != 1]
