"""Looks for the few nodes to keep in fp32 when a variant is over its budget: each node is quantized alone, and those
that cost most are kept, one more each time, until the budget holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from turnout.core.parity import Accuracy, OutputParity
from turnout.variants.graphs import Node
from turnout.variants.progress import Progress
from turnout.variants.recipes import HEAVY, OPS, Recipe

NODES_MAX = 64  # that are tried alone: each takes a conversion and a run over all samples


@dataclass(frozen=True, slots=True)
class Attempt:
    """A recipe, what it gave, and what of that is over the budget; `accuracy` None without labels."""

    recipe: Recipe
    outputs: tuple[OutputParity, ...]
    failures: tuple[str, ...]
    accuracy: Accuracy | None = None


Try = Callable[[Recipe], Attempt]


def search(first: Attempt, listed: list[Node], kept_max: int, attempt: Try, progress: Progress) -> Attempt:
    """The first attempt within the budget that keeps at most `kept_max` nodes more, or the best of all."""
    recipe = first.recipe
    candidates = [node for node in listed if node.quantized and (recipe.method not in OPS or node.op in HEAVY)]
    if len(candidates) > NODES_MAX:
        progress.note(f"search: of {len(candidates)} nodes, the {NODES_MAX} with the largest weights are tried")
        candidates = sorted(candidates, key=lambda node: node.weight_bytes, reverse=True)[:NODES_MAX]
    names = [node.name for node in listed if node.quantized]
    losses: dict[str, float] = {}
    progress.stage("search: each node alone", len(candidates))
    for node in candidates:
        alone = replace(recipe, kept=tuple(name for name in names if name != node.name))
        losses[node.name] = loss(attempt(alone).outputs)
        progress.note(f"search: {node.op} '{node.name}' alone costs {losses[node.name]:.3g}")
        progress.advance(1)
    worst = sorted(losses, key=lambda name: losses[name], reverse=True)
    tried = [first]
    limit = min(kept_max, len(worst) - 1)  # with all of them in fp32 it would be no variant
    progress.stage("search: the worst in fp32", limit)
    for count in range(1, limit + 1):
        tried.append(attempt(replace(recipe, kept=(*recipe.kept, *worst[:count]))))
        progress.note(
            f"search: with {', '.join(repr(name) for name in worst[:count])} in fp32: "
            + ("within the budget" if not tried[-1].failures else "; ".join(tried[-1].failures))
        )
        progress.advance(1)
        if not tried[-1].failures:
            return tried[-1]
    return min(tried, key=lambda each: loss(each.outputs))


def loss(outputs: tuple[OutputParity, ...]) -> float:
    """One number to rank by: disagreement and mean error relative to the largest element, summed over the outputs."""
    return sum(_loss(output) for output in outputs)


def _loss(output: OutputParity) -> float:
    agreement = output.agreement if output.top1_agreement is None else output.top1_agreement
    lost = 0.0 if agreement is None else 1 - agreement
    if output.error_max and output.error_mean is not None and output.error_relative_max is not None:
        lost += output.error_mean / output.error_max * output.error_relative_max
    return lost + output.nonfinite
