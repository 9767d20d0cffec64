"""Shadow rules at work, on virtual time: who gets copies, what is told, and that nothing live ever feels it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from support.traces import KeptTraces
from support.virtual import VirtualLoop, inline, virtual
from support.world import DECLARED, Outcome, SyntheticSource, World, request
from turnout.backends.synthetic import SyntheticModel
from turnout.core.comparators import Comparator, Method
from turnout.core.copies import Drop, PairKind
from turnout.core.pairs import OutputDivergence, PairDivergence, Result
from turnout.core.records import Compared, ShadowReport, comparison_fields, summary_fields
from turnout.core.references import Learned
from turnout.core.sampling import Export, Rule
from turnout.core.shadow_rules import ShadowRule
from turnout.core.tensors import Tensors
from turnout.core.tracing import TraceContext
from turnout.runtime.account import Outcome as Ended
from turnout.runtime.dispatcher import Dispatcher
from turnout.runtime.fleet import Model
from turnout.runtime.ports import Tracer
from turnout.runtime.shadows import SUMMARY_TICKS, TICK_S, Shadows
from turnout.runtime.tracing import NO_TRACER
from turnout_wire.tensors import Array

MS = 1_000_000
DAY_NS = 10**18
WINDOW_S = TICK_S * SUMMARY_TICKS


class Wrong(SyntheticModel):
    """A model that is wrong about requests of some values: it answers 0 there."""

    wrong: Callable[[Array], Array] = staticmethod(lambda x: np.zeros(len(x), bool))

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        (y,) = super().run(inputs, outputs)
        return [np.where(self.wrong(inputs["x"])[:, None], np.float32(0), y)]


@dataclass
class Told:
    """The ComparisonSink and the PairStore ports."""

    exports: list[Export[Compared]] = field(default_factory=list)
    reports: list[ShadowReport] = field(default_factory=list)
    kept: list[Export[Compared]] = field(default_factory=list)

    def compared(self, told: Export[Compared]) -> None:
        self.exports.append(told)

    def summarised(self, report: ShadowReport) -> None:
        self.reports.append(report)

    def keep(self, told: Export[Compared]) -> str:
        self.kept.append(told)
        return f"kept-{len(self.kept)}"

    async def stop(self) -> None:
        """Nothing is being written."""


class Stage:
    """Slot 'blue' holds version 3 and is live; 'v2' and 'v1' hold the others."""

    def __init__(self, world: World, told: Told, keeps: bool) -> None:
        self.world = world
        self.told = told
        coins = np.random.default_rng(1)
        self.shadows = Shadows(
            world.fleet,
            world.clock,
            lambda: DAY_NS + world.clock(),
            inline,
            world.seen,
            lambda bits: int(coins.integers(0, 2**bits, dtype=np.uint64)),
            told,
            told if keeps else None,
            world.tracer,
        )
        world.dispatcher = Dispatcher(world.fleet, world.clock, lambda n: 0, fallback=True, shadow=self.shadows)

    @property
    def model(self) -> Model:
        return self.world.fleet.model("m")

    def set(self, *rules: ShadowRule) -> None:
        route = self.model.route
        assert route is not None
        self.model.assign(replace(route, generation=route.generation + 1, shadows=rules))

    def ask(self, values: Sequence[float], **more: Any) -> list[Outcome]:
        return [self.world.infer(request(value, inference_id=f"id-{value:g}", **more)) for value in values]

    async def ask_slowly(self, count: int, pause_s: float = 0.02) -> list[Outcome]:
        outcomes = []
        for value in range(1, count + 1):
            outcomes += self.ask([float(value)])
            await self.world.after(pause_s)
        return outcomes

    @property
    def report(self) -> ShadowReport:
        (report,) = self.shadows.reports("m")
        return report


def rule(slot: str = "v1", sample_bp: int = 10_000, noise_bp: int = 0, **more: Any) -> ShadowRule:
    defaults: dict[str, Any] = {"salt": "", "comparators": (), "queue_max": 1000, "bytes_max": 1 << 20}
    return ShadowRule(slot=slot, sample_bp=sample_bp, noise_bp=noise_bp, **{**defaults, "deadline_ns": 10**9, **more})


async def stage(loop: VirtualLoop, keeps: bool = False, tracer: Tracer = NO_TRACER, **models: SyntheticModel) -> Stage:
    made = {version: models.get(f"v{version}", SyntheticModel(DECLARED)) for version in (1, 2, 3)}
    source = SyntheticSource("m", versions=(3, 2, 1))
    world = await World.open(loop, {f"m/{version}": model for version, model in made.items()}, [source], tracer=tracer)
    for model in made.values():
        model.runs.clear()
        model.wait = lambda rows: world.clock.spend(MS)
    return Stage(world, Told(), keeps)


@virtual
async def test_every_request_is_copied_and_compared(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    outcomes = s.ask(range(1, 21))
    await s.world.after(1)
    assert all(outcome.response.slot == "blue" for outcome in outcomes)
    report = s.report
    assert (report.live_slot, str(report.live_revision)) == ("blue", "m/3")
    assert (report.shadow_slot, str(report.shadow_revision)) == ("v1", "m/1")
    assert report.summary.total.results == {Result.MATCH: 20}
    assert (report.dropped, report.queued) == ({}, 0)
    account = s.model.slots["v1"].account
    assert sum(account.tally(ended).requests for ended in Ended) == 0, "copies are nobody's requests"


@virtual
async def test_a_copy_is_taken_once_the_answer_is_on_its_way(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    copies: list[list[int]] = []

    def seen() -> None:
        copies.append([each.queued for each in s.shadows])

    def answered(_: object) -> None:
        seen()
        loop.call_soon(seen)  # as an edge goes on with the answer
        loop.call_soon(loop.call_soon, seen)

    for value in (1, 2):
        s.world.dispatcher.infer(request(value, inference_id=f"id-{value}"), answered)
    await s.world.after(0.01)
    assert copies[:3] == [[], [], []], "neither before the answers nor before what the first edge does with its own"
    assert copies[-1] == [2]


@virtual
async def test_without_rules_nothing_is_copied(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.ask(range(10))
    await s.world.after(1)
    assert s.shadows.reports() == []
    s.set(rule())
    s.ask(range(10))
    await s.world.after(0.5)
    s.set()
    await s.world.after(1)
    assert s.shadows.reports() == [], "a rule that is gone is told a last time, and ends"
    assert [report.summary.total.pair_count for report in s.told.reports] == [10]


@virtual
async def test_the_sample_is_of_ids_and_the_same_for_all_rules_of_a_salt(loop: VirtualLoop) -> None:
    s = await stage(loop)
    rules = rule("v1", 3000, salt="a"), rule("v2", 3000, salt="a")
    s.set(*rules)
    s.ask(range(1, 201))
    await s.world.after(1)
    one, two = s.shadows.reports()
    taken = sum(rules[0].takes(f"id-{value}") for value in range(1, 201))
    assert 30 < taken < 90
    assert one.summary.total.pair_count == two.summary.total.pair_count == taken


@virtual
async def test_only_what_the_stable_slot_answered_of_routed_requests_is_copied(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    pinned = s.ask([1, 2], slot="blue") + s.ask([3], slot="v2")
    await s.world.after(1)
    assert all(outcome.response for outcome in pinned)
    assert s.shadows.reports() == []


@virtual
async def test_a_worse_version_shows_in_rate_classes_and_worst_pairs(loop: VirtualLoop) -> None:
    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] % 5 == 0
    s = await stage(loop, v1=worse)
    s.set(rule(comparators=(Comparator("y", Method.ALLCLOSE),)))
    await s.ask_slowly(100)
    await s.world.after(1)
    total = s.report.summary.total
    assert (total.pair_count, total.bad_count) == (100, 20)
    assert total.low < 0.8 < total.high
    assert total.worst[0].inference_id == "id-100", "the largest distance"
    await s.world.after(WINDOW_S)
    rules = Counter(export.rule for export in s.told.exports)
    assert rules[Rule.TOP_DISTANCE] == 1
    assert 1 <= rules[Rule.MISMATCH] <= 5
    fields = comparison_fields(next(each for each in s.told.exports if each.rule is Rule.TOP_DISTANCE))
    assert fields["inference.id"] == "id-100"
    assert fields["comparison.result"] == "mismatch"
    assert fields["comparison.distance"] == 200
    assert (fields["live.revision"], fields["shadow.revision"]) == ("m/3", "m/1")
    assert len(str(fields["request.digest"])) == 16
    assert summary_fields(s.told.reports[0])["verdict"] == "FAIL"


@virtual
async def test_what_is_told_holds_no_tensors(loop: VirtualLoop) -> None:
    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] > 0
    s = await stage(loop, v1=worse)
    s.set(rule())
    s.ask(range(1, 6))
    await s.world.after(WINDOW_S + 2)
    assert len(s.told.exports) == 5
    for export in s.told.exports:
        pair = export.record.pair
        assert (pair.copy.request.inputs, pair.copy.live.outputs, pair.shadow.outputs) == ({}, None, None)


@virtual
async def test_a_store_gets_what_differs_and_its_places_are_told(loop: VirtualLoop) -> None:
    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] == 3
    s = await stage(loop, keeps=True, v1=worse)
    s.set(rule())
    s.ask(range(1, 6))
    await s.world.after(WINDOW_S + 2)
    (kept,) = s.told.kept
    pair = kept.record.pair
    assert pair.copy.live.outputs is not None
    assert pair.shadow.outputs is not None
    np.testing.assert_array_equal(pair.copy.request.inputs["x"], np.full((1, 4), 3))
    np.testing.assert_array_equal(pair.copy.live.outputs["y"], np.full((1, 4), 6))
    np.testing.assert_array_equal(pair.shadow.outputs["y"], np.zeros((1, 4)))
    assert [export.record.payload_ref for export in s.told.exports] == ["kept-1"]


@virtual
async def test_a_window_ends_with_the_last_rule_of_its_model(loop: VirtualLoop) -> None:
    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] > 0
    s = await stage(loop, keeps=True, v1=worse)
    s.set(rule("v1"), rule("v2"))
    s.ask(range(1, 6))
    await s.world.after(1.5)
    s.set(rule("v2"))
    await s.world.after(1.5)
    assert s.told.exports == [], "the other rule goes on, and its window with it"
    s.set()
    await s.world.after(1.5)
    assert len(s.told.exports) == len(s.told.kept) == 5, "long before ten seconds are over"
    assert s.shadows._samplers == {}, "no tensor is held any more"
    assert s.shadows._timer is None


@virtual
async def test_a_fault_of_who_is_told_ends_nothing(loop: VirtualLoop) -> None:
    class Faulty(Told):
        def compared(self, told: Export[Compared]) -> None:
            super().compared(told)
            raise RuntimeError("a bug")

    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] > 0
    s = await stage(loop, v1=worse)
    s.told = s.shadows._sink = Faulty()
    for _ in range(3):
        s.set(rule())
        s.ask(range(1, 6))
        await s.world.after(WINDOW_S + 2)
        assert s.told.exports, "told again in each window"
        s.told.exports.clear()
    assert {str(error) for _, _, error in s.world.seen.handler_failures} == {"a bug"}
    s.set()
    await s.world.after(2)
    assert s.shadows.reports() == [], "and rules that are gone still end"


@virtual
async def test_noise_is_the_live_revision_with_itself(loop: VirtualLoop) -> None:
    s = await stage(loop)
    flickers = SyntheticModel(DECLARED)
    s.set(rule(noise_bp=5000))
    await s.ask_slowly(200)
    await s.world.after(3)
    total = s.report.summary.total
    expected = sum(rule(noise_bp=5000).repeats(f"id-{value}") for value in range(1, 201))
    assert total.pair_count == 200
    assert total.noise_pair_count == expected
    assert total.noise_bad_count == 0
    assert flickers.runs == []
    kinds = {kind for *_, kind, _ in s.shadows.account.comparisons}
    assert kinds == {PairKind.SHADOW, PairKind.NOISE}


@virtual
async def test_a_repeated_input_is_evidence_once(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule(noise_bp=10_000))
    for number in range(40):
        s.world.infer(request(number % 2, inference_id=f"id-{number}"))
        await s.world.after(0.02)
    await s.world.after(1)
    total = s.report.summary.total
    assert (total.pair_count, total.distinct_count) == (40, 2)


@virtual
async def test_nothing_that_is_told_of_a_pair_grows_with_its_rows(loop: VirtualLoop) -> None:
    class Last(SyntheticModel):
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
            return [np.arange(4, dtype=np.float32) + 0 * inputs["x"]]

    s = await stage(loop, keeps=True, v1=Last(DECLARED))
    s.set(rule(comparators=(Comparator("y", Method.ARGMAX),)))
    s.ask(range(1, 21))
    await s.world.after(WINDOW_S + 2)
    outputs = [output for export in s.told.exports for output in export.record.divergence.outputs]
    assert outputs
    assert not any(each.class_rows or each.live_classes for each in outputs)
    assert s.report.summary.total.by_class, "and all the same, they were counted"


@virtual
async def test_a_shadow_that_fails_is_told_and_counted(loop: VirtualLoop) -> None:
    s = await stage(loop, v1=SyntheticModel(DECLARED, poison=3))
    s.set(rule())
    outcomes = s.ask([1, 2, 3])
    await s.world.after(1)
    assert all(outcome.response for outcome in outcomes)
    assert s.report.summary.total.results == {Result.MATCH: 2, Result.SHADOW_ERROR: 1}
    await s.world.after(WINDOW_S + 2)
    fields = [comparison_fields(export) for export in s.told.exports]
    assert [(one["inference.id"], one["error.type"]) for one in fields] == [("id-3", "execution_failed")]


@virtual
async def test_a_live_answer_that_failed_is_no_evidence_against_the_shadow(loop: VirtualLoop) -> None:
    s = await stage(loop, v3=SyntheticModel(DECLARED, poison=3))
    s.set(rule())
    outcomes = s.ask([1, 3])
    await s.world.after(1)
    assert outcomes[1].error
    total = s.report.summary.total
    assert total.results == {Result.MATCH: 1, Result.LIVE_ERROR: 1}
    assert (total.pair_count, total.bad_count) == (1, 0)


@virtual
async def test_nan_is_a_mismatch(loop: VirtualLoop) -> None:
    class Nan(SyntheticModel):
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
            return [np.full_like(inputs["x"], np.nan)]

    s = await stage(loop, v1=Nan(DECLARED))
    s.set(rule())
    s.ask([1, 2])
    await s.world.after(1)
    assert s.report.summary.total.results == {Result.MISMATCH: 2}


@pytest.mark.parametrize("what", ["hangs", "slow"])
def test_live_answers_are_the_same_with_a_shadow_that_is_slow_or_hangs(what: str) -> None:
    def play(shadowed: bool) -> tuple[list[float], Counter[Drop]]:
        times: list[float] = []
        drops: Counter[Drop] = Counter()

        @virtual
        async def run(loop: VirtualLoop) -> None:
            s = await stage(loop)
            model = s.world.fleet.model("m").slots["v1"].cargo
            assert model is not None
            slow = model.batcher._runner._sessions[0]
            slow.wait = lambda rows: s.world.clock.spend((10**6 if what == "hangs" else 100) * MS)  # type: ignore[attr-defined]
            if shadowed:
                s.set(rule(queue_max=10))
            for value in range(1, 300):
                outcome = Outcome()
                started_s = loop.time()
                s.world.dispatcher.infer(
                    request(value, inference_id=f"id-{value}"),
                    lambda answer, outcome=outcome, started_s=started_s: (  # type: ignore[misc]
                        outcome.done(answer),
                        times.append(loop.time() - started_s),
                    ),
                )
                await s.world.after(0.007)
            await s.world.after(1)
            for report in s.shadows.reports():
                drops.update(report.dropped)
            await s.shadows.stop()

        run()
        return times, drops

    alone, _ = play(shadowed=False)
    beside, drops = play(shadowed=True)
    assert beside == pytest.approx(alone), "to the nanosecond: copies take nothing from live requests here"
    assert len(beside) == 299
    assert set(drops) <= {Drop.QUEUE_FULL, Drop.DEADLINE}
    assert drops[Drop.QUEUE_FULL] > 100


@virtual
async def test_when_a_revision_changes_counting_begins_anew(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    s.ask([1, 2, 3])
    await s.world.after(1)
    slot = s.model.slots["v1"]
    assert slot.revision is not None
    assert slot.cargo is not None
    other = replace(slot.revision, version=7, digest="other")
    slot.revision, slot.cargo = other, replace(slot.cargo, revision=other)
    route = s.model.route
    assert route is not None
    targets = tuple(replace(each, revision=other) if each.slot == "v1" else each for each in route.targets)
    s.model.assign(replace(route, targets=targets, generation=route.generation + 1))
    s.ask([4])
    await s.world.after(1)
    assert str(s.report.shadow_revision) == "m/7"
    assert s.report.summary.total.pair_count == 1
    assert [(str(r.shadow_revision), r.summary.total.pair_count) for r in s.told.reports] == [("m/1", 3)]
    counted = {shadow: count for (_, _, shadow, _, _), count in s.shadows.account.comparisons.items()}
    assert counted == {"m/1": 3, "m/7": 1}, "metrics only grow"


@virtual
async def test_a_slot_that_serves_no_more(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    s.ask([1])
    await s.world.after(1)
    unloading = loop.create_task(s.model.slots["v1"].unload())
    outcomes = s.ask([2])
    await s.world.after(1)
    await unloading
    assert outcomes[0].response
    assert s.report.dropped == {Drop.NOT_READY: 1}


@virtual
async def test_classes_instead_of_tensors_cannot_be_compared(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    s.ask([1], classes={"y": 2})
    await s.world.after(1)
    assert s.report.dropped == {Drop.CLASSIFIED: 1}
    assert s.shadows.account.dropped == {("m", "m/1", Drop.CLASSIFIED): 1}


LIVE = TraceContext(1001, 1002)


@virtual
async def test_copies_of_traced_requests_are_traced_and_so_is_noise(loop: VirtualLoop) -> None:
    tracer = KeptTraces()
    s = await stage(loop, tracer=tracer)
    s.set(rule(noise_bp=10_000))
    s.ask([1], trace=LIVE)
    s.ask([2])
    await s.world.after(WINDOW_S + 2)
    told = {ended.pair.copy.kind: ended for ended in tracer.copies}
    assert (len(tracer.copies), set(told)) == (2, {PairKind.SHADOW, PairKind.NOISE}), "what matches is not told"
    for ended in tracer.copies:
        assert (ended.pair.copy.request.inference_id, ended.pair.copy.request.trace) == ("id-1", LIVE)
        assert (ended.result, ended.trace) == (Result.MATCH, ended.pair.trace)
        [of] = [batch for batch in tracer.batches if ended.trace in batch.links]
        assert ended.pair.shadow.timings is not None and ended.pair.shadow.timings.batch == of.trace
        assert ended.pair.started_ns <= of.started_ns < of.ended_ns <= ended.pair.ended_ns
    assert [str(told[kind].pair.shadow.revision) for kind in (PairKind.SHADOW, PairKind.NOISE)] == ["m/1", "m/3"]
    assert len({LIVE.trace_id, *(ended.trace.trace_id for ended in tracer.copies)}) == 3


@virtual
async def test_a_pair_that_is_told_has_a_span_however_its_request_was_sampled(loop: VirtualLoop) -> None:
    tracer = KeptTraces()
    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] > 0
    s = await stage(loop, keeps=True, tracer=tracer, v1=worse)
    s.set(rule())
    s.ask([1], trace=LIVE)
    s.ask([2])
    await s.world.after(1)
    soon_ns = s.world.clock()
    assert len(tracer.copies) == 1, "nobody knows yet that the other will be told"
    await s.world.after(WINDOW_S + 1)
    spans = {ended.pair.copy.request.inference_id: ended for ended in tracer.copies}
    assert (len(tracer.copies), set(spans)) == (2, {"id-1", "id-2"})
    assert spans["id-2"].pair.copy.request.trace is None
    assert spans["id-2"].pair.started_ns < spans["id-2"].pair.ended_ns < soon_ns, "when it ran"
    for exports in (s.told.exports, s.told.kept):
        fields = [comparison_fields(export) for export in exports]
        assert {one["inference.id"]: (one["shadow.trace_id"], one["shadow.span_id"]) for one in fields} == {
            id_: ended.trace.ids for id_, ended in spans.items()
        }
    assert {ended.result for ended in tracer.copies} == {Result.MISMATCH}


@virtual
async def test_without_a_tracer_nothing_is_traced(loop: VirtualLoop) -> None:
    s = await stage(loop, v1=SyntheticModel(DECLARED, poison=1))
    s.set(rule())
    s.ask([1])
    await s.world.after(WINDOW_S + 2)
    [export] = s.told.exports
    assert "shadow.trace_id" not in comparison_fields(export)


@virtual
async def test_a_traced_copy_that_cannot_be_compared_still_ends(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    tracer = KeptTraces()
    s = await stage(loop, tracer=tracer)
    s.set(rule())
    monkeypatch.setattr("turnout.runtime.comparing.compare", breaks)
    s.ask([1], trace=LIVE)
    await s.world.after(1)
    assert [ended.result for ended in tracer.copies] == [None]


@virtual
async def test_a_label_that_comes_later_says_who_was_right(loop: VirtualLoop) -> None:
    worse = Wrong(DECLARED)
    worse.wrong = lambda x: x[:, 0] == 2
    s = await stage(loop, v1=worse)
    s.set(rule(comparators=(Comparator("y", Method.ARGMAX),)))
    s.ask([1, 2])
    await s.world.after(1)
    assert s.shadows.learn("m", "id-1", "", "0") is Learned.SCORED
    assert s.shadows.learn("m", "id-1", "", "0") is Learned.DUPLICATE
    assert s.shadows.learn("m", "id-9", "y", "0") is Learned.UNKNOWN
    assert s.shadows.learn("n", "id-1", "y", "0") is Learned.UNKNOWN
    (scores,) = s.report.scores
    assert (scores.output, scores.score.both_right) == ("y", 1)


@virtual
@pytest.mark.parametrize("label", ["0", "0,0"], ids=["the second refuses", "the first refuses"])
async def test_a_rule_that_refuses_a_label_takes_it_from_no_other(loop: VirtualLoop, label: str) -> None:
    def rows() -> dict[str, int]:
        return {report.shadow_slot: sum(each.score.rows for each in report.scores) for report in s.shadows.reports()}

    s = await stage(loop)
    first, second = (rule(slot, comparators=(Comparator("y", Method.ARGMAX),)) for slot in ("v2", "v1"))
    s.set(first, second)
    s.ask([1])
    await s.world.after(0.2)
    s.set(second)
    s.ask([1], rows=2)  # the same id: to the second rule it is another request from now on
    await s.world.after(0.2)
    s.set(first, second)
    with pytest.raises(ValueError, match=r"3 label\(s\) for"):
        s.shadows.learn("m", "id-1", "", "0,0,0")
    assert s.shadows.learn("m", "id-1", "", label) is Learned.SCORED
    assert rows() == ({"v2": 1, "v1": 0} if label == "0" else {"v2": 0, "v1": 2})
    assert s.shadows.learn("m", "id-1", "", label) is Learned.DUPLICATE


@virtual
async def test_a_fault_of_our_own_reaches_no_client(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    s = await stage(loop)
    s.set(rule())

    def breaks(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("turnout.runtime.shadows._copy", breaks)
    outcomes = s.ask([1])
    await s.world.after(1)
    assert outcomes[0].response
    assert [method for method, *_ in s.world.seen.handler_failures] == ["shadow"]
    monkeypatch.undo()
    monkeypatch.setattr("turnout.runtime.comparing.compare", breaks)
    s.ask([2])
    await s.world.after(1)
    assert [method for method, *_ in s.world.seen.handler_failures] == ["shadow", "compare"]
    assert s.report.queued == 0, "its place is free"


@virtual
async def test_stop(loop: VirtualLoop) -> None:
    s = await stage(loop)
    s.set(rule())
    s.ask(range(5))
    await s.shadows.stop()
    await s.world.after(2)
    assert s.told.reports == []
    assert s.model.slots["v1"].leases == 0
    runs = s.model.slots["v1"].account.runs.count
    s.ask(range(5))
    await s.world.after(2)
    assert s.model.slots["v1"].account.runs.count == runs, "requests that still come are not copied"


@virtual
async def test_a_copy_of_one_row_does_not_keep_its_whole_batch(loop: VirtualLoop) -> None:
    all_wrong = Wrong(DECLARED)
    all_wrong.wrong = lambda x: x[:, 0] > 0
    s = await stage(loop, keeps=True, v1=all_wrong)
    s.set(rule())
    s.ask(range(1, 9))
    await s.world.after(WINDOW_S + 2)
    assert s.told.kept
    for kept in s.told.kept:
        (array,) = (kept.record.pair.copy.live.outputs or {}).values()
        assert array.base is None
    for export in s.told.exports:
        assert export.record.pair.copy.request.inputs == {}, "who is told holds no tensors, also where they are kept"


@virtual
async def test_outputs_that_are_worlds_apart(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    s = await stage(loop)
    s.set(rule())
    monkeypatch.setattr("turnout.runtime.comparing.compare", _far_apart)
    s.ask([1])
    await s.world.after(1)
    assert s.world.seen.handler_failures == []
    assert s.report.summary.total.pair_count == 1


def _far_apart(*_: object, **__: object) -> PairDivergence:
    output = OutputDivergence(
        "y", Result.MISMATCH, Comparator("y", Method.ALLCLOSE), 1e308, max_abs=1e308, max_rel=1e305
    )
    return PairDivergence(Result.MISMATCH, (output,), output)
