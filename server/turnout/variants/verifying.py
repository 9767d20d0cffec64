"""Compares two revisions on samples: what they answer, how long they take, what memory they need. Shows nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution
from turnout.core.parity import Accuracy, Kind, OutputParity, accuracy, parity
from turnout.core.tensors import Tensors
from turnout.core.variants import Budget, over_budget
from turnout.runtime.ports import Backend, ClockNs, Loaded
from turnout.variants import calibrating, machine, timing
from turnout.variants.calibrating import Rows
from turnout.variants.details import OutputDetail, as_json, detail
from turnout.variants.progress import Progress
from turnout.variants.recipes import QuantizeError
from turnout.variants.running import Runner, answers
from turnout.variants.timing import Point, Runs
from turnout_wire.tensors import Array

FORMAT = 1
BATCH_SIZES = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A revision as the repository has it now, and how its model is run."""

    artefact: Artefact
    execution: Execution


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Inputs as the models take them, right answers for each row where there are any, and where both are from."""

    inputs: Tensors
    labels: Array | None
    source: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process that has nothing but one revision: what loading it took, and the peak while it ran at each size."""

    loaded_bytes: int
    peak_bytes: Mapping[int, int]


class MeasureMemory(Protocol):
    def __call__(self, revision: Revision, inputs: Mapping[int, Tensors]) -> Memory:
        """Raises:
        QuantizeError: it cannot be measured here; why.
        """


