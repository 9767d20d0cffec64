"""`turnoutctl feedback`: one label and files of them, what is counted, what cannot be meant."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from support.command import turnoutctl
from support.fake_admin import FakeAdmin
from turnout.core.errors import ControlError, Refusal
from turnout_client.ctl.labels import batches, label, read
from turnout_client.written import SpecError
from turnout_wire.gen.feedback_pb2 import Feedback

NOBODY = "127.0.0.1:1"


def sent(fake: FakeAdmin) -> list[list[Feedback]]:
    """The items of each request."""
    return [list(request.feedback) for name, request in fake.asked if name == "RecordFeedback"]


def test_one_label_is_accepted_once_and_unknown_ids_are_no_error(fake: FakeAdmin) -> None:
    fake.shadows.known = {"r1"}
    done = turnoutctl("feedback", "digits", "r1", "4", "--output", "probabilities")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("digits: 1 accepted, 0 unknown, 0 duplicate, in ")
    assert sent(fake) == [[Feedback(inference_id="r1", label="4", output="probabilities")]]
    assert fake.asked[-1][1].model == "digits" and fake.shadows.labels == {"r1": "4"}
    assert "0 accepted, 0 unknown, 1 duplicate" in turnoutctl("feedback", "digits", "r1", "9").stdout
    assert "0 accepted, 1 unknown, 0 duplicate" in turnoutctl("feedback", "digits", "r2", "9").stdout


@pytest.mark.parametrize(
    "text",
    [
        "inference_id,label\nr1,4\n\nr2,9\n",
        "\ufeffinference_id,label\r\nr1,4\r\nr2,9\r\n",
        "r1,4\nr2,9",
        "when,label,inference_id\nnow,4,r1\nlater,9,r2\n",
        '{"inference_id": "r1", "label": 4}\n\n{"label": "9", "inference_id": "r2", "more": [1]}\n',
    ],
    ids=["csv", "of a spreadsheet", "without a heading", "in any order", "JSON lines"],
)
def test_files(fake: FakeAdmin, tmp_path: Path, text: str) -> None:
    fake.shadows.known = {"r1", "r2"}
    (tmp_path / "labels").write_text(text, encoding="utf-8", newline="")
    done = turnoutctl("feedback", "digits", "--file", str(tmp_path / "labels"), "--json")
    assert done.json["replicas"][0]["result"] == {"accepted": 2, "unknown": 0, "duplicate": 0}
    assert (done.status, fake.shadows.labels) == (0, {"r1": "4", "r2": "9"})


def test_outputs_and_labels_of_several_rows(fake: FakeAdmin) -> None:
    csv = 'inference_id,label,output\nr1,"4,9",digit\nr2,3,\n'
    turnoutctl("feedback", "digits", "-f", "-", stdin=csv)
    turnoutctl("feedback", "digits", "-f", "-", stdin='{"inference_id": "r1", "label": [4, "9"], "output": "digit"}')
    first = Feedback(inference_id="r1", label="4,9", output="digit")
    assert sent(fake) == [[first, Feedback(inference_id="r2", label="3")], [first]]


def test_a_long_file_goes_in_batches_of_1000_and_counts_add_up(fake: FakeAdmin) -> None:
    fake.shadows.known = {f"r{number}" for number in range(0, 2500, 2)}
    done = turnoutctl("feedback", "digits", "-f", "-", stdin="".join(f"r{number},4\n" for number in range(2500)))
    assert [len(items) for items in sent(fake)] == [1000, 1000, 500]
    assert done.status == 0 and "digits: 1,250 accepted, 1,250 unknown, 0 duplicate" in done.stdout


def test_batches_fit_into_a_message() -> None:
    labels = [label(number, f"r{number}", "4," * 20_000 + "4") for number in range(1, 31)]
    found = list(batches(labels))
    assert [each for batch in found for each in batch] == labels
    assert len(found) > 1 and all(sum(each.message.ByteSize() for each in batch) <= 512 << 10 for batch in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r1,4\nr2\n", "line 2: 1 columns, expected inference_id, label"),
        ("inference_id,label\nr1,4,5\n", "line 2: 3 columns, expected inference_id, label"),
        ("r1\n", "line 1: 1 columns"),
        ("r1,4,x,y\n", "line 1: 4 columns"),
        ("inference_id,label\n\n,4\n", "line 3: it has no inference_id"),
        ("r1,\n", "line 1: it has no label"),
        ('r1,"4\n', "no CSV"),
        ('{"inference_id": "r1", "label": 4}\n{\n', "line 2: no JSON"),
        ('{"inference_id": "r1", "label": 4}\n[]\n', "line 2: expected an object with inference_id and label, found"),
        ('{"inference_id": "r1", "label": 4.5}', "line 1: label is 4.5: write a text or a whole number"),
        ('{"inference_id": "r1", "label": true}', "line 1: label is True"),
        ('{"inference_id": {}, "label": 1}', "line 1: inference_id is {}"),
        ('{"inference_id": "r1"}', "line 1: it has no label"),
        ('{"inference_id": "r1", "label": []}', "line 1: it has no label"),
        ("r1," + "4" * 65_537, "line 1: a label of 65,537 characters, the limit is 65,536"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(SpecError) as found:
        list(read(io.StringIO(text)))
    assert said in str(found.value)


def test_a_bad_line_ends_it_after_what_is_before_it_was_sent(fake: FakeAdmin, tmp_path: Path) -> None:
    fake.shadows.known = {"r1"}
    file = tmp_path / "labels.csv"
    file.write_text("r1,4\nr2,9\nr3\n")
    done = turnoutctl("feedback", "digits", "-f", str(file))
    assert done.status == 2 and fake.shadows.labels == {"r1": "4"}
    said = " ".join(done.stderr.split())
    assert (
        "labels.csv: line 3: 1 columns" in said and "2 labels before it were sent; correct it: what was taken" in said
    )
    file.write_text("r1\n")
    first = turnoutctl("feedback", "digits", "-f", str(file))
    assert first.status == 2 and "were sent" not in first.stderr


def test_a_label_that_the_server_refuses_is_named_by_its_line(fake: FakeAdmin) -> None:
    fake.shadows.known = {f"r{number}" for number in range(1100)}
    text = "inference_id,label\n" + "".join(f"r{number},{'cat' if number == 1050 else 4}\n" for number in range(3000))
    done = turnoutctl("feedback", "digits", "-f", "-", stdin=text)
    assert done.status == 1 and len(sent(fake)) == 2, "nothing is sent after a refusal"
    said = " ".join(done.stderr.split())
    assert "INVALID_REQUEST: line 1052: feedback[50].label: 'cat' is no class" in said
    assert (
        "before it: 1,000 accepted, 0 unknown, 0 duplicate; what was taken counts once: all may be sent again" in said
    )
    document = turnoutctl("feedback", "digits", "-f", "-", "--json", stdin=text).json
    metadata = document["replicas"][0]["error"]["metadata"]
    assert (metadata["accepted"], metadata["duplicate"]) == ("0", "1000")


def test_several_servers_get_all_and_one_that_refuses_gets_no_more(fake: FakeAdmin, second: FakeAdmin) -> None:
    fake.shadows.known = {"r1"}
    second.refusals["RecordFeedback"] = ControlError(Refusal.MODEL_NOT_FOUND, "unknown model 'digits'")
    text = "".join(f"r{number},4\n" for number in range(1500))
    done = turnoutctl("-e", fake.address, "-e", second.address, "feedback", "digits", "-f", "-", stdin=text)
    assert done.status == 4 and "1 accepted, 1,499 unknown" in " ".join(done.stdout.split())
    assert "refused, MODEL_NOT_FOUND" in " ".join(done.stdout.split()) and "unknown model 'digits'" in done.stderr
    assert (len(sent(fake)), len(sent(second))) == (2, 1)


def test_nobody_there(fake: FakeAdmin) -> None:
    assert turnoutctl("feedback", "digits", "r1", "4", "-e", NOBODY).status == 3


@pytest.mark.parametrize(
    "words", [(), ("r1",), ("r1", ""), ("r1", "4", "-f", "-"), ("-f", "-", "--output", "y"), ("-f", "missing.csv")]
)
def test_wrong_usage_asks_nobody(fake: FakeAdmin, words: tuple[str, ...]) -> None:
    assert turnoutctl("feedback", "digits", *words, stdin="r1,4").status == 2
    assert sent(fake) == []


def test_what_is_no_text_is_refused(fake: FakeAdmin, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"r1,\xff\n")
    done = turnoutctl("feedback", "digits", "-f", str(tmp_path / "labels.csv"))
    assert done.status == 2 and "utf-8" in done.stderr


def test_an_empty_file_sends_nothing(fake: FakeAdmin) -> None:
    done = turnoutctl("feedback", "digits", "-f", "-", "--json", stdin="\n")
    assert json.loads(done.stdout)["replicas"][0]["result"]["accepted"] == 0 and sent(fake) == []
