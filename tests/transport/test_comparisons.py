"""WatchComparisons and RecordFeedback over gRPC, in process: who is told what, what messages say, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from support.admin import Served, served
from support.control import Shelf
from support.edge import eventually
from support.shadows import NOW_NS, compared, confused, report, scores, side, told
from turnout.core.comparators import Comparator, Method
from turnout.core.copies import Drop, PairKind
from turnout.core.errors import Reason
from turnout.core.pairs import Result
from turnout.core.records import Compared
from turnout.core.sampling import Rule
from turnout.core.tracing import TraceContext
from turnout.runtime.comparison_feed import PAIRS_MAX
from turnout.transport.admin_server import _STREAMS_MAX
from turnout.transport.comparisons import ComparisonHandlers, comparison, summary
from turnout_wire.admin import DETAILS_KEY, error_info
from turnout_wire.gen import feedback_pb2
from turnout_wire.gen import slots_pb2 as pb

ARGMAX = pb.Comparator(output="y", method=pb.COMPARISON_METHOD_ARGMAX)


@asynccontextmanager
async def watching(one: Served, model: str = "m", slot: str = "") -> AsyncIterator[Any]:
    """Once the server knows of it."""
    before = set(one.feed._watchers)
    call = one.stub.WatchComparisons(pb.WatchComparisonsRequest(model=model, slot=slot), timeout=60)
    await eventually(lambda: one.feed._watchers - before)
    try:
        yield call
    finally:
        call.cancel()


async def test_a_watch_begins_with_every_rule_as_it_is_now() -> None:
    async with served() as one:
        await one.load("red", 3)
        await one.shadow("green")
        await one.shadow("red")
        await one.answer(range(1, 6))
        async with watching(one, "-") as call:
            first = [(await call.read()).summary for _ in range(2)]
        assert {(s.model, s.shadow_slot, s.shadow_revision.version, s.total.pair_count) for s in first} == {
            ("m", "green", 2, 5), ("m", "red", 3, 5),
        }  # fmt: skip
        async with watching(one, "m", "red") as call:
            assert (await call.read()).summary.shadow_slot == "red"
            one.feed.summarised(report("red"))
            assert (await call.read()).summary.total.pair_count == 1, "and no other came between"


@pytest.mark.parametrize(
    ("model", "slot", "places"),
    [
        ("-", "", ["m/green", "m/red", "n/green"]),
        ("-", "green", ["m/green", "n/green"]),
        ("m", "", ["m/green", "m/red"]),
        ("m", "green", ["m/green"]),
        ("m", "blue", []),
    ],
)
async def test_a_watch_is_of_a_model_and_a_slot(model: str, slot: str, places: list[str]) -> None:
    async with served() as one:
        await one.load("red", 3)
        async with watching(one, model, slot) as call:
            async with watching(one, "-") as other:
                for each in ("m/green", "m/red", "n/green"):
                    of, _, place = each.partition("/")
                    one.feed.compared(told(confused(place, of)))
                    one.feed.summarised(report(place, of))
                got = [await other.read() for _ in range(6)]
            events = [await call.read() for _ in range(2 * len(places))]
            assert events == [event for event in got if _place(event) in places]
            assert len(got) == len({event.SerializeToString() for event in got})
            await eventually(lambda: len(one.feed._watchers) == 1)
            (watcher,) = one.feed._watchers
            assert not (watcher._pairs or watcher._reports), "nothing else waits for it"


def _place(event: pb.ComparisonEvent) -> str:
    told_ = event.summary if event.HasField("summary") else event.comparison
    return f"{told_.model}/{told_.shadow_slot}"


@pytest.mark.parametrize(
    ("model", "slot", "reason", "said"),
    [
        ("x", "", "MODEL_NOT_FOUND", "'x'"),
        ("", "", "MODEL_NOT_FOUND", "''"),
        ("m", "pink", "SLOT_NOT_FOUND", "'pink'"),
    ],
)
async def test_nobody_to_watch(model: str, slot: str, reason: str, said: str) -> None:
    async with served() as one:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.stub.WatchComparisons(pb.WatchComparisonsRequest(model=model, slot=slot)).read()
        info = error_info(caught.value)
        assert info is not None
        assert (caught.value.code(), info.reason) == (grpc.StatusCode.NOT_FOUND, reason)
        assert said in (caught.value.details() or "")


async def test_a_slow_watcher_misses_the_oldest_pairs_and_no_count() -> None:
    async with served() as one, watching(one) as call:
        for number in range(PAIRS_MAX + 10):
            one.feed.compared(told(confused(inference_id=f"id-{number}")))
            one.feed.summarised(report(pairs=number % 7 + 1))
        got = [await call.read() for _ in range(PAIRS_MAX + 1)]
        assert [event.comparison.inference_id for event in got[:-1]] == [f"id-{n + 10}" for n in range(PAIRS_MAX)]
        assert got[-1].summary.total.pair_count == (PAIRS_MAX + 9) % 7 + 1, "one stands for all before it"
        one.feed.compared(told(confused(inference_id="next")))
        assert (await call.read()).comparison.inference_id == "next"


async def test_streams_are_bounded_and_leave_nothing_behind() -> None:
    async with served() as one:
        calls = [
            one.stub.WatchComparisons(pb.WatchComparisonsRequest(model="m"), timeout=60) for _ in range(_STREAMS_MAX)
        ]
        await eventually(lambda: len(one.feed._watchers) == _STREAMS_MAX)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.stub.WatchComparisons(pb.WatchComparisonsRequest(model="m"), timeout=10).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(_STREAMS_MAX) in (caught.value.details() or "")
        assert (await one.model()).name == "m", "other calls get through"
        for call in calls:
            call.cancel()
        await eventually(lambda: not one.feed._watchers)
        async with watching(one):
            pass
        await eventually(lambda: not one.feed._watchers)


async def test_a_watch_ends_with_the_server() -> None:
    async with served() as one, watching(one) as call:
        await one.server.stop(0.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_comparison_says_how_the_answers_differ() -> None:
    record = replace(confused(), payload_ref="m-green-1")
    assert comparison(told(record, Rule.TOP_DISTANCE, 0.25)) == pb.Comparison(
        model="m", time={"seconds": NOW_NS // 10**9}, kind="COMPARISON_KIND_SHADOW",
        result="COMPARISON_RESULT_MISMATCH", live_revision=pb.Revision(model="m", version=1),
        shadow_revision=pb.Revision(model="m", version=2), live_slot="blue", shadow_slot="green", route_generation=7,
        inference_id="id", method="COMPARISON_METHOD_ARGMAX", distance=1.0, output_name="p", output_index=0,
        mismatch_count=1, element_count=1, live_argmax=0, shadow_argmax=1, live_margin=0.5, live_batch_size=8,
        shadow_batch_size=8, live_duration={"nanos": 4_000_000}, shadow_duration={"nanos": 4_000_000},
        shadow_queue_duration={"nanos": 1_000_000}, request_digest="0f" * 8, payload_ref="m-green-1",
        sampling_probability=0.25, sampling_rule="SAMPLING_RULE_TOP_DISTANCE",
    )  # fmt: skip


def test_a_comparison_says_where_its_copy_is_traced() -> None:
    untraced = confused()
    traced = replace(untraced, pair=replace(untraced.pair, trace=TraceContext(0xA1, 0xB2)))
    message = comparison(told(traced))
    assert (message.shadow_trace_id, message.shadow_span_id) == ("0" * 30 + "a1", "0" * 14 + "b2")
    message.ClearField("shadow_trace_id")
    message.ClearField("shadow_span_id")
    assert message == comparison(told(untraced))


@pytest.mark.parametrize(
    ("live", "shadow", "result"), [(1, 0, "SHADOW_ERROR"), (0, 1, "LIVE_ERROR"), (0, 0, "BOTH_ERROR")]
)
def test_a_side_that_failed_has_a_reason_and_no_measures(live: int, shadow: int, result: str) -> None:
    outputs = scores([0.75, 0.25])
    sides = [
        side(slot, version, outputs) if fine else side(slot, version, None, reason=Reason.EXECUTION_FAILED)
        for slot, version, fine in (("blue", 1, live), ("green", 2, shadow))
    ]
    message = comparison(told(compared(*sides)))
    assert pb.ComparisonResult.Name(message.result) == f"COMPARISON_RESULT_{result}"
    assert (message.error_type, message.rpc_status_code) == ("execution_failed", grpc.StatusCode.INTERNAL.value[0])
    assert (message.HasField("live_duration"), message.HasField("shadow_duration")) == (bool(live), bool(shadow))
    assert not (message.output_name or message.HasField("distance") or message.method)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("kind", PairKind)
@pytest.mark.parametrize("rule", Rule)
def test_every_method_kind_and_rule_has_its_value(method: Method, kind: PairKind, rule: Rule) -> None:
    asked = Comparator("p", method)
    sides = side("blue", 1, scores([0.75, 0.25])), side("green", 2, scores([0.125, 0.875]))
    message = comparison(told(compared(*sides, asked, kind=kind), rule))
    assert pb.ComparisonMethod.Name(message.method).rpartition("METHOD_")[2] == method.value
    assert pb.ComparisonKind.Name(message.kind).rpartition("KIND_")[2].lower() == kind.value
    assert pb.SamplingRule.Name(message.sampling_rule).rpartition("RULE_")[2].lower() == rule.value


def test_every_result_has_its_value() -> None:
    assert {f"COMPARISON_RESULT_{result.name}" for result in Result} == set(pb.ComparisonResult.keys()[1:])


def test_a_summary_says_what_a_rule_has_found() -> None:
    message = summary(report(pairs=2, labels={"p": ("cat", "dog")}))
    assert message == pb.ShadowSummary(
        model="m", live_slot="blue", live_revision=pb.Revision(model="m", version=1), shadow_slot="green",
        shadow_revision=pb.Revision(model="m", version=2), window_start_time={"seconds": NOW_NS // 10**9},
        window_end_time={"seconds": NOW_NS // 10**9}, start_time={"seconds": NOW_NS // 10**9},
        window=pb.Agreement(pair_count=2, high=1, noise_pair_count=2), total=message.total,
        verdict="VERDICT_INCONCLUSIVE",
        classes=[pb.ClassAgreement(output="p", live_class="cat", row_count=2)],
        confusions=[pb.Confusion(output="p", live_class="cat", shadow_class="dog", count=2)],
        dropped={"deadline": 3},
        worst_pairs=[
            pb.WorstPair(inference_id=f"id-{n}", output="p", distance=1, live_class="cat", shadow_class="dog")
            for n in range(2)
        ],
        latency_ratio_p50=message.latency_ratio_p50, latency_ratio_p99=message.latency_ratio_p99,
        reference=pb.ReferenceScore(
            both_right=4, only_live_right=1, only_shadow_right=2, both_wrong=1,
            log10_evidence=message.reference.log10_evidence,
        ),
    )  # fmt: skip
    assert (message.total.pair_count, message.total.rate, message.total.noise_pair_count) == (2, 0.0, 2)
    assert message.total.distinct_count == 2
    assert 0 == message.total.low < message.total.high <= 1
    assert message.latency_ratio_p50 == pytest.approx(1.5, rel=0.05)


def test_a_summary_without_pairs() -> None:
    message = summary(report(pairs=0, scores=(), dropped=dict.fromkeys(Drop, 1)))
    assert (message.total.pair_count, message.total.low, message.total.high) == (0, 0, 1)
    assert not (message.HasField("latency_ratio_p50") or message.HasField("reference") or message.worst_pairs)
    assert set(message.dropped) == {reason.value for reason in Drop}


def test_classes_that_labels_do_not_name_keep_their_number() -> None:
    message = summary(report(labels={"p": ("cat",), "q": ("x", "y")}))
    (confusion,) = message.confusions
    assert (confusion.live_class, confusion.shadow_class) == ("cat", "1")


def test_nothing_that_is_told_has_tensors_in_it() -> None:
    secret = 0.123456789
    outputs = {"p": np.array([[secret, 0.5]], np.float64)}
    record: Compared = compared(side("blue", 1, outputs), side("green", 2, outputs))
    raw = comparison(told(record)).SerializeToString()
    for array in (outputs["p"], record.pair.copy.request.inputs["x"]):
        assert array.tobytes()[:8] not in raw


def feedback(*items: dict[str, str], model: str = "m") -> feedback_pb2.RecordFeedbackRequest:
    messages = [feedback_pb2.Feedback(**item) for item in items]
    return feedback_pb2.RecordFeedbackRequest(model=model, feedback=messages)


def label(inference_id: str, label: str, **more: str) -> dict[str, str]:
    return {"inference_id": inference_id, "label": label, **more}


async def test_labels_are_accepted_once_and_those_of_others_are_unknown() -> None:
    async with served() as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer([1, 2, 3])
        items = [label("id-1", "0"), label("id-1", "1"), label("id-9", "0"), label("id-2", "3", output="y")]
        items += [label("id-3", "0", output="z"), label("id-3", " 0 ")]
        reply = await one.labels.RecordFeedback(feedback(*items))
        assert (reply.accepted, reply.unknown, reply.duplicate) == (3, 2, 1)
        again = await one.labels.RecordFeedback(feedback(*items))
        assert (again.accepted, again.unknown, again.duplicate) == (0, 2, 4), "idempotent"
        async with watching(one) as call:
            reference = (await call.read()).summary.reference
        assert (reference.both_right, reference.both_wrong) == (2, 1), "both say class 0; 3 is right for id-2"
        assert (reference.only_live_right, reference.only_shadow_right) == (0, 0)


async def test_every_shadow_of_the_model_is_scored() -> None:
    async with served() as one:
        await one.load("red", 3)
        await one.shadow("green", comparators=[ARGMAX])
        await one.shadow("red", comparators=[ARGMAX])
        await one.answer([1])
        reply = await one.labels.RecordFeedback(feedback(label("id-1", "0")))
        assert (reply.accepted, reply.unknown, reply.duplicate) == (1, 0, 0), "items are counted, not shadows"
        assert [each.scores[0].score.both_right for each in one.shadows.reports()] == [1, 1]


async def test_a_label_for_each_row() -> None:
    async with served() as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer([1], rows=3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.labels.RecordFeedback(feedback(label("id-1", "0,0")))
        assert "2 label(s)" in (caught.value.details() or "")
        assert "3 row(s)" in (caught.value.details() or "")
        assert (await one.labels.RecordFeedback(feedback(label("id-1", "0, 1,0")))).accepted == 1
        (scored,) = one.shadows.reports()[0].scores
        assert (scored.score.both_right, scored.score.both_wrong) == (2, 1)


async def test_labels_by_name() -> None:
    async with served(Shelf(labels={"y": ("cat", "dog", "cow", "hen")})) as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer([1, 2, 3, 4])
        reply = await one.labels.RecordFeedback(
            feedback(label("id-1", "cat"), label("id-2", "dog"), label("id-3", "0"))
        )
        assert reply.accepted == 3
        (scored,) = one.shadows.reports()[0].scores
        assert {name: (s.both_right, s.both_wrong) for name, s in scored.by_class.items()} == {"0": (2, 0), "1": (0, 1)}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.labels.RecordFeedback(feedback(label("id-4", "horse")))
        assert "'horse' is no class: it must be one of cat, dog, cow, hen" in (caught.value.details() or "")


async def test_names_may_hold_commas_where_there_is_one_row() -> None:
    async with served(Shelf(labels={"y": ("tench, Tinca tinca", "0,1", "cat", "hen")})) as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer([1, 2])
        await one.answer([3], rows=2)
        items = [label("id-1", " tench, Tinca tinca "), label("id-2", "0,1"), label("id-3", "0,1")]
        assert (await one.labels.RecordFeedback(feedback(*items))).accepted == 3
        (scored,) = one.shadows.reports()[0].scores
        assert {name: s.rows for name, s in scored.by_class.items()} == {"0": 2, "1": 2}, "both rows of the last"


async def test_no_label_is_read_that_nobody_waits_for() -> None:
    async with served() as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer([1])
        items = [label("id-9", "cat"), label("id-1", "cat", output="z"), label("id-1", "0"), label("id-1", "cat")]
        reply = await one.labels.RecordFeedback(feedback(*items))
        assert (reply.accepted, reply.unknown, reply.duplicate) == (1, 2, 1)


@pytest.mark.parametrize(
    ("item", "field", "said"),
    [
        (label("", "0"), "feedback[1].inference_id", "1 to 4096 characters"),
        (label("i" * 4097, "0"), "feedback[1].inference_id", "1 to 4096 characters"),
        (label("id-2", ""), "feedback[1].label", "1 to 65536 characters"),
        (label("id-2", "0" * 65_537), "feedback[1].label", "1 to 65536 characters"),
        (label("id-2", "four"), "feedback[1].label", "'four' is no class: it must be a whole number"),
        (label("id-2", "0.5"), "feedback[1].label", "'0.5' is no class"),
        (label("id-2", "9" * 5000), "feedback[1].label", "is no class"),
        (label("id-2", ","), "feedback[1].label", "2 label(s) for 1 row(s)"),
        (label("id-2", " "), "feedback[1].label", "'' is no class"),
        (label("id-2", "0,0"), "feedback[1].label", "2 label(s)"),
    ],
)  # fmt: skip
async def test_a_bad_item_is_named_and_those_before_it_count(item: dict[str, str], field: str, said: str) -> None:
    async with served() as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer([1, 2, 3])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.labels.RecordFeedback(feedback(label("id-1", "0"), item, label("id-3", "0")))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert _field(caught.value) == field
        assert said in (caught.value.details() or "")
        assert len(caught.value.details() or "") < 500
        rest = await one.labels.RecordFeedback(feedback(label("id-1", "0"), label("id-3", "0")))
        assert (rest.accepted, rest.duplicate) == (1, 1)


async def test_how_many_items_come_at_once() -> None:
    async with served() as one:
        reply = await one.labels.RecordFeedback(feedback(*[label("id", "0")] * 1000))
        assert (reply.accepted, reply.unknown, reply.duplicate) == (0, 1000, 0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.labels.RecordFeedback(feedback(*[label("id", "0")] * 1001))
        assert (caught.value.code(), _field(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "feedback")
        assert "1001 items, the limit is 1000" in (caught.value.details() or "")


@pytest.mark.parametrize(("items", "characters", "turns"), [(1000, 1, 50), (15, 60_000, 15)])
async def test_others_have_their_turn_while_labels_are_read(items: int, characters: int, turns: int) -> None:
    async with served() as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer(range(15))
        handlers = ComparisonHandlers(one.admin.controller, one.shadows, one.feed)
        labels = [label(f"id-{number}", "0".rjust(characters)) for number in range(items)]
        raw, had = feedback(*labels).SerializeToString(), 0
        recording = asyncio.ensure_future(handlers.record(raw, None))  # type: ignore[arg-type]
        while not recording.done():
            await asyncio.sleep(0)
            had += 1
        assert feedback_pb2.RecordFeedbackResponse.FromString(recording.result()).accepted == 15
        assert turns <= had


class Names(tuple[str, ...]):
    """Of classes, gone through once and never searched."""

    read = 0

    def __iter__(self) -> Iterator[str]:
        self.read += 1
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        raise AssertionError("searched")

    index = __contains__  # type: ignore[assignment]


async def test_names_of_classes_are_not_searched_for_each_label() -> None:
    names = Names(("cat", "dog", "cat", "hen"))
    async with served(Shelf(labels={"y": names})) as one:
        await one.shadow(comparators=[ARGMAX])
        await one.answer(range(1, 101))
        before = names.read
        items = [label(f"id-{number}", "cat") for number in range(1, 101)]
        assert (await one.labels.RecordFeedback(feedback(*items))).accepted == 100
        assert names.read == before + 1
        (scored,) = one.shadows.reports()[0].scores
        assert list(scored.by_class) == ["0"], "of equal names the first"


async def test_labels_of_a_model_that_is_not_there() -> None:
    async with served() as one:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.labels.RecordFeedback(feedback(label("id", "0"), model="x"))
        info = error_info(caught.value)
        assert info is not None
        assert (caught.value.code(), info.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


def _field(error: grpc.aio.AioRpcError) -> str:
    raw = dict(error.trailing_metadata() or ())[DETAILS_KEY]
    bad = BadRequest()
    for detail in Status.FromString(raw).details:  # type: ignore[arg-type]
        if detail.Unpack(bad):
            return bad.field_violations[0].field
    return ""