@dataclass(frozen=True, slots=True)
class Check:
    """What is asked for. `time_ns`: of measuring at each batch size; 0: answers are compared, and nothing else."""

    samples: SampleSet
    budget: Budget
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """One of both. `place`: the provider that it ran on."""

    revision: str
    digest: str
    bytes: int
    place: str
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of it. `failures`: what is over the budget; empty: nothing. `notes`: what could not be measured."""

    reference: Side
    candidate: Side
    rows: int
    source: str
    budget: Budget
    outputs: tuple[OutputParity, ...]
    details: tuple[OutputDetail, ...]
    accuracy: tuple[Accuracy, ...]
    latency: tuple[Point, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    machine: Mapping[str, str]
    libraries: Mapping[str, str]
    created_at: str

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self)
        plain["outputs"] = [
            {**asdict(output), "kind": output.kind.value, **as_json(each)}
            for output, each in zip(self.outputs, self.details, strict=True)
        ]
        del plain["details"]
        return {"format": FORMAT, **plain}


def verify(
    reference: Candidate,
    candidate: Candidate,
    check: Check,
    backend: Backend,
    clock_ns: ClockNs,
    measure_memory: MeasureMemory | None,
    progress: Progress,
    created_at: str,
) -> Verification:
    """Run both on all samples, and judge the difference.

    Raises:
        QuantizeError: one does not load or run, or the samples fit one of them not; what it says is for an operator.
    """
    sides = reference, candidate
    loaded, rows = [], []
    for each in sides:
        progress.stage(f"loading {each.artefact.revision}")
        runner = Runner(backend, each.execution)
        loaded.append(runner.version(each.artefact))
        rows.append(calibrating.check(check.samples.inputs, loaded[-1].declared, check.samples.source))
    labels = _labels(check.samples, rows[0])
    found = []
    for each, model, mine in zip(sides, loaded, rows, strict=True):
        progress.stage(f"running {each.artefact.revision}", mine.count)
        found.append(_answers(each, model, mine, progress))
    outputs = _compared(found, check.kinds, sides)
    notes: list[str] = []
    points = _timed(loaded, rows, check, clock_ns, progress, notes) if check.time_ns else ()
    ours, theirs = (
        _side(each, model, _memory(each, model, rows, points, measure_memory, progress, notes))
        for each, model in zip(sides, loaded, strict=True)
    )
    return Verification(
        reference=ours,
        candidate=theirs,
        rows=rows[0].count,
        source=check.samples.source,
        budget=check.budget,
        outputs=outputs,
        details=tuple(detail(output, found[0][output.name], found[1][output.name], labels) for output in outputs),
        accuracy=_accuracies(outputs, found, labels),
        latency=points,
        failures=over_budget(outputs, check.budget),
        notes=tuple(dict.fromkeys(notes)),
        machine=machine.read(),
        libraries=machine.libraries(),
        created_at=created_at,
    )


def _labels(samples: SampleSet, rows: Rows) -> Array | None:
    labels = samples.labels
    if labels is None:
        return None
    if labels.size != rows.count or len(labels) != rows.count:
        raise QuantizeError(
            f"{samples.source}: there are labels of shape {list(labels.shape)} for {rows.count} rows: give one for each"
        )
    return labels.ravel()


def _answers(each: Candidate, model: Loaded, rows: Rows, progress: Progress) -> dict[str, Array]:
    try:
        return answers(model, rows, progress.advance)
    except QuantizeError as error:
        raise QuantizeError(f"{each.artefact.revision}: {error}") from error


def _compared(
    found: Sequence[Mapping[str, Array]], kinds: Mapping[str, Kind], sides: Sequence[Candidate]
) -> tuple[OutputParity, ...]:
    try:
        return parity(found[0], found[1], kinds)
    except ValueError as error:
        ours, theirs = (str(side.artefact.revision) for side in sides)
        raise QuantizeError(f"{theirs} cannot be compared with {ours}: {error}") from error


def _accuracies(
    outputs: Sequence[OutputParity], found: Sequence[Mapping[str, Array]], labels: Array | None
) -> tuple[Accuracy, ...]:
    """Of every output that has a class for each row."""
    told = []
    for output in outputs:
        ours, theirs = found[0][output.name], found[1][output.name]
        whole = output.kind is Kind.SCORES or (output.kind is Kind.LABELS and ours.size == output.rows)
        if labels is not None and whole and _comparable(output, ours, labels):
            told.append(accuracy(output.name, ours, theirs, labels))
    return tuple(told)


def _comparable(output: OutputParity, answered: Array, labels: Array) -> bool:
    """Numbers with numbers, words with words."""
    if output.kind is Kind.SCORES:
        return labels.dtype.kind in "iu"
    return (labels.dtype.kind in "iub") == (answered.dtype.kind in "iub")


def _timed(
    loaded: Sequence[Loaded],
    rows: Sequence[Rows],
    check: Check,
    clock_ns: ClockNs,
    progress: Progress,
    notes: list[str],
) -> tuple[Point, ...]:
    sizes = _sizes(rows)
    if not sizes:
        notes.append("latency was not measured: the models take no batch size in common")
        return ()
    progress.stage("measuring latency in turns", len(sizes))
    runs = [Runs(model.sessions[0], [spec.name for spec in model.declared.outputs]) for model in loaded]
    inputs = timing.batches(rows[0].inputs, rows[0].count, sizes)
    return timing.measure(runs[0], runs[1], inputs, clock_ns, check.time_ns, progress.advance)


def _sizes(rows: Sequence[Rows]) -> list[int]:
    """BATCH_SIZES, or the only size that a model takes."""
    if any(each.batch is None for each in rows):
        return []
    fixed = {each.batch for each in rows if each.fixed}
    return list(BATCH_SIZES) if not fixed else [size for size in fixed if size is not None and len(fixed) == 1]


def _memory(
    each: Candidate,
    model: Loaded,
    rows: Sequence[Rows],
    points: Sequence[Point],
    measure: MeasureMemory | None,
    progress: Progress,
    notes: list[str],
) -> Memory | None:
    if measure is None or not points:
        return None
    if set(model.providers) != {"cpu"}:
        notes.append("memory was not measured: it is a device's, which other processes share")
        return None
    progress.stage(f"measuring the memory of {each.artefact.revision}")
    try:
        return measure(each.artefact.revision, timing.batches(rows[0].inputs, rows[0].count, [p.rows for p in points]))
    except QuantizeError as error:
        notes.append(f"memory was not measured: {error}")
        return None


def _side(each: Candidate, model: Loaded, memory: Memory | None) -> Side:
    revision = each.artefact.revision
    place = ", ".join(dict.fromkeys(model.providers))
    return Side(str(revision), revision.digest, each.artefact.size_bytes, place, memory)
