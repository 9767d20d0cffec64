"""One shadow rule at work between two revisions: copies on their way, and what was found of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from turnout.core.comparators import Precision, by_output
from turnout.core.copies import Copy, Drop, Pair, PairKind
from turnout.core.ids import Revision
from turnout.core.offers import coarser
from turnout.core.pairs import PairDivergence
from turnout.core.records import Compared, Scores, ShadowReport
from turnout.core.references import Learned, References
from turnout.core.shadow_rules import ShadowRule
from turnout.core.shadow_window import AgreementTest, Window
from turnout.core.tensors import Signature
from turnout.runtime.budget import Budget
from turnout.runtime.comparing import Comparer, Comparison
from turnout.runtime.lane import Lane, LaneLimits
from turnout.runtime.ports import ClockNs, Tracer
from turnout.runtime.shadow_account import ShadowAccount
from turnout.runtime.slot import Slot
from turnout.runtime.tracing import NO_TRACER, EndedCopy
from turnout.runtime.under_way import UnderWay

# Noise runs in the live slot: a request that comes then waits for a run of one row at most.
_NOISE_RUN_ROWS_MAX = 1
_NAMED = 10  # classes, to who sends none of them
_REFERENCES_MAX = 20_000  # pairs that a label may still come for


@dataclass(frozen=True, slots=True)
class Live:
    """Who answers clients."""

    slot: Slot
    revision: Revision
    signature: Signature
    labels: Mapping[str, Sequence[str]]  # of classes, by output


class Shadowing:
    """Used on the loop thread only.

    Args:
        clock_ns: monotonic, for copies on their way.
        now_ns: the time of day, for what is told.
        told: takes each pair that was compared.
    """

    def __init__(
        self,
        rule: ShadowRule,
        live: Live,
        slot: Slot,
        revision: Revision,
        clock_ns: ClockNs,
        now_ns: ClockNs,
        comparer: Comparer,
        account: ShadowAccount,
        told: Callable[[Compared], None],
        shared: Budget,
        under_way: UnderWay,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.rule = rule
        self._references = References(_REFERENCES_MAX)
        self._places: dict[str, dict[str, int]] = {}  # of outputs that labels came for
        self._live = live
        self._slot = slot
        self._revision = revision
        self._now_ns = now_ns
        self._comparer = comparer
        self._account = account
        self._told = told
        self._tracer = tracer
        self._comparators = by_output(rule.comparators)
        self._window = Window(now_ns(), AgreementTest(noise=rule.noise_bp > 0))
        self._dropped: Counter[Drop] = Counter()
        limits = LaneLimits(rule.queue_max, rule.bytes_max, rule.deadline_ns)
        gentle = replace(limits, run_rows_max=_NOISE_RUN_ROWS_MAX)
        itself, more = (live.slot, live.revision, live.slot), (shared, under_way, tracer)
        self._copies = Lane(slot, revision, live.slot, limits, clock_ns, self._paired, self.drop, *more)
        self._noise = Lane(*itself, gentle, clock_ns, self._paired, _uncounted, *more)

    def fits(self, rule: ShadowRule, live: Revision, shadow: Revision) -> bool:
        """Whether this is still what is to be compared."""
        same = rule is self.rule and live is self._live.revision and shadow is self._revision
        return same or (rule == self.rule and live == self._live.revision and shadow == self._revision)

    def offer(self, copy: Copy, noise: bool) -> None:
        """A copy to the shadow slot, and with `noise` one to the live slot."""
        self._copies.offer(copy)
        if noise and copy.live.outputs is not None:
            self._noise.offer(replace(copy, kind=PairKind.NOISE))

    @property
    def key(self) -> tuple[str, str]:
        """The model and the shadow revision, as metrics name them."""
        return self._revision.model, str(self._revision)

    @property
    def queued(self) -> int:
        """Copies on their way, until they are compared."""
        return self._copies.copies

    def drop(self, reason: Drop, count: int = 1) -> None:
        self._dropped[reason] += count
        self._account.drop(*self.key, reason, count)

    def learn(self, inference_id: str, output: str, label: str) -> Learned:
        """Score both answers by the right class; of several rows one for each, separated by commas. Only a label that
        is waited for is read.

        Args:
            output: by name; "": the first of this request that is compared by class.

        Raises:
            ValueError: a label that is no class, or another number of labels than rows.
        """
        output = output or next(iter(self._references.outputs_of(inference_id)), "")
        rows = self._references.rows_of(inference_id, output)
        classes = _classes(label, rows, self._places_of(output)) if rows else ()
        return self._references.learn(inference_id, output, classes)

    def _places_of(self, output: str) -> Mapping[str, int]:
        """Classes by name; of equal names the first."""
        if output not in self._places:
            places = self._places[output] = {}
            for place, name in enumerate(self._live.labels.get(output, ())):
                places.setdefault(name, place)
        return self._places[output]

    def close(self) -> None:
        """What waits is forgotten, what runs ends unseen."""
        self._copies.close()
        self._noise.close()

    def report(self) -> ShadowReport:
        return ShadowReport(
            self._revision.model,
            self._live.slot.name,
            self._live.revision,
            self._slot.name,
            self._revision,
            self._window.summary(self._now_ns()),
            dict(self._dropped),
            self.queued,
            tuple(
                Scores(output, self._references.score(output), self._references.scores(output))
                for output in self._references.outputs
            ),
            self._live.labels,
        )

    def _paired(self, pair: Pair) -> None:
        batched = self._live.signature.rows_max > 0
        precision = coarser(_precision(self._live.slot), _precision(self._slot))
        self._comparer.put(Comparison(pair, self._comparators, batched, self._compared, precision))

    def _compared(self, pair: Pair, divergence: PairDivergence | None, digest: str) -> None:
        noise = pair.copy.kind is PairKind.NOISE
        (self._noise if noise else self._copies).forget(pair.copy)
        if pair.trace is not None:
            result = divergence.result if divergence is not None else None
            self._tracer.copy_ended(EndedCopy(pair.trace, pair, result))
        if divergence is None:
            return
        now_ns = self._now_ns()
        self._account.compared(pair, divergence)
        if noise:
            self._window.observe_noise(digest, divergence, now_ns)
        else:
            inference_id = pair.copy.request.inference_id
            self._window.observe(inference_id, digest, divergence, now_ns)
            self._references.remember(inference_id, divergence)
            if pair.copy.live.duration_ns and pair.shadow.duration_ns:
                self._window.observe_latency(pair.copy.live.duration_ns, pair.shadow.duration_ns, now_ns)
        self._told(Compared(pair, divergence, digest, now_ns))


def _precision(slot: Slot) -> Precision:
    return slot.cargo.precision if slot.cargo is not None else Precision.SINGLE


def _classes(label: str, rows: int, places: Mapping[str, int]) -> list[int]:
    """One for each row. A name may hold commas: of one row, the whole label may be one."""
    if rows == 1 and (place := places.get(label.strip())) is not None:
        return [place]
    count = label.count(",") + 1
    if count != rows:
        raise ValueError(f"there are {count} label(s) for {rows} row(s): send one for each row")
    return [_class(each.strip(), places) for each in label.split(",")]


def _class(label: str, places: Mapping[str, int]) -> int:
    if (place := places.get(label)) is not None:
        return place
    try:
        return int(label)
    except ValueError:
        known = f"one of {', '.join(islice(places, _NAMED))}" if places else "a whole number"
        raise ValueError(f"'{label[:64]}' is no class: it must be {known}") from None


def _uncounted(reason: Drop, count: int) -> None:
    """Noise that was not measured says nothing of the shadow; how much was, is told."""
