"""Holds a variant's answers to golden samples of its version against the budget of its report: they may differ by as
much as that allows, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from turnout.core.gates import Gate, GateResult, Verdict
from turnout.core.parity import Kind, OutputParity, parity
from turnout.core.variants import Budget, VariantReport
from turnout_wire.tensors import Array


def golden_within_budget(
    expected: Mapping[str, Array], actual: Mapping[str, Array], report: VariantReport | None
) -> GateResult:
    """Every output against its golden one, the worst told. Without a report, by the default budget."""
    budget = report.budget if report is not None else Budget()
    said = {output.name: output.kind for output in report.outputs} if report is not None else {}
    # What looks like scores and is none, such as an embedding, was said when the variant was made.
    values = {name: kind for name, kind in said.items() if name in expected and kind is Kind.VALUES}
    try:
        outputs = parity({name: _shaped(array, actual.get(name)) for name, array in expected.items()}, actual, values)
    except ValueError as error:
        return GateResult(Gate.GOLDEN, Verdict.FAIL, str(error))
    worst = GateResult(Gate.GOLDEN, Verdict.PASS)
    for output in outputs:
        result = _held(output, expected[output.name].size, budget)
        if result.verdict is Verdict.FAIL:
            return result
        if result.observed >= worst.observed:
            worst = result
    return worst


def _shaped(want: Array, have: Array | None) -> Array:
    """As the model gives it: samples of the version itself may be of another shape with as many elements too."""
    return want.reshape(have.shape) if have is not None and have.size == want.size else want


def _held(output: OutputParity, elements: int, budget: Budget) -> GateResult:
    if output.nonfinite:
        message = f"output '{output.name}': {output.nonfinite} elements are not finite and not the same"
        return GateResult(Gate.GOLDEN, Verdict.FAIL, message, output.nonfinite, 0)
    match output.kind:
        case Kind.VALUES:
            observed, limit = output.error_relative_max or 0.0, budget.error_max
            what = f"differs by {observed:.3g} of its largest element"
        case Kind.SCORES:
            observed, limit = _differing(output.top1_agreement, output.rows, budget)
            what = f"has another class in {observed:g} of {output.rows} rows"
        case _:  # LABELS
            observed, limit = _differing(output.agreement, elements, budget)
            what = f"differs in {observed:g} of {elements} elements"
    if observed <= limit:
        return GateResult(Gate.GOLDEN, Verdict.PASS, "", observed, limit)
    message = f"output '{output.name}' {what} from the golden samples of its version, its budget allows {limit:.3g}"
    return GateResult(Gate.GOLDEN, Verdict.FAIL, message, observed, limit)


def _differing(share: float | None, count: int, budget: Budget) -> tuple[int, int]:
    """How many differ, and how many may: of few samples one, since a share of them cannot be told."""
    observed = round((1 - (1.0 if share is None else share)) * count)
    return observed, ceil((1 - budget.agreement_min) * count - 1e-9)
