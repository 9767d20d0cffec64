"""`turnoutctl shadow watch`: lines, JSON, tables on a terminal, connections taken up again, ends."""

from __future__ import annotations

import io
import json
import re
import threading
from contextlib import redirect_stderr, redirect_stdout

import pytest

from support.command import Done, turnoutctl
from support.fake_admin import FakeAdmin, revision, serving
from support.fake_shadows import comparison, summary
from support.server import until
from support.shadows import shadow_rule
from turnout.core.commands import ClearShadow, Load, SetShadow
from turnout.core.errors import ControlError, Refusal
from turnout_client.ctl.main import main
from turnout_wire.gen import slots_pb2 as pb

NOBODY = "127.0.0.1:1"
WATCH = ("shadow", "watch", "digits")


def shadowed(fake: FakeAdmin, *slots: str) -> FakeAdmin:
    for number, slot in enumerate(slots or ("green",), 2):
        fake.do("digits", Load(slot, revision("digits", number)))
        fake.do("digits", SetShadow(shadow_rule(slot, 1_000, noise_bp=100)))
    return fake


@pytest.fixture
def green(fake: FakeAdmin) -> FakeAdmin:
    """Version 2 in green gets copies."""
    return shadowed(fake)


def told(fake: FakeAdmin, *found: pb.ShadowSummary | pb.Comparison, watches: int = 1) -> threading.Thread:
    """Tells it as soon as somebody watches."""

    def tell() -> None:
        until(lambda: fake.shadows.watching >= watches)
        fake.shadows.tell(*found)

    thread = threading.Thread(target=tell)
    thread.start()
    return thread


