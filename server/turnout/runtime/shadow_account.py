"""What is counted of shadowing for metrics: totals that only grow, whatever becomes of rules and revisions meanwhile.

Plain integers and logarithmic bins, written on the loop thread only, like `runtime/account`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from math import isfinite
from typing import TypeVar

from turnout.core.copies import Drop, Pair, PairKind
from turnout.core.pairs import OutputDivergence, PairDivergence, Result
from turnout.core.sketch import Sketch

NANO = 10**9  # distances are kept in billionths: sketches hold integers
MILLI = 1000  # and ratios in thousandths
_OUTPUTS_MAX = 8  # of one revision, the first that are seen
_OTHER = "_OTHER"
_DISTANCE_MAX = 1e9  # what is further apart counts as that
_REVISIONS_MAX = 256  # beyond it, nothing is counted of further ones
_COMPARISONS_MAX = 2000  # sets of attributes, as OpenTelemetry's specification bounds them; beyond it as well


K = TypeVar("K", bound=Hashable)


class ShadowAccount:
    """Keys are names as they are told: of models, and of revisions such as `digits/2`."""

    def __init__(self) -> None:
        self.comparisons: Counter[tuple[str, str, str, PairKind, Result]] = Counter()  # model, live, shadow
        self.dropped: Counter[tuple[str, str, Drop]] = Counter()  # model, shadow
        self.distances: dict[tuple[str, str, str, str], Sketch] = {}  # model, shadow, output, metric
        self.distance_sums: Counter[tuple[str, str, str, str]] = Counter()
        self.durations: dict[tuple[str, str], Sketch] = {}  # model, revision
        self.duration_sums_ns: Counter[tuple[str, str]] = Counter()
        self.ratios: dict[tuple[str, str], Sketch] = {}  # model, shadow
        self.ratio_sums: Counter[tuple[str, str]] = Counter()
        self._outputs: dict[tuple[str, str], set[str]] = {}

    def drop(self, model: str, shadow: str, reason: Drop, count: int) -> None:
        if self._known(model, shadow):
            self.dropped[model, shadow, reason] += count

    def compared(self, pair: Pair, divergence: PairDivergence) -> None:
        model, live, shadow = pair.copy.request.model, str(pair.copy.live.revision), str(pair.shadow.revision)
        if not self._known(model, shadow):
            return
        counted = (model, live, shadow, pair.copy.kind, divergence.result)
        if counted in self.comparisons or len(self.comparisons) < _COMPARISONS_MAX:
            self.comparisons[counted] += 1
        if pair.copy.kind is not PairKind.SHADOW:
            return
        for output in divergence.outputs:
            self._measure(model, shadow, output)
        if pair.shadow.timings is not None:
            key = (model, shadow)
            _sketch(self.durations, key).observe(pair.shadow.duration_ns)
            self.duration_sums_ns[key] += pair.shadow.duration_ns
            if pair.copy.live.duration_ns:
                ratio = pair.shadow.duration_ns * MILLI // pair.copy.live.duration_ns
                _sketch(self.ratios, key).observe(ratio)
                self.ratio_sums[key] += ratio

    def _measure(self, model: str, shadow: str, output: OutputDivergence) -> None:
        names = self._outputs[model, shadow]
        if output.name not in names and len(names) >= _OUTPUTS_MAX:
            name = _OTHER
        else:
            names.add(output.name)
            name = output.name
        measures = (("max_abs", output.max_abs), ("max_rel", output.max_rel), ("js", output.js))
        for metric, value in (*measures, ("cosine", output.cosine)):
            if value is not None and isfinite(value):
                key = (model, shadow, name, metric)
                scaled = round(min(abs(value), _DISTANCE_MAX) * NANO)
                _sketch(self.distances, key).observe(scaled)
                self.distance_sums[key] += scaled

    def _known(self, model: str, shadow: str) -> bool:
        key = (model, shadow)
        if key not in self._outputs:
            if len(self._outputs) >= _REVISIONS_MAX:
                return False
            self._outputs[key] = set()
        return True


def _sketch(sketches: dict[K, Sketch], key: K) -> Sketch:
    """Made when it is first asked for."""
    if (sketch := sketches.get(key)) is None:
        sketch = sketches[key] = Sketch()
    return sketch
