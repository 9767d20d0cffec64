"""Labels in files: CSV or JSON lines, read line by line and made into batches of bounded size."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from turnout_client.written import SpecError
from turnout_wire.gen import feedback_pb2

BATCH_LABELS_MAX = 1000  # what the server takes at once
_BATCH_BYTES_MAX = 512 << 10  # half of the largest message that the server reads
_LABEL_CHARACTERS_MAX = 65_536
_COLUMNS = ("inference_id", "label", "output")  # the last may be left out


@dataclass(frozen=True, slots=True)
class Label:
    """One right answer, and the line of the file that it is in; 0: of none."""

    line: int
    message: feedback_pb2.Feedback


def label(line: int, inference_id: str, text: str, output: str = "") -> Label:
    """Raises SpecError where it cannot be meant."""
    for name, value in (("inference_id", inference_id), ("label", text)):
        if not value:
            raise SpecError(f"{place(line)}it has no {name}")
    if len(text) > _LABEL_CHARACTERS_MAX:
        raise SpecError(f"{place(line)}a label of {len(text):,} characters, the limit is {_LABEL_CHARACTERS_MAX:,}")
    return Label(line, feedback_pb2.Feedback(inference_id=inference_id, label=text, output=output))


def place(line: int) -> str:
    """How a message about it begins."""
    return f"line {line}: " if line else ""


def read(lines: Iterable[str]) -> Iterator[Label]:
    """JSON lines where the first line begins with a brace, else CSV.

    Raises:
        SpecError: a line that cannot be meant; those before it have been yielded.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        return
    all_of_them = itertools.chain([first], numbered)
    yield from _json_lines(all_of_them) if first[1].lstrip().startswith("{") else _csv(all_of_them)


def batches(labels: Iterable[Label]) -> Iterator[list[Label]]:
    """At most BATCH_LABELS_MAX at once, of what fits into a message. What came before a SpecError is yielded first."""
    batch: list[Label] = []
    size = 0
    trouble: SpecError | None = None
    try:
        for each in labels:
            if batch and (len(batch) == BATCH_LABELS_MAX or size + each.message.ByteSize() > _BATCH_BYTES_MAX):
                yield batch
                batch, size = [], 0
            batch.append(each)
            size += each.message.ByteSize()
    except SpecError as error:
        trouble = error
    if batch:
        yield batch
    if trouble is not None:
        raise trouble


def _json_lines(lines: Iterable[tuple[int, str]]) -> Iterator[Label]:
    for number, line in lines:
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise SpecError(f"line {number}: no JSON: {error}") from None
        if not isinstance(raw, dict):
            raise SpecError(f"line {number}: expected an object with {' and '.join(_COLUMNS[:2])}, found {line[:80]!r}")
        labels = raw.get("label")
        several = labels if isinstance(labels, list) else [labels]  # one for each row of the request
        yield label(
            number,
            _text(number, "inference_id", raw.get("inference_id")),
            ",".join(_text(number, "label", each) for each in several),
            _text(number, "output", raw.get("output")),
        )


def _text(line: int, name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SpecError(f"line {line}: {name} is {value!r}: write a text or a whole number")
    return str(value)


def _csv(lines: Iterable[tuple[int, str]]) -> Iterator[Label]:
    number = 0

    def counted() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 - of the row that csv hands out next
            yield line

    columns: Sequence[str] | None = None
    try:
        for row in csv.reader(counted(), strict=True):
            if columns is None:
                columns = [name.strip() for name in row]
                if set(_COLUMNS[:2]) <= set(columns):
                    continue
                columns = _COLUMNS[: len(row)]
            if len(row) != len(columns) or len(row) < 2:
                raise SpecError(f"line {number}: {len(row)} columns, expected {', '.join(columns)}")
            found = dict(zip(columns, row, strict=True))
            yield label(number, *(found.get(name, "") for name in _COLUMNS))
    except csv.Error as error:
        raise SpecError(f"line {number}: no CSV: {error}") from None