def test_each_event_is_a_line(green: FakeAdmin) -> None:
    teller = told(green, comparison("r1"), summary(2), comparison("r2"), summary(3))
    done = turnoutctl(*WATCH, "--count", "3")
    teller.join()
    assert (done.status, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()
    assert first.endswith("digits green  mismatch  r1  probabilities: argmax, class 4 → 9, 1 of 8")
    assert "digits green  digits/2@int8 against digits/1  window 100 pairs 98.00 %  total 200 pairs" in second
    assert "  r2  " in third


def test_each_event_is_a_json_document_on_a_line(green: FakeAdmin) -> None:
    worst = summary(2)
    worst.worst_pairs[0].distance = float("inf")
    teller = told(green, comparison(), worst)
    done = turnoutctl(*WATCH, "--count", "2", "--json")
    teller.join()
    assert (done.status, done.stderr) == (0, "")
    pair, told_summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert (pair["endpoint"], pair["event_type"], pair["summary"]) == (green.address, "COMPARISON", None)
    assert {name: pair["comparison"][name] for name in ("kind", "result", "method", "sampling_rule", "distance")} == {
        "kind": "SHADOW", "result": "MISMATCH", "method": "ARGMAX", "sampling_rule": "MISMATCH", "distance": 1.0,
    }  # fmt: skip
    assert pair["comparison"]["shadow_revision"] == "digits/2" and pair["comparison"]["live_duration_ms"] == 1.5
    assert pair["comparison"]["live_revision"] is None and pair["comparison"]["threshold"] is None
    assert pair["comparison"]["time"] == "2023-11-14T22:13:25Z"
    assert set(pair["comparison"]) == {
        field.name + ("_ms" if field.name.endswith("duration") else "") for field in pb.Comparison.DESCRIPTOR.fields
    }
    found = told_summary["summary"]
    assert (told_summary["event_type"], told_summary["comparison"]) == ("SUMMARY", None)
    assert set(found) == {field.name for field in pb.ShadowSummary.DESCRIPTOR.fields}
    assert found["verdict"] == "INCONCLUSIVE" and found["dropped"] == {"deadline": 3, "queue_full": 1200}
    assert found["total"]["pair_count"] == 200 and found["reference"] is None
    assert found["classes"][1] == {
        "output": "probabilities", "live_class": "4", "row_count": 100, "agreeing_count": 94, "near_tie_count": 2,
    }  # fmt: skip
    assert found["worst_pairs"][0]["distance"] == "Infinity", "JSON has no such number"


def test_an_enumeration_value_of_a_later_version_is_its_number(green: FakeAdmin) -> None:
    later = pb.Comparison.FromString(comparison().SerializeToString() + b"\x20\x63")  # result: 99
    teller = told(green, later)
    done = turnoutctl(*WATCH, "--count", "1", "--json")
    teller.join()
    assert done.json["comparison"]["result"] == "99"
    teller = told(green, later, watches=2)
    done = turnoutctl(*WATCH, "--count", "1")
    teller.join()
    assert done.status == 0 and "  99  req-17" in done.stdout


def test_one_slot_of_several(fake: FakeAdmin) -> None:
    shadowed(fake, "green", "red")
    teller = told(fake, summary(2, "red"), summary(2, "green"))
    done = turnoutctl(*WATCH, "green", "--count", "1")
    teller.join()
    assert "digits green" in done.stdout and "digits red" not in done.stdout


def test_once_prints_a_table_of_each_slot_and_ends(fake: FakeAdmin) -> None:
    shadowed(fake, "green", "red")
    fake.shadows.now = [summary(2, "green")]
    teller = told(fake, comparison(), summary(3, "green"), summary(3, "red"))
    done = turnoutctl(*WATCH, "--once")
    teller.join()
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.count("digits green  ") == 1, "the first is enough"
    assert re.search(r"^4 +100 +96.00 % +9 \(4\) *$", done.stdout, re.MULTILINE)
    assert "digits red  digits/2@int8 against digits/1 in blue" in done.stdout and "req-17  prob" not in done.stdout


def test_once_as_json_has_a_summary_of_each_slot(green: FakeAdmin) -> None:
    green.shadows.now = [summary(2)]
    done = turnoutctl(*WATCH, "--once", "--json")
    assert done.status == 0 and done.json["summary"]["shadow_slot"] == "green"


def test_once_without_any_request_ends_with_1_where_it_may_not_wait(green: FakeAdmin) -> None:
    done = turnoutctl(*WATCH, "--once", "--for", "0.3")
    assert (done.status, done.stdout) == (1, "")
    assert f"{green.address}: no summary of slot 'green' yet: they come while requests do" in done.stderr
    assert turnoutctl(*WATCH, "--for", "0.3").status == 0


def test_once_and_count_are_wrong_usage(green: FakeAdmin) -> None:
    assert turnoutctl(*WATCH, "--once", "--count", "2").status == 2


def test_without_a_rule_it_says_so_and_names_the_next_step(fake: FakeAdmin) -> None:
    done = turnoutctl(*WATCH)
    assert done.status == 1 and "NO_SHADOW_RULE: no slot of model 'digits' gets copies: there is nothing" in done.stderr
    assert "next: `turnoutctl shadow set digits SLOT` sends a READY slot copies of requests" in done.stderr
    shadowed(fake, "green")
    blue = turnoutctl(*WATCH, "blue")
    assert blue.status == 1 and "slot 'blue' of model 'digits' gets no copies" in blue.stderr
    assert "`turnoutctl shadow set digits blue`" in blue.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("shadow", "watch", "nope"), 1, "MODEL_NOT_FOUND: unknown model 'nope'"),
        ((*WATCH, "pink"), 1, "SLOT_NOT_FOUND: model 'digits' has no slot 'pink'"),
        ((*WATCH, "-e", NOBODY), 3, "UNAVAILABLE: no connection"),
    ],
)
def test_what_cannot_be_watched_ends_it(green: FakeAdmin, words: tuple[str, ...], status: int, said: str) -> None:
    done = turnoutctl(*words)
    assert done.status == status and said in done.stderr and "  next: " in done.stderr


def test_a_refusal_of_the_stream_ends_it(green: FakeAdmin) -> None:
    green.refusals["WatchComparisons"] = ControlError(Refusal.MODEL_NOT_FOUND, "it is gone")
    done = turnoutctl(*WATCH)
    assert done.status == 1 and "MODEL_NOT_FOUND: it is gone" in done.stderr


def test_several_servers_are_told_apart_and_one_that_cannot_makes_it_partial(
    green: FakeAdmin, second: FakeAdmin
) -> None:
    shadowed(second, "green")
    for server in (green, second):
        server.shadows.now = [summary(2)]
    both = turnoutctl("-e", green.address, "-e", second.address, *WATCH, "--count", "2")
    assert both.status == 0
    assert {line.split()[0] for line in both.stdout.splitlines()} == {green.address, second.address}
    second.do("digits", ClearShadow("green"))
    done = turnoutctl("-e", green.address, "-e", second.address, *WATCH, "--once")
    assert done.status == 4 and "digits green" in done.stdout and f"{second.address}: NO_SHADOW_RULE" in done.stderr


