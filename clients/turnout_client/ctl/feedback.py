"""`turnoutctl feedback`: the right answers to requests, one or a file of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import IO

import click

from turnout_client.admin import AdminClient
from turnout_client.ctl import completion, messages
from turnout_client.ctl.labels import Label, batches, label, place, read
from turnout_client.ctl.replicas import Outcome, ask_all
from turnout_client.ctl.report import finish, show_changes
from turnout_client.ctl.session import Session, session_of, session_options
from turnout_client.errors import AdminError
from turnout_client.written import SpecError
from turnout_wire.gen import feedback_pb2

_TIMEOUT_S = 10.0
_AGAIN = "what was taken counts once: all may be sent again"

Counts = feedback_pb2.RecordFeedbackResponse


@click.command(short_help="Say what the right answer to a request was.")
@click.argument("model", shell_complete=completion.models)
@click.argument("inference_id", metavar="[ID]", required=False)
@click.argument("text", metavar="[LABEL]", required=False)
@click.option(
    "--file",
    "-f",
    "file",
    type=click.File(encoding="utf-8-sig"),  # spreadsheets write a mark of byte order
    help="CSV or JSON lines of inference_id, label and, if need be, output; - reads standard input.",
)
@click.option("--output", default="", help="Which output the label is of (default: the first compared by class).")
@session_options
@click.pass_context
def feedback(
    context: click.Context, model: str, inference_id: str | None, text: str | None, file: IO[str] | None, output: str
) -> None:
    """Tell which class was right for the request with that inference id, so that `shadow watch` can say whether
    disagreement is improvement. Of a request with several rows, one LABEL for each, separated by commas. The first
    label of a request counts. Unknown: no shadow slot got a copy of it, or the server has forgotten it."""
    session = session_of(context)
    if file is None and not (inference_id and text):
        raise click.UsageError("an ID and a LABEL, or --file, which has them")
    if file is not None and (inference_id or output):
        raise click.UsageError("--file has ids, labels and outputs: leave them out here")
    sender = _Sender(session, model)
    try:
        for batch in batches(read(file) if file is not None else [label(0, inference_id or "", text or "", output)]):
            sender.send(batch)
            if not sender.standing:
                break
    except (SpecError, UnicodeDecodeError) as error:
        where = file.name if file is not None else "command"
        raise click.UsageError(f"{where}: {error}{sender.sent()}") from None
    finish(session, "feedback", sender.outcomes, messages.shape, partial(_show, session, model), model=model)


class _Sender:
    """Sends batches, one after the other, to all servers; one that refuses gets no more.

    Attributes:
        outcomes: what came of it so far.
    """

    def __init__(self, session: Session, model: str) -> None:
        self._session = session
        self._model = model
        self.outcomes = [Outcome(endpoint, Counts(), None, 0) for endpoint in session.endpoints]

    @property
    def standing(self) -> list[str]:
        """Servers that took all so far."""
        return [outcome.endpoint for outcome in self.outcomes if outcome.error is None]

    def send(self, batch: Sequence[Label]) -> None:
        request = feedback_pb2.RecordFeedbackRequest(model=self._model, feedback=[each.message for each in batch])

        def record(client: AdminClient) -> Counts:
            return client.record_feedback(request)

        asked = ask_all(self.standing, self._session.timeout_s or _TIMEOUT_S, record)
        more = {outcome.endpoint: outcome for outcome in asked}
        self.outcomes = [
            _added(before, more[before.endpoint], batch) if before.endpoint in more else before
            for before in self.outcomes
        ]

    def sent(self) -> str:
        """What was sent before a line that cannot be meant; "" where nothing was."""
        most = max(_total(outcome.value) for outcome in self.outcomes)
        return f"; {most:,} labels before it were sent; correct it: {_AGAIN}" if most else ""


def _added(before: Outcome[Counts], more: Outcome[Counts], batch: Sequence[Label]) -> Outcome[Counts]:
    elapsed_ns = before.elapsed_ns + more.elapsed_ns
    assert before.value is not None
    if more.value is None:
        assert more.error is not None
        return Outcome(before.endpoint, None, _placed(more.error, before.value, batch), elapsed_ns)
    counts = Counts(
        accepted=before.value.accepted + more.value.accepted,
        unknown=before.value.unknown + more.value.unknown,
        duplicate=before.value.duplicate + more.value.duplicate,
    )
    return Outcome(before.endpoint, counts, None, elapsed_ns)


def _placed(error: AdminError, before: Counts, batch: Sequence[Label]) -> AdminError:
    """With the line that is at fault, and what was counted before it."""
    message, metadata = error.message, dict(error.metadata)
    for field, _ in error.fields:
        index = field.partition("[")[2].partition("]")[0]
        if field.startswith("feedback[") and index.isdecimal() and int(index) < len(batch):
            message = place(batch[int(index)].line) + message
    if _total(before):
        message += f"; before it: {_counts(before)}; {_AGAIN}"
        metadata |= {name: str(value) for name, value in messages.shape(before).items()}
    return AdminError(error.code, message, error.reason, metadata, error.fields)


def _show(session: Session, model: str, outcomes: Sequence[Outcome[Counts]]) -> None:
    show_changes(session, outcomes, lambda counts: f"{model}: {_counts(counts)}")


def _counts(counts: Counts) -> str:
    return f"{counts.accepted:,} accepted, {counts.unknown:,} unknown, {counts.duplicate:,} duplicate"


def _total(counts: Counts | None) -> int:
    return counts.accepted + counts.unknown + counts.duplicate if counts is not None else 0
