"""Shadows of a real server: what is told of two versions of digits, to whom, and that no live answer ever changes."""

from __future__ import annotations

import functools
import shutil
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from support import onnx_models
from support.documented import undocumented
from support.otlp_sink import Sink, grpc_sink, values
from support.server import Server, address_of, process, until
from turnout_client.captures import read_capture
from turnout_wire.admin import FeedbackServiceStub, SlotServiceStub
from turnout_wire.gen import feedback_pb2
from turnout_wire.gen import grpc_service_pb2 as inference
from turnout_wire.gen import slots_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub
from turnout_wire.tensors import Array
from zoo.samples import DIGITS, heldout

REQUESTS = 2000
CLASSES = 10
CONFUSED = {("4", "9"), ("7", "9"), ("3", "8")}  # what version 3's labeller got wrong: see zoo/digits
SCORES = "probabilities"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
ALWAYS = {"OTEL_TRACES_SAMPLER": "always_on"}
CALL_S = 30
STOP_S_MAX = 8.0  # of those 1 s for a model that still runs, 2 s for telemetry, the rest for a noisy machine


@dataclass
class Serving:
    server: Server
    slots: SlotServiceStub
    feedback: FeedbackServiceStub
    infer: GRPCInferenceServiceStub
    model: str

    def load(self, slot: str, version: int) -> None:
        revision = pb.Revision(version=version)
        request = pb.LoadSlotRequest(model=self.model, slot=slot, revision=revision, wait=True)
        self.slots.LoadSlot(request, timeout=CALL_S)

    def shadow(self, slot: str, **rule: Any) -> None:
        rule_ = pb.ShadowRule(slot=slot, sample_bp=10_000, **rule)
        self.slots.SetShadow(pb.SetShadowRequest(model=self.model, rule=rule_), timeout=CALL_S)

    def clear(self, slot: str) -> None:
        self.slots.ClearShadow(pb.ClearShadowRequest(model=self.model, slot=slot), timeout=CALL_S)

    def ask(self, request: inference.ModelInferRequest) -> bytes:
        answer: inference.ModelInferResponse = self.infer.ModelInfer(request, timeout=CALL_S)
        return answer.SerializeToString(deterministic=True)

    def ask_all(self, requests: Sequence[inference.ModelInferRequest]) -> list[bytes]:
        """From four clients."""
        with ThreadPoolExecutor(4) as clients:
            return list(clients.map(self.ask, requests))

    def summary(self, slot: str) -> pb.ShadowSummary | None:
        """As it is now; None: no copy has come yet."""
        request = pb.WatchComparisonsRequest(model=self.model, slot=slot)
        call = self.slots.WatchComparisons(request, timeout=0.5)
        try:
            return next(call).summary
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
            return None
        finally:
            call.cancel()

    def settled(self, slot: str, offered: int) -> pb.ShadowSummary:
        """Once each copy is compared or dropped."""
        found: list[pb.ShadowSummary] = []

        def all_there() -> bool:
            found[:] = filter(None, [self.summary(slot)])
            return bool(found) and found[0].total.pair_count + sum(found[0].dropped.values()) >= offered

        until(all_there, 60)
        assert found[0].total.pair_count + sum(found[0].dropped.values()) == offered
        return found[0]

    def learn(self, labels: Mapping[str, str]) -> Counter[str]:
        said: Counter[str] = Counter()
        items = [feedback_pb2.Feedback(inference_id=i, label=label, output=SCORES) for i, label in labels.items()]
        for start in range(0, len(items), 1000):
            request = feedback_pb2.RecordFeedbackRequest(model=self.model, feedback=items[start : start + 1000])
            reply = self.feedback.RecordFeedback(request, timeout=CALL_S)
            said.update(accepted=reply.accepted, unknown=reply.unknown, duplicate=reply.duplicate)
        return said

    def stop(self) -> float:
        """Seconds until it has ended, as asked."""
        started = time.monotonic()
        self.server.signal(signal.SIGTERM)
        assert self.server.wait() == 0
        return time.monotonic() - started


