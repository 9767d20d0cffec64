"""`turnoutctl watch`: events as lines and as JSON, connections taken up again, ends."""

from __future__ import annotations

import json
import threading
import time

from support.command import turnoutctl
from support.fake_admin import FakeAdmin, revision, serving
from support.server import until
from turnout.core.commands import Load
from turnout.core.errors import ControlError, Refusal


def later(fake: FakeAdmin) -> threading.Timer:
    timer = threading.Timer(0.3, lambda: fake.do("digits", Load("green", revision("digits", 2)), "me", "to see"))
    timer.start()
    return timer


def test_each_change_is_a_line(fake: FakeAdmin) -> None:
    timer = later(fake)
    done = turnoutctl("watch", "digits", "--for", "1.2")
    timer.join()
    assert (done.status, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "digits HEALTHY, blue 100 %" in said
    assert "slots/green EMPTY → LOADING digits/2 load by me: to see" in said
    assert "LOADING digits/2 → READY digits/2 load by server" in said


def test_each_event_is_a_json_document_on_a_line_with_a_token_to_resume(fake: FakeAdmin) -> None:
    timer = later(fake)
    done = turnoutctl("watch", "--for", "1.2", "--json")
    timer.join()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event_type"] for event in events] == ["INITIAL", "SYNCED", "SLOT", "SLOT"]
    assert events[2]["transition"]["to_state"] == "LOADING digits/2"
    resumed = turnoutctl("watch", "--for", "0.4", "--json", "--resume-token", events[2]["resume_token"])
    assert [json.loads(line)["transition"]["seq"] for line in resumed.stdout.splitlines()] == [2]


def test_a_token_that_is_too_old_starts_anew(fake: FakeAdmin) -> None:
    fake.refusals["WatchModel"] = ControlError(Refusal.TOKEN_EXPIRED, "too old")
    threading.Timer(0.3, fake.refusals.clear).start()
    done = turnoutctl("watch", "--for", "2.5", "--resume-token", "1")
    assert done.status == 0 and "HEALTHY, blue 100 %" in done.stdout and "too old; trying again" in done.stderr


def test_a_lost_connection_is_taken_up_again_where_it_broke_off() -> None:
    fake, done = FakeAdmin.digits(), []
    with serving(fake):
        watching = threading.Thread(
            target=lambda: done.append(turnoutctl("watch", "-e", fake.address, "--for", "6", "--json"))
        )
        watching.start()
        until(lambda: fake.asked)
        until(lambda: fake.watching)
        fake.do("digits", Load("green", revision("digits", 2)))
        time.sleep(0.3)
    fake.do("digits", Load("red", revision("digits", 3)))  # while nobody can hear it
    with serving(fake, int(fake.address.rpartition(":")[2])):
        watching.join()
    events = [json.loads(line) for line in done[0].stdout.splitlines()]
    assert [event["transition"]["seq"] for event in events if event["transition"]] == [1, 2, 3, 4]
    assert [event["event_type"] for event in events].count("INITIAL") == 1
    assert done[0].status == 0 and "trying again" in done[0].stderr


def test_a_refusal_ends_it(fake: FakeAdmin) -> None:
    fake.refusals["WatchModel"] = ControlError(Refusal.MODEL_NOT_FOUND, "unknown model 'nope'")
    done = turnoutctl("watch", "nope")
    assert done.status == 1 and "MODEL_NOT_FOUND" in done.stderr


def test_nobody_there_ends_it_and_one_of_two_does_not(fake: FakeAdmin) -> None:
    assert turnoutctl("watch", "-e", "127.0.0.1:1").status == 3
    done = turnoutctl("watch", "--for", "0.5", "-e", "127.0.0.1:1", "-e", fake.address)
    assert done.status == 4 and fake.address in done.stdout