def test_a_lost_connection_is_taken_up_again(green: FakeAdmin) -> None:
    fake, done = shadowed(FakeAdmin.digits()), list[Done]()
    with serving(fake):
        watching = threading.Thread(target=lambda: done.append(turnoutctl("-e", fake.address, *WATCH, "--count", "2")))
        watching.start()
        told(fake, summary(2)).join()
        until(lambda: fake.shadows.sent)
    with serving(fake, int(fake.address.rpartition(":")[2])):
        told(fake, summary(3), watches=2).join()
        watching.join()
    assert done[0].status == 0 and "trying again" in done[0].stderr
    assert ["total 200 pairs" in done[0].stdout, "total 300 pairs" in done[0].stdout] == [True, True]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, height: int, *words: str) -> tuple[int, str]:
    """Its exit status, and the last picture that it drew."""
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", str(width)), ("LINES", str(height)), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, status = io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        try:
            main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    last = re.split(r"(?:\x1b\[1A\x1b\[2K)+", out.getvalue())[-1]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
    return status, "\n".join(line.rstrip() for line in plain.splitlines())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_shows_a_table_that_moves(green: FakeAdmin, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    teller = told(green, summary(1), comparison("r1"), summary(2), comparison("r2"))
    status, picture = on_a_terminal(monkeypatch, width, 50, *WATCH, "--count", "4")
    teller.join()
    assert status == 0 and max(map(len, picture.splitlines())) <= width
    squeezed = " ".join(picture.split())
    assert "digits green digits/2@int8 against digits/1 in blue INCONCLUSIVE" in squeezed
    assert "200" in squeezed and "▇▇ last windows, 90 % to 100 %" in squeezed
    assert ("from 90 %" in squeezed) == (width >= 60), "sparklines of classes need room"
    assert squeezed.index("mismatch r1") < squeezed.index("mismatch r2")
    assert picture.count("digits green  digits/2@int8") == 1, "the newest summary only"


def test_a_low_terminal_shows_the_worst_first(green: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    many = summary(2)
    for number in range(20):
        many.classes.add(output="probabilities", live_class=f"c{number}", row_count=50, agreeing_count=50 - number)
    teller = told(green, many, *(comparison(f"r{number}") for number in range(9)))
    _, picture = on_a_terminal(monkeypatch, 80, 24, *WATCH, "--count", "10")
    teller.join()
    assert len(picture.splitlines()) <= 24
    assert "c19" in picture and "c3 " not in picture and "18 classes more, which disagree less" in picture
    assert "mismatch  r8" in picture and "mismatch  r0" not in picture


def test_a_terminal_says_what_is_missing(fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    shadowed(fake, "green", "red")

    def clear() -> None:
        told(fake, summary(1, "green")).join()
        fake.do("digits", ClearShadow("green"))

    clearing = threading.Thread(target=clear)
    clearing.start()
    _, picture = on_a_terminal(monkeypatch, 80, 50, *WATCH, "--for", "3")
    clearing.join()
    assert "digits green  " in picture and "\ngreen gets no copies any more\n" in picture
    assert "red gets copies of 10 % of requests, noise 1 %: no summary yet" in " ".join(picture.split())


def test_a_terminal_shows_each_server_and_which_does_not_answer(
    green: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shadowed(FakeAdmin.digits())
    with serving(other):
        green.shadows.now, other.shadows.now = [summary(2)], [summary(4)]

        def refuse() -> None:
            until(lambda: other.shadows.watching)
            other.refusals["GetModel"] = ControlError(Refusal.STATE_STORE, "out of order")

        refusing = threading.Thread(target=refuse)
        refusing.start()
        status, picture = on_a_terminal(
            monkeypatch, 80, 80, "-e", green.address, "-e", other.address, *WATCH, "--for", "3"
        )
        refusing.join()
    assert status == 0 and f"{green.address}\ndigits green" in picture
    assert f"{other.address}\nout of order\ndigits green" in picture and "400" in picture
