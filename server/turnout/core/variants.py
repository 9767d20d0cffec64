"""What a variant has to show before it may serve: its report, the budget in it, and why it does not stand.

A variant is a revision made from a version's own model file, smaller or faster and nearly the same. The report is
written by `turnout quantize` (the comparison: `core/parity`); what it says of its own success is never trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, TypeAlias

from turnout.core.fields import Fields, is_number
from turnout.core.ids import printable
from turnout.core.parity import Accuracy, Kind, OutputParity

FORMAT = 1
AGREEMENT_MIN = 0.99
ERROR_MAX = 0.05

Scalar: TypeAlias = str | int | float | bool | None
Recipe: TypeAlias = Mapping[str, Scalar | list[Scalar]]

# A report may name any number of outputs by any names, and what speaks against it stands in errors and in the index.
_NAME_SHOWN = 128
_REASONS_SHOWN = 8

_NAME = re.compile(r"[a-z0-9-]{1,32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a variant may differ by: `agreement_min` of classes and labels, `error_max` of values, relative to the
    largest absolute element of the output."""

    agreement_min: float = AGREEMENT_MIN
    error_max: float = ERROR_MAX

    def __post_init__(self) -> None:
        if not 0 <= self.agreement_min <= 1:
            raise ValueError(f"agreement_min is {self.agreement_min:g}, it must be from 0 to 1")
        if not (self.error_max >= 0 and isfinite(self.error_max)):
            raise ValueError(f"error_max is {self.error_max:g}, it must be finite and at least 0")


@dataclass(frozen=True, slots=True)
class Samples:
    """What both were run on: how many rows, and where from."""

    rows: int
    source: str


@dataclass(frozen=True, slots=True)
class VariantReport:
    """How a variant was made, from what, and how near it comes.

    Attributes:
        recipe: what was done: method, calibration, exclusions, nodes kept in fp32.
        source_digest, result_digest: of the manifests of the version and of the variant.
        libraries, machine: versions by name; the processor and its flags that matter.
        accuracy: None without labels.
        created_at: ISO 8601, UTC.
    """

    model: str
    version: int
    variant: str
    recipe: Recipe
    source_digest: str
    result_digest: str
    source_bytes: int
    result_bytes: int
    libraries: Mapping[str, str]
    machine: Mapping[str, str]
    samples: Samples
    budget: Budget
    outputs: tuple[OutputParity, ...]
    accuracy: Accuracy | None
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """As plain data, which `from_json` takes."""
        plain = asdict(self)
        plain["outputs"] = [{**asdict(output), "kind": output.kind.value} for output in self.outputs]
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, plain: object) -> VariantReport:
        """Raises:
        ValueError: naming the field that is missing, unknown, or not what it must be.
        """
        if not isinstance(plain, dict):
            raise ValueError("it is no JSON object")
        report = Fields(plain)
        if (form := report.count("format")) != FORMAT:
            raise ValueError(f"field 'format' is {form}, this Turnout reads {FORMAT}: quantize again, or update it")
        report.only({"format", *(field.name for field in fields(cls))})
        return cls(
            model=report.text("model"),
            version=report.count("version"),
            variant=report.text("variant"),
            recipe=_recipe(report.object("recipe")),
            source_digest=_digest(report, "source_digest"),
            result_digest=_digest(report, "result_digest"),
            source_bytes=report.count("source_bytes"),
            result_bytes=report.count("result_bytes"),
            libraries=report.texts("libraries"),
            machine=report.texts("machine"),
            samples=_samples(report.object("samples")),
            budget=_budget(report.object("budget")),
            outputs=tuple(_output(output) for output in report.objects("outputs")),
            accuracy=_accuracy(report.object("accuracy")) if report.has("accuracy") else None,
            created_at=report.text("created_at"),
        )


def is_variant(text: str) -> bool:
    """Whether `text` may name a variant: lower-case letters, digits and hyphens, 1 to 32 characters."""
    return _NAME.fullmatch(text) is not None


def variant_file(base: str, variant: str, suffix: str | None = None) -> str:
    """The name beside the version's own model file: `model.int8.onnx` beside `model.onnx`, or with another suffix."""
    folder, slash, name = base.rpartition("/")
    stem, dot, own = name.rpartition(".") if "." in name[1:] else (name, "", "")
    return f"{folder}{slash}{stem}.{variant}{dot + own if suffix is None else suffix}"


def report_file(base: str, variant: str) -> str:
    """The name of a variant's report: `model.int8.json` beside `model.onnx`."""
    return variant_file(base, variant, ".json")


