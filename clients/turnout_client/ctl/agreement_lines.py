"""Summaries and comparisons as a line each, for pipes and for what was told last."""

from __future__ import annotations

from turnout_client.ctl.agreement import drops, judged, latency_ratios, rate, revisions
from turnout_client.ctl.messages import enum_name
from turnout_client.ctl.tables import clock, printable
from turnout_wire.gen import slots_pb2 as pb


def summary_line(summary: pb.ShadowSummary) -> str:
    window, total = summary.window, summary.total
    said = [f"{summary.model} {summary.shadow_slot}", revisions(summary), f"window {_agreement(window)}"]
    interval = f" ({rate(total.low)} to {rate(total.high)})" if total.pair_count else ""
    said.append(f"total {_agreement(total)}{interval}")
    if total.noise_pair_count:
        said.append(f"noise {rate(total.noise_rate)}")
    said.append(judged(summary))
    if ratios := latency_ratios(summary):
        said.append(ratios)
    if lost := drops(summary):
        said.append(f"not compared: {lost}")
    if summary.HasField("reference"):
        score = summary.reference
        said.append(
            f"labels: only shadow {score.only_shadow_right:,}, only live {score.only_live_right:,} right, evidence "
            f"10^{score.log10_evidence:.1f}"
        )
    return printable("  ".join([clock(summary.window_end_time), *said]))


def comparison_line(comparison: pb.Comparison) -> str:
    noise = "noise " if comparison.kind == pb.COMPARISON_KIND_NOISE else ""
    found = enum_name(comparison, "result").lower()
    said = [f"{comparison.model} {comparison.shadow_slot}", noise + found, comparison.inference_id]
    if comparison.output_name:
        said.append(f"{comparison.output_name}: {_difference(comparison)}")
    if comparison.error_type:
        said.append(comparison.error_type)
    return printable("  ".join([clock(comparison.time), *said]))


def _difference(comparison: pb.Comparison) -> str:
    said = [enum_name(comparison, "method").lower()] if comparison.method else []
    if comparison.HasField("distance") and comparison.method != pb.COMPARISON_METHOD_ARGMAX:  # of classes it is 1
        said.append(f"distance {comparison.distance:.4g}")
    if comparison.HasField("live_argmax") and comparison.HasField("shadow_argmax"):
        live, shadow = comparison.live_argmax, comparison.shadow_argmax
        said.append(f"class {live}" if live == shadow else f"class {live} → {shadow}")
    if comparison.element_count:
        said.append(f"{comparison.mismatch_count:,} of {comparison.element_count:,}")
    return ", ".join(said)


def _agreement(found: pb.Agreement) -> str:
    return f"{found.pair_count:,} pairs {rate(found.rate)}" if found.pair_count else "no pairs"