@contextmanager
def serving(repository: Path, model: str, *flags: str, more: Mapping[str, str] | None = None) -> Iterator[Serving]:
    with (
        process(repository, "--preflight=off", *flags, more=more) as server,
        grpc.insecure_channel(address_of(server, "admin")) as admin,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield Serving(
            server, SlotServiceStub(admin), FeedbackServiceStub(admin), GRPCInferenceServiceStub(channel), model
        )


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Version 1 is served at first; 2 and 3 are there."""
    shutil.copytree(DIGITS, tmp_path / "models" / "digits")
    config = "max_batch_size: 32\nversion_policy: { specific { versions: [1] } }\n"
    (tmp_path / "models" / "digits" / "config.pbtxt").write_text(config)
    return tmp_path / "models"


@functools.cache
def samples() -> tuple[Array, Array]:
    return heldout(REQUESTS)


def pictures(prefix: str, count: int = REQUESTS) -> list[inference.ModelInferRequest]:
    requests = []
    for number, image in enumerate(samples()[0][:count]):
        request = inference.ModelInferRequest(model_name="digits", id=f"{prefix}-{number}")
        request.inputs.add(name="image", datatype="FP32", shape=[1, 64])
        request.raw_input_contents.append(image.tobytes())
        requests.append(request)
    return requests


def confusions(summary: pb.ShadowSummary, count: int) -> set[tuple[str, str]]:
    """The most frequent ones."""
    pairs = [(each.live_class, each.shadow_class) for each in summary.confusions if each.output == SCORES]
    return set(pairs[:count])


def test_two_versions_of_digits_and_what_labels_say_of_them(digits: Path) -> None:
    with serving(digits, "digits", "--shadow-queue-max=4096") as one:  # requests come as fast as they can
        one.load("green", 2)
        one.load("red", 3)
        one.shadow("green")
        one.shadow("red")
        labels = {f"first-{number}": str(label) for number, label in enumerate(samples()[1])}
        one.ask_all(pictures("first"))
        better, worse = one.settled("green", REQUESTS), one.settled("red", REQUESTS)
        for told in (better, worse):
            _check_agreement(told)
        assert confusions(worse, 4) > CONFUSED, "beside 1 for 8, which version 1 gets wrong"
        assert not confusions(better, 4) & CONFUSED
        assert one.learn(labels)["accepted"] >= better.total.pair_count
        scores = {slot: one.settled(slot, REQUESTS).reference for slot in ("green", "red")}
        assert scores["green"].only_shadow_right > 5 * scores["green"].only_live_right
        assert scores["green"].log10_evidence > 2, "most of its disagreement is improvement"
        right = {slot: (s.both_right + s.only_shadow_right) / _rows(s) for slot, s in scores.items()}
        assert right["green"] > right["red"] + 0.02

        one.slots.SwapSlots(pb.SwapSlotsRequest(model="digits", slot="green"), timeout=CALL_S)
        one.ask_all(pictures("second"))
        worse = one.settled("red", REQUESTS)
        assert (worse.live_revision.version, worse.shadow_revision.version) == (2, 3)
        _check_agreement(worse)
        assert confusions(worse, 3) == CONFUSED
        assert worse.verdict == pb.VERDICT_FAIL, "its interval is beyond 5 % of disagreement"
        one.learn({f"second-{number}": str(label) for number, label in enumerate(samples()[1])})
        reference = one.settled("red", REQUESTS).reference
        assert reference.only_live_right > 2 * reference.only_shadow_right
        assert reference.log10_evidence < 0
        assert one.stop() < STOP_S_MAX


def _check_agreement(told: pb.ShadowSummary) -> None:
    """An interval around the rate, and by class what adds up to it."""
    assert told.total.pair_count > 0.9 * REQUESTS, told.dropped
    assert 0.5 < told.total.low < told.total.rate < told.total.high < 1
    assert told.total.high - told.total.low < 0.1
    classes = [each for each in told.classes if each.output == SCORES]
    assert sum(each.row_count for each in classes) == told.total.pair_count
    assert [each.live_class for each in classes] == [str(digit) for digit in range(CLASSES)]
    differing = sum(each.row_count - each.agreeing_count - each.near_tie_count for each in classes)
    assert differing / told.total.pair_count == pytest.approx(1 - told.total.rate, abs=1e-9)
    assert told.worst_pairs[0].live_class != told.worst_pairs[0].shadow_class


def _rows(score: pb.ReferenceScore) -> int:
    return score.both_right + score.only_live_right + score.only_shadow_right + score.both_wrong


@pytest.mark.parametrize("captures", [False, True], ids=["without-captures", "with-captures"])
def test_records_arrive_with_the_documented_fields_and_no_payload(digits: Path, tmp_path: Path, captures: bool) -> None:
    folder = tmp_path / "kept"
    flags = [f"--shadow-capture-dir={folder}"] if captures else []
    with grpc_sink() as got:
        flags.append(f"--otlp-endpoint={got.url}")
        with serving(digits, "digits", *flags, more=SOON | ALWAYS) as one:
            one.load("green", 2)
            one.shadow("green", noise_bp=1000)
            requests = pictures("told", 500)
            one.ask_all(requests)
            told = one.settled("green", 500)
            until(lambda: events(got, "summary"), 30)
            until(lambda: len(events(got, "comparison")) > 5, 30)
            until(lambda: any(metric.name == "turnout.shadow.comparisons" for metric in got.metrics))
            if captures:
                until(lambda: len(list(folder.glob("*.npz"))) >= len(payloads(got)) > 0)
            pinned = {version: answers(one, requests, version) for version in (1, 2)}
            assert one.stop() < STOP_S_MAX
        _check_records(got, captures)
        _check_summaries(got, told)
        _check_metrics(got, told.total.pair_count)
        _check_no_payload(got, requests, pinned)
        archives = sorted(folder.glob("*.npz"))
        assert bool(archives) == captures
        for archive in archives:
            _check_capture(archive, requests, pinned)


def events(got: Sink, kind: str) -> list[Any]:
    return [log for log in got.logs if log.event_name == f"turnout.shadow.{kind}"]


def payloads(got: Sink) -> set[str]:
    told = [values(log.attributes) for log in events(got, "comparison")]
    return {str(one["turnout.payload.ref"]) for one in told if "turnout.payload.ref" in one}


def _check_records(got: Sink, captures: bool) -> None:
    live = {(span.trace_id, span.span_id): values(span.attributes) for span in got.spans}
    copies = {(span.trace_id.hex(), span.span_id.hex()): span for span in got.named("turnout.shadow.infer")}
    for log in events(got, "comparison"):
        fields = values(log.attributes)
        assert not undocumented(log.event_name, fields)
        assert not log.body.WhichOneof("value")
        span = live[log.trace_id, log.span_id]
        assert span["turnout.inference.id"] == fields["turnout.inference.id"], "in the trace of the live request"
        shadow_ids = str(fields["turnout.shadow.trace_id"]), str(fields["turnout.shadow.span_id"])
        (link,) = copies[shadow_ids].links
        assert (link.trace_id, link.span_id) == (log.trace_id, log.span_id)
        assert (fields["turnout.live.revision"], fields["turnout.live.slot"]) == ("digits/1", "blue")
        assert 0 < fields["turnout.sampling.probability"] <= 1
        assert ("turnout.payload.ref" in fields) == (captures and fields["turnout.comparison.result"] != "match")
        if fields["turnout.comparison.result"] == "mismatch":
            assert log.severity_number == 13
            assert fields["turnout.live.argmax"] != fields["turnout.shadow.argmax"]
            assert fields["turnout.comparison.kind"] == "shadow", "the live revision agrees with itself"
    rules = Counter(values(log.attributes)["turnout.sampling.rule"] for log in events(got, "comparison"))
    assert rules["mismatch"] >= 5
    assert rules["top_distance"] >= 1


def _check_summaries(got: Sink, told: pb.ShadowSummary) -> None:
    for log in events(got, "summary"):
        fields = values(log.attributes)
        assert not undocumented(log.event_name, fields)
    last = values(events(got, "summary")[-1].attributes)
    assert last["turnout.total.pair.count"] == told.total.pair_count
    assert last["turnout.total.agreement.low"] == pytest.approx(told.total.low)
    assert last["turnout.total.agreement.high"] == pytest.approx(told.total.high)
    assert last["turnout.total.noise.rate"] == 0
    assert last["turnout.verdict"] in ("FAIL", "INCONCLUSIVE"), "as many replays as have run by then"


def _check_metrics(got: Sink, pairs: int) -> None:
    counted = [metric for metric in got.metrics if metric.name == "turnout.shadow.comparisons"][-1]
    points = [(values(point.attributes), point.as_int or point.as_double) for point in counted.sum.data_points]
    kinds: Counter[str] = Counter()
    for attributes, count in points:
        kinds[attributes["turnout.comparison.kind"]] += int(count)
    assert kinds["shadow"] == pairs, "every pair is counted, whatever is told"
    assert kinds["noise"] > 0


def _check_no_payload(
    got: Sink, requests: Sequence[inference.ModelInferRequest], pinned: Mapping[int, Sequence[Mapping[str, Array]]]
) -> None:
    """Neither as bytes nor as numbers, but for the differences that are documented."""
    sent = b"".join(message.SerializeToString() for _, message, _ in got.requests)
    for request in requests:
        assert request.raw_input_contents[0] not in sent
    for answers_ in pinned.values():
        for answer in answers_:
            assert answer[SCORES].tobytes() not in sent
    numbers = {
        value
        for kind in ("comparison", "summary")
        for log in events(got, kind)
        for value in values(log.attributes).values()
        if isinstance(value, float)
    }
    scores = {float(score) for answers_ in pinned.values() for answer in answers_ for score in answer[SCORES].flat}
    assert not numbers & (scores - {0.0, 1.0})


def answers(one: Serving, requests: Sequence[inference.ModelInferRequest], version: int) -> list[dict[str, Array]]:
    """What a version answers to those who pin it; they are not copied."""
    given = []
    for request in requests:
        pinned = inference.ModelInferRequest()
        pinned.CopyFrom(request)
        pinned.model_version = str(version)
        given.append(pinned)
    replies = [inference.ModelInferResponse.FromString(raw) for raw in one.ask_all(given)]
    kinds = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
    return [
        {
            output.name: np.frombuffer(raw, kinds[output.datatype]).reshape(tuple(output.shape))
            for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
        }
        for reply in replies
    ]


def _check_capture(
    archive: Path,
    requests: Sequence[inference.ModelInferRequest],
    pinned: Mapping[int, Sequence[Mapping[str, Array]]],
) -> None:
    kept = read_capture(archive)
    assert not undocumented("turnout.shadow.comparison", kept.about)
    number = int(str(kept.about["turnout.inference.id"]).rpartition("-")[2])
    assert kept.inputs["image"].tobytes() == requests[number].raw_input_contents[0]
    for side, version in ((kept.live, 1), (kept.shadow, 2)):
        assert set(side) == {SCORES, "label"}
        np.testing.assert_allclose(side[SCORES], pinned[version][number][SCORES], atol=1e-5)
        np.testing.assert_array_equal(side["label"], pinned[version][number]["label"])
    assert archive.stat().st_mode & 0o077 == 0, "for the server's user only"


# Of one signature: index int64 [rows, 1] to y float [rows, 1].
STEADY = "g (int64[batch, 1] index) => (float[batch, 1] y) { y = Cast<to = 1>(index) }"
CRASHING = """
g (int64[batch, 1] index) => (float[batch, 1] y) <float[4] table = {0.0, 1.0, 2.0, 3.0}> { y = Gather(table, index) }
"""
NAN = """
g (int64[batch, 1] index) => (float[batch, 1] y) {
  f = Cast<to = 1>(index)
  n = Neg(f)
  y = Sqrt(n)
}
"""
# After 200 products of two 256 x 256 matrices: about 100 ms on one core.
SLOW = """
g (int64[batch, 1] index) => (float[batch, 1] y)
<int64[2] size = {256, 256}, bool go = {1}, float side = {256.0}, int64 trips = {200}>
{
  m = ConstantOfShape<value = float[1] {0.00390625}>(size)
  last = Loop<body = b (int64 i, bool on, float[256, 256] a) => (bool still, float[256, 256] c) {
    still = Identity(on)
    c = MatMul(a, a)
  }>(trips, go, m)
  mean = ReduceMean<keepdims = 0>(last)
  scaled = Mul(mean, side)
  rounded = Round(scaled)
  f = Cast<to = 1>(index)
  y = Mul(f, rounded)
}
"""
ODD = {"blue": STEADY, "crash": CRASHING, "nan": NAN, "slow": SLOW}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is served; 2 fails for an index above 3, 3 answers NaN above 0, 4 takes 100 ms."""
    root = tmp_path_factory.mktemp("odd")
    config = "max_batch_size: 8\nversion_policy: { specific { versions: [1] } }\n"
    for version, text in enumerate(ODD.values(), 1):
        onnx_models.write(root, "odd", text, config, version)
    return root


def numbers(count: int) -> list[inference.ModelInferRequest]:
    requests = []
    for number in range(count):
        request = inference.ModelInferRequest(model_name="odd", id=f"id-{number}")
        request.inputs.add(name="index", datatype="INT64", shape=[1, 1])
        request.raw_input_contents.append(np.array([number % 8], "<i8").tobytes())
        requests.append(request)
    return requests


def dropped(one: Serving) -> dict[tuple[str, str], int]:
    """By revision and reason, as the metrics have it."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    asked = urllib.request.Request(f"http://{address_of(one.server, 'ops')}/metrics", headers=accept)
    with urllib.request.urlopen(asked, timeout=CALL_S) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.labels["turnout_shadow_revision"], sample.labels["turnout_drop_reason"]): int(sample.value)
        for family in families
        if family.name == "turnout_shadow_dropped"
        for sample in family.samples
        if sample.name.endswith("_total")
    }


@pytest.mark.parametrize("slot", ["crash", "nan", "slow"])
def test_an_odd_shadow_changes_no_live_answer(odd: Path, slot: str) -> None:
    version = list(ODD).index(slot) + 1
    with serving(odd, "odd", "--no-response-identity") as one:
        requests = numbers(400)
        alone = one.ask_all(requests)
        one.load(slot, version)
        one.shadow(slot, queue_max=20 if slot == "slow" else 0)
        assert one.ask_all(requests) == alone, "byte for byte"
        told = one.settled(slot, 400)
        lost = sum(told.dropped.values())
        assert told.total.pair_count == 400 - lost
        match slot:
            case "slow":
                assert told.dropped["queue_full"] > 200, "a queue of 20 at 100 ms a run takes few"
                assert told.latency_ratio_p50 > 10
            case "crash":
                assert told.total.pair_count > 200
                assert 0.3 < told.total.rate < 0.8, "half of the requests make it fail"
            case "nan":
                assert told.total.pair_count > 200
                assert 0.05 < told.total.rate < 0.25, "one of eight requests does not"
        assert dropped(one) == {(f"odd/{version}", reason): count for reason, count in told.dropped.items()}
        assert one.stop() < STOP_S_MAX


@pytest.mark.parametrize(
    ("reason", "rule"),
    [
        ("budget", {"bytes_max": 100}),
        ("payload_too_large", {"bytes_max": 11}),
        ("deadline", {"deadline": {"nanos": 1}}),
        ("classified", {}),
    ],
)
def test_what_is_not_compared_is_counted_by_reason(odd: Path, reason: str, rule: dict[str, Any]) -> None:
    with serving(odd, "odd") as one:
        one.load("slow", 4)
        one.shadow("slow", **rule)
        requests = numbers(100)
        for request in requests if reason == "classified" else []:
            request.outputs.add(name="y").parameters["classification"].int64_param = 1
        one.ask_all(requests)
        told = one.settled("slow", 100)
        assert set(told.dropped) <= {reason, "overload"}, "a noisy machine sheds copies first"
        assert told.dropped[reason] > 50
        assert sum(dropped(one).values()) == sum(told.dropped.values())


def test_a_rule_is_at_work_again_after_a_restart(odd: Path, tmp_path: Path) -> None:
    flags = (f"--state-dir={tmp_path / 'state'}",)
    with serving(odd, "odd", *flags) as one:
        one.load("crash", 2)
        one.shadow("crash", salt="s", noise_bp=5000)
        one.ask_all(numbers(40))
        before = one.settled("crash", 40)
        assert one.stop() < STOP_S_MAX
    with serving(odd, "odd", *flags) as one:
        one.ask_all(numbers(16))
        after = one.settled("crash", 16)
        assert after.shadow_revision == before.shadow_revision
        assert after.start_time.ToNanoseconds() > before.start_time.ToNanoseconds(), "counting begins anew"
        assert after.total.pair_count > 0
        assert one.stop() < STOP_S_MAX


def test_a_stop_waits_for_no_copies(odd: Path) -> None:
    """Neither for those that wait, nor for longer than a second for those that run."""
    with serving(odd, "odd") as one:
        one.load("slow", 4)
        one.shadow("slow")
        one.ask_all(numbers(400))  # 50 runs of 100 ms at least
        assert one.stop() < STOP_S_MAX
        assert "Traceback" not in one.server.stderr
        assert "Task was destroyed" not in one.server.stderr
