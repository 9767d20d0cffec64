"""What is told of shadowing: single pairs and summaries, and both as plain fields under their documented names.

The names are those of the events `turnout.shadow.comparison` and `turnout.shadow.summary`, without the prefix that
`qualified` gives them. No tensor and no element of one is among them, but the places of the largest ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from turnout.core.copies import Drop, Pair, Side
from turnout.core.ids import Revision
from turnout.core.pairs import OutputDivergence, PairDivergence
from turnout.core.references import Score
from turnout.core.sampling import Export
from turnout.core.shadow_window import ShadowSummary

Fields: TypeAlias = dict[str, str | int | float]
_PREFIX = "turnout."
_UNPREFIXED = ("error.", "rpc.")  # OpenTelemetry's own


@dataclass(frozen=True, slots=True)
class Compared:
    """A pair, and what its comparison came to. `digest` is of the request's inputs; `time_ns` the time of day;
    `payload_ref` where its tensors are kept, if they are."""

    pair: Pair
    divergence: PairDivergence
    digest: str
    time_ns: int
    payload_ref: str = ""

    def without_rows(self) -> Compared:
        """As `PairDivergence.without_rows`."""
        return replace(self, divergence=self.divergence.without_rows())

    def without_tensors(self) -> Compared:
        """For whoever keeps it for a while and tells only of it."""
        copy, shadow = self.pair.copy, self.pair.shadow
        bare = replace(copy, request=replace(copy.request, inputs={}), live=replace(copy.live, outputs=None), bytes=0)
        return replace(self, pair=replace(self.pair, copy=bare, shadow=replace(shadow, outputs=None)))


@dataclass(frozen=True, slots=True)
class Scores:
    """Where labels came for an output: in all, and by right class."""

    output: str
    score: Score
    by_class: Mapping[str, Score]


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """One rule at work on two revisions, as it is now. `queued`: copies on their way; `labels`: names of classes, by
    output."""

    model: str
    live_slot: str
    live_revision: Revision
    shadow_slot: str
    shadow_revision: Revision
    summary: ShadowSummary
    dropped: Mapping[Drop, int]
    queued: int
    scores: tuple[Scores, ...] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


def comparison_fields(told: Export[Compared]) -> Fields:
    """What does not apply is not among them."""
    return dict(_given(_of_pair(told)))


def summary_fields(report: ShadowReport) -> Fields:
    """Of the last window, and as `total.*` since the rule began."""
    return dict(_given(_of_summary(report)))


def qualified(fields: Fields) -> Fields:
    """Under their full names, as events and captures have them."""
    return {name if name.startswith(_UNPREFIXED) else _PREFIX + name: value for name, value in fields.items()}


def _given(fields: Iterator[tuple[str, str | int | float | None]]) -> Iterator[tuple[str, str | int | float]]:
    return ((name, value) for name, value in fields if value is not None and value != "")


def _of_pair(told: Export[Compared]) -> Iterator[tuple[str, str | int | float | None]]:
    compared = told.record
    copy, shadow, trace = compared.pair.copy, compared.pair.shadow, compared.pair.trace
    yield "model.name", copy.request.model
    yield "live.revision", str(copy.live.revision)
    yield "shadow.revision", str(shadow.revision)
    yield "live.slot", copy.live.slot
    yield "shadow.slot", shadow.slot
    yield "route.generation", copy.generation
    yield "inference.id", copy.request.inference_id
    if trace is not None:
        yield "shadow.trace_id", trace.ids[0]
        yield "shadow.span_id", trace.ids[1]
    yield "comparison.kind", copy.kind.value
    yield "comparison.result", compared.divergence.result.value
    if compared.divergence.decider is not None:
        yield from _of_output(compared.divergence.decider)
    yield from _of_side("live", copy.live)
    yield from _of_side("shadow", shadow)
    yield "request.digest", compared.digest
    yield "payload.ref", compared.payload_ref
    yield "sampling.probability", told.probability
    yield "sampling.rule", told.rule.value
    if (reason := copy.live.reason or shadow.reason) is not None:
        yield "error.type", reason.name.lower()


def _of_output(output: OutputDivergence) -> Iterator[tuple[str, str | int | float | None]]:
    if (comparator := output.comparator) is not None:
        yield "comparison.method", comparator.method.value
        yield "comparison.atol", comparator.atol
        yield "comparison.rtol", comparator.rtol
        yield "comparison.threshold", comparator.threshold
        yield "comparison.distance", output.distance
    yield "comparison.message", output.message
    yield "output.name", output.name
    yield "output.index", output.worst_index
    yield "mismatch.count", output.mismatch_count
    yield "element.count", output.element_count
    yield "live.argmax", output.live_argmax
    yield "shadow.argmax", output.shadow_argmax
    yield "live.margin", output.live_margin


def _of_side(name: str, side: Side) -> Iterator[tuple[str, str | int | float | None]]:
    if (timings := side.timings) is not None:
        yield f"{name}.batch.size", timings.batch_rows
        yield f"{name}.duration", side.duration_ns / 1e9
        yield f"{name}.queue.duration", timings.queue_ns / 1e9


def _of_summary(report: ShadowReport) -> Iterator[tuple[str, str | int | float | None]]:
    summary = report.summary
    yield "model.name", report.model
    yield "live.slot", report.live_slot
    yield "live.revision", str(report.live_revision)
    yield "shadow.slot", report.shadow_slot
    yield "shadow.revision", str(report.shadow_revision)
    for prefix, agreement in (("", summary.recent), ("total.", summary.total)):
        yield f"{prefix}pair.count", agreement.pair_count
        yield f"{prefix}agreement.rate", agreement.rate
        yield f"{prefix}noise.count", agreement.noise_pair_count
        yield f"{prefix}noise.rate", agreement.noise_rate
    yield "total.distinct.count", summary.total.distinct_count
    yield "total.agreement.low", summary.total.low
    yield "total.agreement.high", summary.total.high
    yield "verdict", summary.verdict.value
    yield "duration.ratio.p50", summary.recent.latency_p50
    yield "duration.ratio.p99", summary.recent.latency_p99
    yield "queue.usage", report.queued
    for reason, count in report.dropped.items():
        yield f"dropped.{reason.value}", count
    for scores in report.scores:
        at = f"reference.{scores.output}"
        yield f"{at}.both_right", scores.score.both_right
        yield f"{at}.only_live", scores.score.only_live
        yield f"{at}.only_shadow", scores.score.only_shadow
        yield f"{at}.both_wrong", scores.score.both_wrong
        yield f"{at}.log10_evidence", scores.score.log10_evidence
