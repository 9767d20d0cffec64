"""Users: unary ones, streaming ones, and those whose requests are too large. Answers are checked before they count."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from locust import User, task
from locust.user.wait_time import constant, constant_throughput

from turnout_locust.calls import LOST, Outcome, Stream, ask, channel
from turnout_locust.expected import Sample, revision_of
from turnout_locust.load import Load
from turnout_locust.oversized import Oversized
from turnout_locust.rules import Rule
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub

STICKY_METADATA, STICKY_PARAMETER = "turnout-sticky-key", "sticky_key"
KEYS = 50  # people that one user stands for: shares of 5 % must show with a few users too
BURST = 4  # requests that a stream has under way
_numbers = itertools.count()


class Failure(Exception):
    """A request that counts as failed; Locust shows its text."""

    def __repr__(self) -> str:
        return str(self)


class CheckedUser(User):
    """What all users have: a connection, their samples and keys in turn, and the way into the statistics."""

    abstract = True
    load: ClassVar[Load]

    def on_start(self) -> None:
        number = next(_numbers)
        self._channel = channel(self.load.options.host)
        self.stub = GRPCInferenceServiceStub(self._channel)
        people = [f"{self.load.name}-{number}-{each}" for each in range(KEYS)]
        self._keys = itertools.cycle(people)
        samples = self.load.samples
        first = number * KEYS % len(samples)
        self._samples = itertools.cycle([*samples[first:], *samples[:first]])

    def on_stop(self) -> None:
        self._channel.close()

    def next_question(self) -> tuple[Sample, str]:
        return next(self._samples), next(self._keys)

    def settle(self, how: str, sample: Sample, key: str, asked: Rule, outcome: Outcome) -> None:
        """One request is over: into the account and Locust's statistics. `asked`: the rule under which it left."""
        load, answer = self.load, outcome.answer
        if answer is None:
            load.account.failed(asked.number, outcome.status)
            late = f"lost: no answer within {load.options.deadline_s:g} s, model {load.options.model}"
            said = late if outcome.status == LOST else f"{outcome.status}: {outcome.details}"
            self.tell(how, load.options.model, outcome, said)
            return
        revision = revision_of(answer)
        fault = sample.fault(answer) or load.rules.fault(asked, key, revision)
        load.account.answered(asked.number, revision, outcome.took_ms, wrong=bool(fault))
        self.tell(how, revision or load.options.model, outcome, fault)

    def tell(self, how: str, name: str, outcome: Outcome, fault: str) -> None:
        self.environment.events.request.fire(
            request_type=how,
            name=name,
            response_time=outcome.took_ms,
            response_length=outcome.answer.ByteSize() if outcome.answer is not None else 0,
            exception=Failure(self.load.bounded(fault)) if fault else None,
            context={},
        )


class UnaryUser(CheckedUser):
    """ModelInfer, one after the other."""

    weight = 3

    @task
    def ask_one(self) -> None:
        sample, key = self.next_question()
        asked = self.load.rules.now
        self.load.account.begin()
        outcome = ask(self.stub, sample.request, ((STICKY_METADATA, key),), self.load.options.deadline_s)
        self.settle("unary", sample, key, asked, outcome)


class StreamUser(CheckedUser):
    """ModelStreamInfer: one stream for the user's life, a few requests under way on it."""

    weight = 1
    _ids = itertools.count()

    def on_start(self) -> None:
        super().on_start()
        self._stream = Stream(self.stub)

    def on_stop(self) -> None:
        self._stream.close()
        self._tell_strays()
        super().on_stop()

    @task
    def ask_some(self) -> None:
        if self._stream.ended:
            self._stream.close()
            self._stream = Stream(self.stub)
        questions = [self.next_question() for _ in range(BURST)]
        asked = self.load.rules.now
        for _ in questions:
            self.load.account.begin()
        outcomes = self._stream.ask([self._message(*each) for each in questions], self.load.options.deadline_s)
        for (sample, key), outcome in zip(questions, outcomes, strict=True):
            self.settle("stream", sample, key, asked, outcome)
        self._tell_strays()

    def _message(self, sample: Sample, key: str) -> pb.ModelInferRequest:
        message = pb.ModelInferRequest()
        message.CopyFrom(sample.request)
        message.id = f"{next(self._ids):x}"
        message.parameters[STICKY_PARAMETER].string_param = key
        return message

    def _tell_strays(self) -> None:
        for _ in range(self._stream.strays):
            self.load.account.begin()
            self.load.account.failed(self.load.rules.now.number, "stray")
            self.tell("stream", self.load.options.model, Outcome(0.0, None), "an answer that belongs to no request")
        self._stream.strays = 0


class OversizedUser(CheckedUser):
    """While there is a storm: requests that the server must refuse. A refusal as documented is a success, in a row of
    its own; anything else is a failure."""

    wait_time = constant(0.02)

    def on_start(self) -> None:
        super().on_start()
        self._kinds = itertools.cycle(self.load.oversized)

    @task
    def ask_too_much(self) -> None:
        asked = self.load.rules.now
        if not asked.storm:
            return
        kind: Oversized = next(self._kinds)
        self.load.account.begin()
        outcome = ask(self.stub, kind.request, (), self.load.options.deadline_s)
        if outcome.status == kind.status:
            self.load.account.refused(asked.number, kind.name)
            fault = ""
        else:
            self.load.account.failed(asked.number, "not refused")
            fault = f"{kind.name} must be refused with {kind.status}, got {outcome.status or 'an answer'}"
            fault += f": {outcome.details}" if outcome.details else ""
        self.tell("refused", kind.name, outcome, fault)


def user_classes(storm: bool) -> list[type[User]]:
    """Those of a scenario."""
    return [UnaryUser, StreamUser, *([OversizedUser] if storm else [])]


def set_pace(load: Load) -> None:
    """As the options say, for this process."""
    CheckedUser.load = load
    share = load.options.rate / load.options.users
    for kind, requests in ((UnaryUser, 1), (StreamUser, BURST)):
        kind.wait_time = _pace(share / requests)


def _pace(tasks_per_s: float) -> Any:
    return constant_throughput(tasks_per_s) if tasks_per_s else constant(0)
