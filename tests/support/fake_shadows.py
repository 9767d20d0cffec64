"""What FakeAdmin knows of shadows: events that a test tells, labels that came; and messages to tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from turnout.core.errors import ControlError, Refusal
from turnout_wire.gen import feedback_pb2
from turnout_wire.gen import slots_pb2 as pb

OUTPUT = "probabilities"
START_S = 1_700_000_000
WINDOW_S = 10


class FakeShadows:
    """The state behind WatchComparisons and RecordFeedback.

    Attributes:
        now: what each watch begins with.
        watching: how many watches have begun.
        sent: events that have left for somebody who watches.
        known: inference ids of which answers are remembered.
        labels: those that were accepted.
    """

    def __init__(self) -> None:
        self.now: list[pb.ShadowSummary] = []
        self.watching = 0
        self.sent = 0
        self.known: set[str] = set()
        self.labels: dict[str, str] = {}
        self._events: list[pb.ComparisonEvent] = []
        self._told = threading.Condition()

    def tell(self, *found: pb.ShadowSummary | pb.Comparison) -> None:
        """To those who watch now."""
        with self._told:
            self._events += [_event(each) for each in found]
            self._told.notify_all()

    def watch(self, request: pb.WatchComparisonsRequest, context: grpc.ServicerContext) -> Iterator[pb.ComparisonEvent]:
        with self._told:
            seen = len(self._events)
            self.watching += 1
        yield from (_event(each) for each in self.now if request.slot in ("", each.shadow_slot))
        while context.is_active():
            with self._told:
                self._told.wait(0.05)
                fresh, seen = self._events[seen:], len(self._events)
            for event in fresh:
                if request.slot in ("", _slot(event)):
                    yield event
                    self.sent += 1

    def record(self, request: feedback_pb2.RecordFeedbackRequest) -> feedback_pb2.RecordFeedbackResponse:
        reply = feedback_pb2.RecordFeedbackResponse()
        for index, item in enumerate(request.feedback):
            if item.inference_id not in self.known:
                reply.unknown += 1
            elif item.inference_id in self.labels:
                reply.duplicate += 1
            elif not item.label.replace(",", "").isdecimal():
                field = f"feedback[{index}].label"
                raise ControlError(Refusal.INVALID_REQUEST, f"{field}: '{item.label}' is no class", field)
            else:
                self.labels[item.inference_id] = item.label
                reply.accepted += 1
        return reply


def _event(found: pb.ShadowSummary | pb.Comparison) -> pb.ComparisonEvent:
    if isinstance(found, pb.ShadowSummary):
        return pb.ComparisonEvent(summary=found)
    return pb.ComparisonEvent(comparison=found)


def _slot(event: pb.ComparisonEvent) -> str:
    return event.summary.shadow_slot if event.HasField("summary") else event.comparison.shadow_slot


def summary(window: int = 1, slot: str = "green", bad: int = 2, labels: bool = False) -> pb.ShadowSummary:
    """After the given window, of 100 pairs each: of 50 rows of class 4, `bad` are taken for a 9 in each window."""
    pairs = 100 * window
    told = pb.ShadowSummary(
        model="digits",
        live_slot="blue",
        live_revision=pb.Revision(model="digits", version=1),
        shadow_slot=slot,
        shadow_revision=pb.Revision(model="digits", version=2, variant="int8"),
        window=pb.Agreement(pair_count=100, rate=1 - bad / 100, low=0.9, high=0.999),
        total=pb.Agreement(
            pair_count=pairs, rate=1 - bad / 100, low=0.95, high=0.995, noise_pair_count=20, noise_rate=0.05
        ),
        verdict=pb.VERDICT_INCONCLUSIVE,
        classes=[
            pb.ClassAgreement(
                output=OUTPUT, live_class="10", row_count=50 * window, agreeing_count=50 * window
            ),
            pb.ClassAgreement(
                output=OUTPUT, live_class="4", row_count=50 * window, agreeing_count=(49 - bad) * window,
                near_tie_count=window,
            ),
        ],
        confusions=[pb.Confusion(output=OUTPUT, live_class="4", shadow_class="9", count=bad * window)],
        dropped={"deadline": 3, "queue_full": 1200},
        worst_pairs=[
            pb.WorstPair(inference_id="req-17", output=OUTPUT, distance=0.875, live_class="4", shadow_class="9")
        ],
        latency_ratio_p50=1.25,
        latency_ratio_p99=2.5,
    )  # fmt: skip
    told.start_time.FromSeconds(START_S)
    told.window_start_time.FromSeconds(START_S + WINDOW_S * (window - 1))
    told.window_end_time.FromSeconds(START_S + WINDOW_S * window)
    if labels:
        told.reference.CopyFrom(
            pb.ReferenceScore(both_right=80, only_live_right=1, only_shadow_right=15, both_wrong=4, log10_evidence=2.75)
        )
    return told


def comparison(inference_id: str = "req-17", slot: str = "green") -> pb.Comparison:
    """A 4 that is taken for a 9."""
    told = pb.Comparison(
        model="digits", kind=pb.COMPARISON_KIND_SHADOW, result=pb.COMPARISON_RESULT_MISMATCH, shadow_slot=slot,
        live_slot="blue", shadow_revision=pb.Revision(model="digits", version=2), inference_id=inference_id,
        method=pb.COMPARISON_METHOD_ARGMAX, distance=1.0, output_name=OUTPUT, mismatch_count=1,
        element_count=8, live_argmax=4, shadow_argmax=9, sampling_probability=0.5,
        sampling_rule=pb.SAMPLING_RULE_MISMATCH,
    )  # fmt: skip
    told.time.FromSeconds(START_S + 5)
    told.live_duration.FromMicroseconds(1500)
    return told
