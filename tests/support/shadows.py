"""Shadow rules for tests, and what is told of comparisons, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from support.world import request
from turnout.core.comparators import Comparator, Method, by_output
from turnout.core.copies import Copy, Drop, Pair, PairKind, Side
from turnout.core.divergence import compare
from turnout.core.ids import Revision
from turnout.core.records import Compared, Scores, ShadowReport
from turnout.core.references import Score
from turnout.core.sampling import Export, Rule
from turnout.core.shadow_rules import ShadowRule
from turnout.core.shadow_window import AgreementTest, Window
from turnout.core.tensors import Tensors, Timings

NOW_NS = 1_700_000_000 * 10**9
MS = 10**6
ARGMAX = Comparator("p", Method.ARGMAX)


def shadow_rule(slot: str, sample_bp: int = 10_000, **more: Any) -> ShadowRule:
    """Copies of everything, bounded, without noise or comparators; unless told otherwise."""
    known = {"salt": "", "comparators": (), "queue_max": 64, "bytes_max": 1 << 20, "deadline_ns": 10**9, "noise_bp": 0}
    return ShadowRule(slot, sample_bp, **{**known, **more})


def revision(version: int, model: str = "m", variant: str = "") -> Revision:
    return Revision(model, version, variant, f"digest-{version}{variant}")


def side(slot: str, version: int, outputs: Tensors | None, model: str = "m", **more: Any) -> Side:
    """It waited 1 ms in its queue and took 4 ms in all."""
    timings = Timings(1 * MS, 1 * MS, 1 * MS, 1 * MS, 8) if outputs is not None else None
    return Side(slot, revision(version, model), outputs, timings, **more)


def scores(*rows: list[float]) -> Tensors:
    return {"p": np.array(rows, np.float32)}


def compared(
    live: Side, shadow: Side, *asked: Comparator, kind: PairKind = PairKind.SHADOW, inference_id: str = "id"
) -> Compared:
    """A pair, compared as it would be."""
    given = request(1.5, model=live.revision.model, inference_id=inference_id)
    copy = Copy(given, live, kind, 7, NOW_NS, 1, 100)
    return Compared(Pair(copy, shadow), compare(live.outputs, shadow.outputs, by_output(asked)), "0f" * 8, NOW_NS)


def confused(slot: str = "green", model: str = "m", inference_id: str = "id") -> Compared:
    """Class 0 is taken for class 1."""
    live, shadow = scores([0.75, 0.25]), scores([0.125, 0.875])
    return compared(side("blue", 1, live, model), side(slot, 2, shadow, model), ARGMAX, inference_id=inference_id)


def told(record: Compared, rule: Rule = Rule.MISMATCH, probability: float = 0.5) -> Export[Compared]:
    return Export(record, rule, probability)


def report(slot: str = "green", model: str = "m", pairs: int = 1, **more: Any) -> ShadowReport:
    """After pairs such as `confused`, as many replays that agree, and a drop."""
    window = Window(NOW_NS, AgreementTest())
    same = compare(scores([0.75, 0.25]), scores([0.75, 0.25]))
    for number in range(pairs):
        window.observe(f"id-{number}", f"digest-{number}", confused(slot, model).divergence, NOW_NS)
        window.observe_noise(f"digest-{number}", same, NOW_NS)
        window.observe_latency(4 * MS, 6 * MS, NOW_NS)
    known: dict[str, Any] = {
        "dropped": {Drop.DEADLINE: 3},
        "queued": 5,
        "scores": (Scores("p", Score(4, 1, 2, 1), {"0": Score(4, 1, 2, 1)}),),
        "labels": {},
    }
    sides = "blue", revision(1, model), slot, revision(2, model)
    return ShadowReport(model, *sides, window.summary(NOW_NS), **{**known, **more})