def failures(report: VariantReport) -> tuple[str, ...]:
    """What is over the budget, from the measured outputs alone; empty: nothing."""
    return over_budget(report.outputs, report.budget)


def over_budget(outputs: Sequence[OutputParity], budget: Budget) -> tuple[str, ...]:
    """The same, before there is a report."""
    if not outputs:
        return ("no output was compared",)
    return tuple(failure for output in outputs for failure in _failures(output, budget))


def stands(report: VariantReport, base_digest: str, variant_digest: str) -> tuple[str, ...]:
    """Why the variant with this digest, beside a version with that one, may not serve, in as many reasons as anybody
    reads; empty: it may."""
    reasons = []
    if report.source_digest != base_digest:
        reasons.append(
            f"it was made from another version's files (digest {report.source_digest[:12]}, now {base_digest[:12]}): "
            "quantize again"
        )
    if report.result_digest != variant_digest:
        reasons.append(
            f"its report is of other files (digest {report.result_digest[:12]}, now {variant_digest[:12]}): "
            "quantize again"
        )
    reasons += failures(report)
    more = len(reasons) - _REASONS_SHOWN
    return (*reasons[:_REASONS_SHOWN], *([f"{more} reasons more"] if more > 0 else []))


def _failures(output: OutputParity, budget: Budget) -> list[str]:
    found = []
    if not output.rows:
        found.append("no row was compared")
    if output.nonfinite:
        found.append(f"{output.nonfinite} elements are not finite and not the same, the limit is 0")
    match output.kind:
        case Kind.SCORES:
            found += _short("top-1 agreement", output.top1_agreement, budget.agreement_min)
        case Kind.LABELS:
            found += _short("agreement", output.agreement, budget.agreement_min)
        case _:
            error = output.error_relative_max
            if error is None:
                found.append("its error was not measured")
            elif error > budget.error_max:
                found.append(
                    f"the largest error is {error:.3g} of the largest element, the limit is {budget.error_max:g}"
                )
    return [f"output '{printable(output.name[:_NAME_SHOWN])}': {failure}" for failure in found]


def _short(what: str, value: float | None, least: float) -> list[str]:
    if value is None:
        return [f"its {what} was not measured"]
    # Of 9999 in 10000 rows, four digits would round up to the limit.
    return [f"{what} is {value:.6g}, the limit is {least:g}"] if value < least else []


def _recipe(recipe: Fields) -> dict[str, Scalar | list[Scalar]]:
    for name, value in recipe.values.items():
        for each in value if isinstance(value, list) else [value]:
            if not (each is None or isinstance(each, str | bool) or is_number(each)):
                raise recipe.wrong(name, "a text, a finite number, true, false, null, or a list of such")
    return dict(recipe.values)


def _digest(report: Fields, name: str) -> str:
    if not _DIGEST.fullmatch(report.text(name)):
        raise report.wrong(name, "64 lower-case hexadecimal digits")
    return report.text(name)


def _samples(plain: Fields) -> Samples:
    plain.only(("rows", "source"))
    return Samples(plain.count("rows"), plain.text("source"))


def _budget(plain: Fields) -> Budget:
    plain.only(("agreement_min", "error_max"))
    return Budget(plain.share("agreement_min"), plain.number("error_max"))


def _accuracy(plain: Fields) -> Accuracy:
    plain.only(("output", "rows", "reference", "variant"))
    return Accuracy(plain.text("output"), plain.count("rows"), plain.share("reference"), plain.share("variant"))


def _output(plain: Fields) -> OutputParity:
    plain.only([field.name for field in fields(OutputParity)])
    kinds = {kind.value: kind for kind in Kind}
    if (kind := kinds.get(plain.text("kind"))) is None:
        raise plain.wrong("kind", f"one of {', '.join(kinds)}")

    def number(name: str) -> float | None:
        return plain.number(name) if plain.has(name) else None

    def share(name: str) -> float | None:
        return plain.share(name) if plain.has(name) else None

    return OutputParity(
        name=plain.text("name"),
        kind=kind,
        rows=plain.count("rows"),
        error_max=number("error_max"),
        error_mean=number("error_mean"),
        error_p50=number("error_p50"),
        error_p90=number("error_p90"),
        error_p99=number("error_p99"),
        error_relative_max=number("error_relative_max"),
        nonfinite=plain.count("nonfinite"),
        top1_agreement=share("top1_agreement"),
        topk=plain.count("topk") if plain.has("topk") else None,
        topk_agreement=share("topk_agreement"),
        agreement=share("agreement"),
    )
