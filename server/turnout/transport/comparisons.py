"""WatchComparisons and RecordFeedback: what comparing shows, going out, and the right answers, coming in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.message import Message

from turnout.core.errors import ControlError, Refusal
from turnout.core.records import Compared, Scores, ShadowReport
from turnout.core.references import Learned
from turnout.core.sampling import Export
from turnout.core.shadow_window import RECENT_NS
from turnout.core.tally import Agreement, WorstPair
from turnout.runtime.comparison_feed import ComparisonFeed, Event
from turnout.runtime.controller import Controller
from turnout.runtime.shadows import Shadows
from turnout.transport.admin import ALL
from turnout.transport.admin_codec import as_duration, as_revision, as_time
from turnout.transport.status import STATUS, Context
from turnout_wire.gen import feedback_pb2
from turnout_wire.gen import slots_pb2 as pb

_CONFUSIONS_MAX = 64
_FEEDBACK_MAX = 1000
_ID_CHARACTERS_MAX = 4096
_LABEL_CHARACTERS_MAX = 65_536
_TURN_CHARACTERS = 4096  # of labels, after which others have their turn: live requests are answered on the same loop
_ITEM_CHARACTERS = 256  # what an item takes besides its label, as characters of one


class ComparisonHandlers:
    """By RPC: WatchComparisons writes its answers itself."""

    def __init__(self, controller: Controller, shadows: Shadows, feed: ComparisonFeed) -> None:
        self._controller = controller
        self._shadows = shadows
        self._feed = feed

    async def watch(self, raw: bytes, context: Context) -> None:
        request = pb.WatchComparisonsRequest.FromString(raw)
        model = None if request.model == ALL else request.model
        slot = request.slot or None
        if model is not None:
            traffic = self._controller.desk(model).state
            if slot is not None and slot not in traffic.slots:
                raise ControlError(
                    Refusal.SLOT_NOT_FOUND, f"model '{model}' has no slot '{slot}'", "slot", model=model, slot=slot
                )
        with self._feed.watch(model, slot) as watcher:
            for report in self._shadows.reports(model):
                if slot in (None, report.shadow_slot):
                    await context.write(_event(report))
            while True:
                await context.write(_event(await watcher.next()))

    async def record(self, raw: bytes, context: Context) -> bytes:
        request = feedback_pb2.RecordFeedbackRequest.FromString(raw)
        desk = self._controller.desk(request.model)
        if len(request.feedback) > _FEEDBACK_MAX:
            raise _invalid(f"{len(request.feedback)} items, the limit is {_FEEDBACK_MAX}: send several", "feedback")
        said = dict.fromkeys(Learned, 0)
        read = 0
        for index, item in enumerate(request.feedback):
            said[self._learn(desk.model.name, item, f"feedback[{index}]")] += 1
            read += _ITEM_CHARACTERS + len(item.label)
            if read >= _TURN_CHARACTERS:
                read = 0
                await asyncio.sleep(0)
        reply: bytes = feedback_pb2.RecordFeedbackResponse(
            accepted=said[Learned.SCORED], unknown=said[Learned.UNKNOWN], duplicate=said[Learned.DUPLICATE]
        ).SerializeToString()
        return reply

    def _learn(self, model: str, item: feedback_pb2.Feedback, at: str) -> Learned:
        if not 1 <= len(item.inference_id) <= _ID_CHARACTERS_MAX:
            raise _invalid(f"an id of 1 to {_ID_CHARACTERS_MAX} characters is needed", f"{at}.inference_id")
        if not 1 <= len(item.label) <= _LABEL_CHARACTERS_MAX:
            raise _invalid(f"a label of 1 to {_LABEL_CHARACTERS_MAX} characters is needed", f"{at}.label")
        try:
            return self._shadows.learn(model, item.inference_id, item.output, item.label)
        except ValueError as error:
            raise _invalid(str(error), f"{at}.label") from None


def _event(event: Event) -> bytes:
    if isinstance(event, ShadowReport):
        return pb.ComparisonEvent(summary=summary(event)).SerializeToString()
    return pb.ComparisonEvent(comparison=comparison(event)).SerializeToString()


def comparison(told: Export[Compared]) -> pb.Comparison:
    compared = told.record
    copy, shadow, divergence = compared.pair.copy, compared.pair.shadow, compared.divergence
    message = pb.Comparison(
        model=copy.request.model,
        time=as_time(compared.time_ns),
        kind=f"COMPARISON_KIND_{copy.kind.name}",
        result=f"COMPARISON_RESULT_{divergence.result.name}",
        live_revision=as_revision(copy.live.revision),
        shadow_revision=as_revision(shadow.revision),
        live_slot=copy.live.slot,
        shadow_slot=shadow.slot,
        route_generation=copy.generation,
        inference_id=copy.request.inference_id,
        request_digest=compared.digest,
        payload_ref=compared.payload_ref,
        sampling_probability=told.probability,
        sampling_rule=f"SAMPLING_RULE_{told.rule.name}",
    )
    if (trace := compared.pair.trace) is not None:
        message.shadow_trace_id, message.shadow_span_id = trace.ids
    if (output := divergence.decider) is not None:
        message.output_name = output.name
        message.mismatch_count, message.element_count = output.mismatch_count, output.element_count
        _set(
            message,
            output_index=output.worst_index,
            live_argmax=output.live_argmax,
            shadow_argmax=output.shadow_argmax,
            live_margin=output.live_margin,
        )
        if (how := output.comparator) is not None:
            message.method = f"COMPARISON_METHOD_{how.method.value}"  # type: ignore[assignment]
            _set(message, atol=how.atol, rtol=how.rtol, threshold=how.threshold, distance=output.distance)
    if copy.live.timings is not None:
        message.live_batch_size = copy.live.timings.batch_rows
        message.live_duration.CopyFrom(as_duration(copy.live.duration_ns))
    if shadow.timings is not None:
        message.shadow_batch_size = shadow.timings.batch_rows
        message.shadow_duration.CopyFrom(as_duration(shadow.duration_ns))
        message.shadow_queue_duration.CopyFrom(as_duration(shadow.timings.queue_ns))
    if (reason := copy.live.reason or shadow.reason) is not None:
        message.error_type = reason.name.lower()
        message.rpc_status_code = STATUS[reason].value[0]
    return message


def summary(report: ShadowReport) -> pb.ShadowSummary:
    told = report.summary
    recent, total = told.recent, told.total
    message = pb.ShadowSummary(
        model=report.model,
        live_slot=report.live_slot,
        live_revision=as_revision(report.live_revision),
        shadow_slot=report.shadow_slot,
        shadow_revision=as_revision(report.shadow_revision),
        window_start_time=as_time(max(told.start_ns, told.now_ns - RECENT_NS)),
        window_end_time=as_time(told.now_ns),
        start_time=as_time(told.start_ns),
        window=_agreement(recent),
        total=_agreement(total),
        verdict=f"VERDICT_{told.verdict.value}",
        classes=[
            pb.ClassAgreement(
                output=each.output,
                live_class=_named(report, each.output, each.live_class),
                row_count=each.rows,
                agreeing_count=each.agreeing,
                near_tie_count=each.near_ties,
            )
            for each in total.by_class
        ],
        confusions=[
            pb.Confusion(
                output=c.output,
                live_class=_named(report, c.output, c.live_class),
                shadow_class=_named(report, c.output, c.shadow_class),
                count=c.rows,
            )
            for c in sorted(total.confusions, key=lambda c: -c.rows)[:_CONFUSIONS_MAX]
        ],
        dropped={reason.value: count for reason, count in report.dropped.items()},
        worst_pairs=[_worst(report, pair) for pair in recent.worst],
    )
    _set(message, latency_ratio_p50=recent.latency_p50, latency_ratio_p99=recent.latency_p99)
    if report.scores:
        message.reference.CopyFrom(_reference(report.scores))
    return message


def _agreement(agreement: Agreement) -> pb.Agreement:
    return pb.Agreement(
        pair_count=agreement.pair_count,
        rate=agreement.rate or 0.0,
        low=agreement.low,
        high=agreement.high,
        noise_pair_count=agreement.noise_pair_count,
        noise_rate=agreement.noise_rate or 0.0,
    )


def _worst(report: ShadowReport, worst: WorstPair) -> pb.WorstPair:
    message = pb.WorstPair(inference_id=worst.inference_id)
    if (output := worst.pair.decider) is not None:
        message.output, message.distance = output.name, output.distance
        if output.live_argmax is not None and output.shadow_argmax is not None:
            message.live_class = _named(report, output.name, str(output.live_argmax))
            message.shadow_class = _named(report, output.name, str(output.shadow_argmax))
    return message


def _reference(scores: Sequence[Scores]) -> pb.ReferenceScore:
    """Of the output that most labels came for."""
    score = max((each.score for each in scores), key=lambda score: score.rows)
    return pb.ReferenceScore(
        both_right=score.both_right,
        only_live_right=score.only_live,
        only_shadow_right=score.only_shadow,
        both_wrong=score.both_wrong,
        log10_evidence=score.log10_evidence,
    )


def _named(report: ShadowReport, output: str, index: str) -> str:
    """A class as the model's labels name it."""
    labels = report.labels.get(output, ())
    return labels[int(index)] if index.isdecimal() and int(index) < len(labels) else index


def _set(message: Message, **fields: float | None) -> None:
    for name, value in fields.items():
        if value is not None:
            setattr(message, name, value)


def _invalid(what: str, field: str) -> ControlError:
    return ControlError(Refusal.INVALID_REQUEST, f"{field}: {what}", field)
