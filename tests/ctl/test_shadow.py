"""`turnoutctl shadow`, and shadow rules in what other commands show and declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from support.command import turnoutctl
from support.fake_admin import FakeAdmin, revision
from support.shadows import shadow_rule
from turnout.core.commands import Load, SetShadow
from turnout.core.errors import ControlError, Refusal
from turnout_wire.gen import slots_pb2 as pb

NOBODY = "127.0.0.1:1"


@pytest.fixture
def green(fake: FakeAdmin) -> FakeAdmin:
    """Version 2 in green."""
    fake.do("digits", Load("green", revision("digits", 2)))
    return fake


def asked(fake: FakeAdmin, rpc: str) -> Any:
    """The last request of that RPC."""
    return [request for name, request in fake.asked if name == rpc][-1]


def test_set_says_who_gets_what(green: FakeAdmin) -> None:
    done = turnoutctl(
        "shadow", "set", "digits", "green", "--sample", "10%", "--noise", "2%",
        "--compare", "probabilities=js,threshold=0.1", "--compare", "label=exact", "--salt", "s", "--queue-max", "5",
        "--bytes-max", "1000", "--deadline", "250ms", "--reason", "ticket 7", "--etag", "1",
    )  # fmt: skip
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.replace("\n", " ").startswith(
        "digits: blue 100 %, generation 2; green gets copies of 10 % of requests, noise 2 %, salt s, "
        "probabilities=js,threshold=0.1, label=exact, in "
    )
    request = asked(green, "SetShadow")
    assert request.rule == pb.ShadowRule(
        slot="green",
        sample_bp=1000,
        noise_bp=200,
        salt="s",
        comparators=[
            pb.Comparator(output="probabilities", method=pb.COMPARISON_METHOD_JS, threshold=0.1),
            pb.Comparator(output="label", method=pb.COMPARISON_METHOD_EXACT),
        ],
        queue_max=5,
        bytes_max=1000,
        deadline=Duration(nanos=250_000_000),
    )
    assert (request.mutation.etag, request.mutation.reason) == ("1", "ticket 7")
    assert len(request.mutation.request_id) == 36


def test_what_is_not_said_is_the_servers(green: FakeAdmin) -> None:
    assert turnoutctl("shadow", "set", "digits", "green").status == 0
    assert asked(green, "SetShadow").rule == pb.ShadowRule(slot="green", sample_bp=10_000)
    (rule,) = turnoutctl("status", "--interval", "0", "--json").json["replicas"][0]["result"]["models"][0]["route"][
        "shadows"
    ]
    assert rule == {
        "slot": "green", "sample_bp": 10_000, "noise_bp": 0, "salt": "", "queue_max": 1024, "bytes_max": 64 << 20,
        "deadline_ms": 30_000.0, "comparators": [],
    }  # fmt: skip


def test_clear_and_a_dry_run(green: FakeAdmin) -> None:
    green.do("digits", SetShadow(shadow_rule("green")))
    checked = turnoutctl("shadow", "clear", "digits", "green", "--dry-run")
    assert checked.stdout.startswith("would do; now digits: blue 100 %, generation 2; green gets copies of 100 %")
    done = turnoutctl("shadow", "clear", "digits", "green")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("digits: blue 100 %, generation 3; no slot gets copies, in ")
    assert turnoutctl("shadow", "clear", "digits", "green").status == 0, "twice is as once"


def test_as_json(green: FakeAdmin) -> None:
    document = turnoutctl("shadow", "set", "digits", "green", "--compare", "y=topk,k=3", "--json").json
    assert (document["command"], document["exit_status"]) == ("shadow set", 0)
    (rule,) = document["replicas"][0]["result"]["model"]["route"]["shadows"]
    assert rule["comparators"] == [{"output": "y", "method": "TOPK", "k": 3}]


def test_status_shows_rules_and_history_has_them_with_their_slot(green: FakeAdmin) -> None:
    green.do("digits", SetShadow(shadow_rule("green", 1_000, noise_bp=100)))
    done = turnoutctl("status", "--interval", "0")
    assert "  shadow green: 10 % of requests, noise 1 %\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for flags in (("--slot", "green"), ("--cause", "shadow")):
        assert "shadows/green  - → sample=1000 noise=100 digits/2" in turnoutctl("history", *flags).stdout
    assert "shadows" not in turnoutctl("history", "--route").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sample", "much"), "--sample: 'much' is no share"),
        (("--compare", "y"), "--compare: 'y' is no OUTPUT=METHOD[,atol=..], methods are exact, allclose"),
        (("--compare", "y=js,tol=1"), "known are atol, rtol, threshold, k, near_tie"),
        (("--deadline", "soon"), "--deadline: 'soon' is no duration"),
        (("--queue-max", "0"), "--queue-max"),
    ],
)
def test_wrong_usage_asks_nobody(green: FakeAdmin, words: tuple[str, ...], said: str) -> None:
    done = turnoutctl("shadow", "set", "digits", "green", *words)
    assert done.status == 2 and said in done.stderr and "SetShadow" not in [name for name, _ in green.asked]


def test_refusals_name_the_field_and_the_next_step(green: FakeAdmin) -> None:
    stable = turnoutctl("shadow", "set", "digits", "blue")
    assert stable.status == 1 and "SLOT_ROUTED: slot 'blue' is the stable one" in stable.stderr
    assert "next: move its traffic first: `turnoutctl swap digits" in stable.stderr
    bounds = turnoutctl("shadow", "set", "digits", "green", "--queue-max", "5000")
    assert bounds.status == 1 and "  rule.queue_max: " in bounds.stderr and "INVALID_SPEC" in bounds.stderr
    green.do("digits", SetShadow(shadow_rule("green")))
    routed = turnoutctl("unload", "digits", "green")
    assert routed.status == 1 and "`turnoutctl shadow clear digits green`" in routed.stderr


def test_several_servers_have_a_row_each(green: FakeAdmin, second: FakeAdmin) -> None:
    done = turnoutctl("-e", green.address, "-e", second.address, "shadow", "set", "digits", "green")
    assert done.status == 4 and "SLOT_NOT_FOUND" in done.stdout
    assert turnoutctl("-e", NOBODY, "shadow", "clear", "digits", "green").status == 3


WANTED = """
models:
  digits:
    slots: {blue: digits/1, green: digits/2}
    shadows:
      green: {sample: 50 %, noise: 2 %, compare: ["y=allclose,atol=0.001"], deadline: 5s}
