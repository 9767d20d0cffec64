"""The figures of `make bench`, each a unit of its own, in the order in which they are measured."""

from __future__ import annotations

from turnout_bench.figures import (
    ceiling,
    cost,
    efficiency,
    goodput,
    lifecycle,
    loading,
    queueing,
    shadow,
    tail,
    telemetry,
    variants,
)
from turnout_bench.figures.figure import Figure, Measured

FIGURES: tuple[Figure, ...] = (
    *cost.FIGURES,
    *efficiency.FIGURES,
    *goodput.FIGURES,
    *tail.FIGURES,
    *queueing.FIGURES,
    *ceiling.FIGURES,
    *lifecycle.FIGURES,
    *loading.FIGURES,
    *telemetry.FIGURES,
    *shadow.FIGURES,
    *variants.FIGURES,
)

__all__ = ["FIGURES", "Figure", "Measured"]
