"""`turnoutctl apply` and `export` against fake servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import turnoutctl
from support.fake_admin import FakeAdmin, revision
from turnout.core.commands import Load, SetWeights, Swap
from turnout.core.errors import ControlError, Refusal

WANTED = """
models:
  digits:
    slots: {blue: digits/1, green: 2@int8}
    weights: {blue: rest, green: 10 %}
    sticky_key: {metadata_key: x-user}
    pins: [{metadata_key: x-team, value: qa, slot: green}]
"""
CHANGES = {"LoadSlot", "UnloadSlot", "SwapSlots", "SetWeights", "RollbackModel"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "wanted.yaml"
    path.write_text(WANTED)
    return str(path)


def changes(fake: FakeAdmin) -> list[str]:
    return [name for name, _ in fake.asked if name in CHANGES]


def test_the_difference_is_shown_then_loaded_then_routed(fake: FakeAdmin, file: str) -> None:
    done = turnoutctl("apply", "-f", file, "--yes", "--reason", "as declared")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "digits",
        "  + slots/green: EMPTY → digits/2@int8",
        "  ~ weights: blue 100 % → blue 90 %, green 10 %",
        "  ~ sticky_key: by default → metadata x-user",
        "  ~ pins: none → x-team=qa:green",
        f"{fake.address}  digits: green is READY digits/2@int8",
        f"{fake.address}  digits: blue 90 %, green 10 %",
        "done",
    ]
    assert changes(fake) == ["LoadSlot", "SetWeights"]
    load, weights = (request.mutation for name, request in fake.asked if name in CHANGES)
    assert (load.etag, weights.etag, load.reason) == ("0", "1", "as declared")
    assert load.request_id != weights.request_id
    again = turnoutctl("apply", "-f", file)
    assert (again.status, again.stdout) == (0, "digits  as declared\n") and len(changes(fake)) == 2


def test_what_export_wrote_changes_nothing_and_brings_back(fake: FakeAdmin, file: str, tmp_path: Path) -> None:
    before = turnoutctl("export", "--digests").stdout
    turnoutctl("apply", "-f", file, "--yes")
    after = turnoutctl("export").stdout
    (tmp_path / "before.yaml").write_text(before)
    (tmp_path / "after.yaml").write_text(after)
    fake.asked.clear()
    assert turnoutctl("apply", "-f", str(tmp_path / "after.yaml")).stdout == "digits  as declared\n"
    assert turnoutctl("apply", "-f", "-", "--prune", stdin=after).status == 0 and not changes(fake)
    assert turnoutctl("apply", "-f", str(tmp_path / "before.yaml"), "--prune", "--yes").status == 0
    assert turnoutctl("export", "--digests").stdout == before
    assert changes(fake) == ["SetWeights", "UnloadSlot"]


def test_a_dry_run_changes_nothing(fake: FakeAdmin, file: str) -> None:
    done = turnoutctl("apply", "-f", file, "--dry-run")
    assert done.status == 0 and "+ slots/green" in done.stdout and not changes(fake)


def test_where_nobody_can_be_asked_it_wants_yes(fake: FakeAdmin, file: str) -> None:
    for flags in ((), ("--json",)):
        done = turnoutctl("apply", "-f", file, *flags)
        assert done.status == 2 and "--yes" in done.stderr and not changes(fake)


@pytest.mark.parametrize(("answer", "status"), [("n", 5), ("y", 0)])
def test_the_question(fake: FakeAdmin, file: str, monkeypatch: pytest.MonkeyPatch, answer: str, status: int) -> None:
    monkeypatch.setattr("turnout_client.ctl.apply.can_ask", lambda: True)
    monkeypatch.setattr("click.confirm", lambda *_, **__: answer == "y")
    assert turnoutctl("apply", "-f", file).status == status
    assert bool(changes(fake)) == (answer == "y")


def test_what_may_not_be_done_is_said_before_anything_is(fake: FakeAdmin, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("models: {digits: {slots: {green: 2, blue: 3}}}")
    done = turnoutctl("apply", "-f", str(tmp_path / "bad.yaml"), "--yes")
    assert done.status == 1 and "blue has 100 % of the traffic" in done.stderr and not changes(fake)
    assert turnoutctl("apply", "-f", str(tmp_path / "bad.yaml"), "--yes", "--accept-outage").status == 0
    assert str(fake.states["digits"].slots["blue"]) == "READY digits/3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "not YAML"),
        ("", "expected a mapping"),
        ("modles: {}", "unknown 'modles'"),
        ("models: {digits: {slots: {green: 1, green: 2}}}", "'green' is there twice"),
        ("models: {digits: {slots: {green: two}}}", "no revision"),
        ("models: {digits: {weights: {green: 50}}}", "add up to 0.5 %"),
        ("models: {digits: {slots: {true: 1}}}", "quotes"),
        ("models: {digits: {pins: [{slot: green}]}}", "a pin has"),
        ("models: {digits: {sticky_key: {metadata_key: a, request_parameter: b}}}", "not both"),
        ("models: {digits: {slots: {green: {revision: 2, digest: abc}}}}", "64 hexadecimal"),
    ],
)
def test_a_file_that_cannot_be_meant_is_wrong_usage(fake: FakeAdmin, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = turnoutctl("apply", "-f", str(tmp_path / "bad.yaml"), "--yes")
    assert done.status == 2 and said in " ".join(done.stderr.split()) and not fake.asked


def test_somebody_who_moves_the_traffic_meanwhile_wins(fake: FakeAdmin, file: str) -> None:
    plain = fake._LoadSlot

    def load_and_meddle(request: object, context: object) -> object:
        reply = plain(request, context)  # type: ignore[arg-type]
        fake.do("digits", SetWeights({"blue": 9500, "green": 500}))
        return reply

    fake._LoadSlot = load_and_meddle  # type: ignore[assignment, method-assign]
    done = turnoutctl("apply", "-f", file, "--yes")
    assert done.status == 1 and "ETAG_MISMATCH" in done.stderr and "SetWeights" not in changes(fake)


def test_servers_are_done_one_after_the_other_and_a_failure_spares_the_rest(
    fake: FakeAdmin, second: FakeAdmin, file: str
) -> None:
    endpoints = ("-e", fake.address, "-e", second.address)
    fake.refusals["LoadSlot"] = ControlError(Refusal.SLOT_MEMORY, "no room")
    done = turnoutctl("apply", "-f", file, "--yes", *endpoints)
    assert done.status == 1 and "SLOT_MEMORY" in done.stderr and "left as it was" in done.stderr
    assert not changes(second)
    fake.refusals.clear()
    second.refusals["LoadSlot"] = ControlError(Refusal.SLOT_MEMORY, "no room")
    assert turnoutctl("apply", "-f", file, "--yes", *endpoints).status == 4
    second.refusals.clear()
    turnoutctl(
        "apply",
        "-f",
        "-",
        "--yes",
        "--prune",
        stdin="models: {digits: {slots: {blue: 1}, weights: {blue: 10000}, pins: []}}",
    )
    document = turnoutctl("apply", "-f", file, "--yes", "--json", *endpoints).json
    assert (document["command"], document["ok"]) == ("apply", True)
    assert [replica["applied"] for replica in document["replicas"]] == [True, True]
    assert document["replicas"][0]["steps_done"] == [
        "digits: green is READY digits/2@int8",
        "digits: blue 90 %, green 10 %",
    ]


def test_a_server_that_is_away_ends_it_before_anything_is_done(fake: FakeAdmin, file: str) -> None:
    done = turnoutctl("apply", "-f", file, "--yes", "-e", fake.address, "-e", "127.0.0.1:1")
    assert done.status == 3 and not changes(fake)


def test_prune_spares_what_is_kept_for_a_rollback(fake: FakeAdmin) -> None:
    fake.do("digits", Load("green", revision("digits", 2)))
    fake.do("digits", Swap("green", 10**12))
    text = "models: {digits: {slots: {green: 2}}}"
    kept = turnoutctl("apply", "-f", "-", "--prune", "--yes", stdin=text)
    assert kept.status == 0 and "kept for a rollback" in kept.stdout and not changes(fake)
    assert turnoutctl("apply", "-f", "-", "--prune", "--end-bake", "--yes", stdin=text).status == 0
    assert str(fake.states["digits"].slots["blue"]) == "EMPTY"


def test_export_is_of_one_server(fake: FakeAdmin) -> None:
    assert turnoutctl("export", "-e", fake.address, "-e", "127.0.0.1:1").status == 2
    assert turnoutctl("export", "nope").status == 1