"""


def test_apply_loads_then_sets_and_export_brings_back(fake: FakeAdmin, tmp_path: Path) -> None:
    (tmp_path / "wanted.yaml").write_text(WANTED)
    before = turnoutctl("export").stdout
    done = turnoutctl("apply", "-f", str(tmp_path / "wanted.yaml"), "--yes")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "digits",
        "  + slots/green: EMPTY → digits/2",
        "  + shadows/green: none → 50 % of requests, noise 2 %, y=allclose,atol=0.001, deadline 5s",
        f"{fake.address}  digits: green is READY digits/2",
        f"{fake.address}  digits: green gets copies of 50 % of requests, noise 2 %, y=allclose,atol=0.001",
        "done",
    ]
    after = turnoutctl("export").stdout
    assert "deadline: 5s" in after and "queue_max: 1024" in after
    assert turnoutctl("apply", "-f", "-", stdin=WANTED).stdout == "digits  as declared\n"
    assert turnoutctl("apply", "-f", "-", "--prune", stdin=after).stdout == "digits  as declared\n"
    back = turnoutctl("apply", "-f", "-", "--prune", "--yes", stdin=before)
    assert back.status == 0 and f"{fake.address}  digits: green gets no copies" in back.stdout
    assert turnoutctl("export").stdout == before
    ids = [request.mutation.request_id for name, request in fake.asked if name in ("ClearShadow", "UnloadSlot")]
    assert len(set(ids)) == 2


def test_apply_gives_up_where_somebody_else_changes_the_rule_meanwhile(
    fake: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.do("digits", Load("green", revision("digits", 2)))
    load = fake._LoadSlot

    def meddling(*args: Any) -> Any:
        fake.do("digits", SetShadow(shadow_rule("green", 7)))
        return load(*args)

    fake._LoadSlot = meddling  # type: ignore[method-assign]
    wanted = WANTED.replace("digits/2}", "digits/2, red: digits/3}")
    done = turnoutctl("apply", "-f", "-", "--yes", stdin=wanted)
    assert done.status == 1 and "somebody changed the shadow rule of slot 'green'" in done.stderr
    assert "SetShadow" not in [name for name, _ in fake.asked]


def test_apply_that_is_refused_ends_with_1(fake: FakeAdmin) -> None:
    fake.refusals["SetShadow"] = ControlError(Refusal.STATE_STORE, "the journal cannot be written")
    done = turnoutctl("apply", "-f", "-", "--yes", stdin=WANTED)
    assert done.status == 1 and "STATE_STORE" in done.stderr
