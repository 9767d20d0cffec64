"""Which revision an answer names, whether it is that revision's and no other's, and what became of every request.

Pure: questions, answers and instants in, counts out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnout_bench.results import OK, UNANSWERED
from turnout_bench.samples import Sample, sample
from turnout_wire.gen import grpc_service_pb2 as pb
from zoo.samples import golden

Answer = pb.ModelInferResponse


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and what each revision (`digits/2`) answers to it."""

    frame: bytes
    by_revision: Mapping[str, Sample]

    def right(self, answer: Answer) -> bool:
        """Within tolerance of the revision that the answer names, and outside it for every other."""
        named = revision_of(answer)
        return named in self.by_revision and all(
            each.right_message(answer) is (revision == named) for revision, each in self.by_revision.items()
        )

    def told_apart(self) -> bool:
        """Whether each revision's own answer is outside the tolerance of all others."""
        return all(
            other.right_message(_as_message(own)) is (other is own)
            for own in self.by_revision.values()
            for other in self.by_revision.values()
        )


def revision_of(answer: Answer) -> str:
    """As its parameter says, where its model_version says the same; else empty."""
    named = answer.parameters["turnout_revision"].string_param if "turnout_revision" in answer.parameters else ""
    return named if named == f"{answer.model_name}/{answer.model_version}" else ""


def golden_questions(model: str, versions: Mapping[int, Path]) -> list[Question]:
    """From the golden samples of a model's versions, which have the same inputs. One row each.

    Raises:
        ValueError: two versions answer one of them alike, so that nobody could tell who answered.
    """
    stored = {f"{model}/{version}": golden(folder) for version, folder in versions.items()}
    inputs = next(iter(stored.values()))[0]
    questions = []
    for row in range(len(next(iter(inputs.values())))):
        one = slice(row, row + 1)
        asked = {name: array[one] for name, array in inputs.items()}
        by_revision = {
            revision: sample(model, asked, {name: array[one] for name, array in outputs.items()})
            for revision, (_, outputs) in stored.items()
        }
        questions.append(Question(next(iter(by_revision.values())).frame, by_revision))
    if not all(question.told_apart() for question in questions):
        raise ValueError(f"the versions of '{model}' answer a golden sample alike")
    return questions


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the requests of a run.

    Attributes:
        failed: another status than OK, or not sent at all; lost: neither answer nor status.
        doubled: answers beyond the first, those to nobody's request included.
        wrong: the first answer is not that of the revision that it names.
        by_revision: first answers, by what they name.
    """

    requests: int
    failed: int
    lost: int
    doubled: int
    wrong: int
    by_revision: Mapping[str, int]
    statuses: Mapping[str, int]

    @property
    def bad(self) -> int:
        return self.failed + self.lost + self.doubled + self.wrong


def tally(
    questions: Sequence[Question], outcomes: Sequence[str], heard: Sequence[Sequence[Answer]], strays: int = 0
) -> Tally:
    """Request n asked question n, modulo their number, ended as `outcomes[n]`, and got the answers `heard[n]`."""
    statuses = Counter(outcomes)
    first = [(number, answers[0]) for number, answers in enumerate(heard) if answers]
    unheard = sum(outcome == OK and not answers for outcome, answers in zip(outcomes, heard, strict=True))
    return Tally(
        requests=len(outcomes),
        failed=sum(count for status, count in statuses.items() if status not in (OK, UNANSWERED)),
        lost=statuses[UNANSWERED] + unheard,
        doubled=strays + sum(max(len(answers) - 1, 0) for answers in heard),
        wrong=sum(not questions[number % len(questions)].right(answer) for number, answer in first),
        by_revision=dict(Counter(revision_of(answer) for _, answer in first)),
        statuses=dict(statuses),
    )


def _as_message(own: Sample) -> Answer:
    message = Answer()
    for name, array in own.expected.items():
        message.outputs.add(name=name)
        message.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
    return message
