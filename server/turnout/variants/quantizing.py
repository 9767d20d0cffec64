"""One quantization from a version to a variant with its report: convert, run both on the samples, search, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from turnout.core.ids import Revision
from turnout.core.model import Artefact, Execution
from turnout.core.parity import Accuracy, Kind, OutputParity, accuracy, parity
from turnout.core.tensors import Signature, Tensors
from turnout.core.variants import Budget, Samples, VariantReport, over_budget
from turnout.runtime.ports import Backend
from turnout.variants import calibrating, graphs, machine, searching
from turnout.variants.calibrating import Rows
from turnout.variants.converting import Converter
from turnout.variants.graphs import Node
from turnout.variants.progress import Progress
from turnout.variants.recipes import QuantizeError, Recipe
from turnout.variants.recipes import check as check_recipe
from turnout.variants.running import Runner, answers
from turnout.variants.searching import Attempt
from turnout.variants.writing import Target
from turnout_wire.tensors import Array


@dataclass(frozen=True, slots=True)
class Version:
    """What a variant is made from.

    Attributes:
        folder, filename: where its model file is configured to be.
        digest_of: of a variant's manifest, by its name, once its model file is in the folder.
    """

    artefact: Artefact
    execution: Execution
    folder: Path
    filename: str
    digest_of: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Given:
    """Samples that somebody named: inputs as the model takes them, where from, and the right answers, if they are
    known."""

    inputs: Tensors
    source: str
    labels: Array | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        kinds: of outputs that are not what they look like.
        calibration, samples: to calibrate with and to be judged by; None: the version's golden samples.
        calibration_rows_max: of those, as many are used.
        kept_max: nodes that the search may keep in fp32; 0: no search.
        force: write it although it is over its budget.
    """

    variant: str
    recipe: Recipe
    budget: Budget
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    calibration: Given | None = None
    samples: Given | None = None
    calibration_rows_max: int = 512
    kept_max: int = 0
    force: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report, and what of it is over the budget; `written`: the model file's name, "" where there is none."""

    report: VariantReport
    failures: tuple[str, ...]
    written: str


def plan(version: Version, recipe: Recipe) -> list[Node]:
    """The nodes of the model as it would be quantized, by the names that exclusions take; nothing is run.

    Raises:
        QuantizeError: as `quantize` does.
    """
    check_recipe(recipe)
    with tempfile.TemporaryDirectory(prefix="turnout-quantize-") as folder:
        return graphs.nodes(_prepared(version, recipe, Path(folder), None).model, recipe)


def quantize(version: Version, order: Order, backend: Backend, progress: Progress) -> Outcome:
    """Make the variant and write it with its report, unless it is over its budget.

    Raises:
        QuantizeError: there is none; nothing was written.
    """
    check_recipe(order.recipe)
    target = Target(version.folder, version.filename, order.variant)
    try:
        target.claim(order.overwrite)
        with tempfile.TemporaryDirectory(prefix="turnout-quantize-") as folder:
            return _Work(version, order, backend, progress, Path(folder)).run(target)
    finally:
        target.release()


class _Work:
    def __init__(self, version: Version, order: Order, backend: Backend, progress: Progress, folder: Path) -> None:
        self._version = version
        self._order = order
        self._runner = Runner(backend, version.execution)
        self._progress = progress
        self._file = folder / "variant.onnx"
        self._folder = folder
        named = version.artefact.revision
        self._revision = Revision(named.model, named.version, order.variant, "")

    def run(self, target: Target) -> Outcome:
        order, progress = self._order, self._progress
        progress.stage("loading the version")
        loaded = self._runner.version(self._version.artefact)
        calibration, judged = _samples(self._version.artefact, order, loaded.declared)
        progress.stage("running the version", judged.count)
        reference = answers(loaded, judged, progress.advance)
        del loaded  # on a GPU, both at once may not fit
        progress.stage(f"preparing the model for {order.recipe.method.value}")
        converter = _prepared(self._version, order.recipe, self._folder, calibration)
        attempt = self._attempt(converter, judged, reference, order.recipe)
        if attempt.failures and order.kept_max:
            listed = graphs.nodes(converter.model, order.recipe)
            attempt = searching.search(
                attempt,
                listed,
                order.kept_max,
                lambda recipe: self._attempt(converter, judged, reference, recipe, quiet=True),
                progress,
            )
            self._attempt(converter, judged, reference, attempt.recipe)  # its file is the one that is written
        made = self._report(attempt, calibration, judged)
        if attempt.failures and not order.force:
            return Outcome(made, attempt.failures, "")
        progress.stage("writing")

        def completed() -> dict[str, object]:
            nonlocal made
            made = replace(made, result_digest=self._version.digest_of(self._order.variant))
            return made.to_json()

        target.write(self._file, completed)
        return Outcome(made, attempt.failures, target.model)

    def _attempt(
        self, converter: Converter, judged: Rows, reference: Mapping[str, Array], recipe: Recipe, quiet: bool = False
    ) -> Attempt:
        if not quiet:
            self._progress.stage("calibrating and converting" if recipe.calibrates else "converting")
        self._file.unlink(missing_ok=True)
        converter.convert(recipe, self._file)
        loaded = self._runner.variant(self._file, self._revision)
        if not quiet:
            self._progress.stage("running the variant", judged.count)
        found = answers(loaded, judged, self._progress.advance if not quiet else lambda _: None)
        outputs = _compared(reference, found, self._order.kinds)
        right = _accuracy(outputs, reference, found, judged.labels)
        return Attempt(recipe, outputs, over_budget(outputs, self._order.budget), right)

    def _report(self, attempt: Attempt, calibration: Rows | None, judged: Rows) -> VariantReport:
        named = self._version.artefact.revision
        recipe = attempt.recipe.plain()
        if calibration is not None:
            recipe |= {"calibration_rows": calibration.count, "calibration_source": calibration.source}
            recipe |= {"calibration_apart": calibration.apart(judged)}
        return VariantReport(
            model=named.model,
            version=named.version,
            variant=self._order.variant,
            recipe=recipe,
            source_digest=named.digest,
            result_digest="0" * 64,  # known when the file is in its place
            source_bytes=self._version.artefact.size_bytes,
            result_bytes=self._file.stat().st_size,
            libraries=machine.libraries(),
            machine={**machine.read(), "provider": self._runner.place},
            samples=Samples(judged.count, judged.source),
            budget=self._order.budget,
            outputs=attempt.outputs,
            accuracy=attempt.accuracy,
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


def _prepared(version: Version, recipe: Recipe, folder: Path, calibration: Rows | None) -> Converter:
    with version.artefact.open() as files:
        if files.libraries:
            raise QuantizeError(
                "the model has libraries of custom operators, which the quantizer does not run: quantize it where it "
                "was exported, and give the result a version of its own"
            )
        model = graphs.read(files)
    graphs.check(model, replace(recipe, exclude_nodes=(), exclude_ops=()))
    converter = Converter(model, folder, calibration)
    converter.prepare(recipe)
    graphs.check(converter.model, recipe)
    return converter


def _samples(artefact: Artefact, order: Order, declared: Signature) -> tuple[Rows | None, Rows]:
    """To calibrate with, where the method does, and to be judged by."""
    golden = artefact.golden() if order.samples is None or order.calibration is None else None
    own = Given(golden.inputs, "golden.npz") if golden is not None else None
    samples = order.samples or own
    if samples is None:
        raise QuantizeError(
            f"{artefact.revision} has no golden.npz, and a variant must be compared on something: give --samples, an "
            "npz of input.NAME arrays"
        )
    judged = calibrating.check(samples.inputs, declared, samples.source, samples.labels)
    if not order.recipe.calibrates:
        return None, judged
    given = order.calibration or (order.samples and own) or None
    calibration = calibrating.check(given.inputs, declared, given.source) if given is not None else judged
    if given is None or calibration.same(judged):
        calibration, judged = calibrating.divide(judged)
    return calibration.first(order.calibration_rows_max).even(), judged


def _compared(
    reference: Mapping[str, Array], found: Mapping[str, Array], kinds: Mapping[str, Kind]
) -> tuple[OutputParity, ...]:
    try:
        return parity(reference, found, kinds)
    except ValueError as error:
        raise QuantizeError(str(error)) from error


def _accuracy(
    outputs: tuple[OutputParity, ...],
    reference: Mapping[str, Array],
    found: Mapping[str, Array],
    labels: Array | None,
) -> Accuracy | None:
    """Of the first output that classes, or labels of this kind, can be right for."""
    if labels is None:
        return None
    for output in outputs:
        ours = reference[output.name]
        by_class = output.kind is Kind.SCORES and labels.dtype.kind in "iu"
        if by_class or (
            output.kind is Kind.LABELS and ours.size == len(labels) and ours.dtype.kind == labels.dtype.kind
        ):
            return accuracy(output.name, ours, found[output.name], labels)
    return None
