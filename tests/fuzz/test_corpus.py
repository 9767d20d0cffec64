"""The corpus and a few mutations of it, without atheris: on every platform, and in every run of the tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fuzz import known, oracle, request, tensors
from fuzz.mutation import havoc
from fuzz.oracle import Finding
from fuzz.seeds import PREFIX, all_seeds
from fuzz.targets import TARGETS, Target
from turnout.transport import codec
from turnout_wire.tensors import Array, DataType, from_raw, to_bytes

# protobuf's text parser has one, about its own use of an escape.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

_CORPUS_BYTES_MAX = 1 << 20
_MUTATIONS = 3000  # over all targets, by their share


def _inputs() -> list[Any]:
    """Every input; those of defects that are known and not fixed are expected to fail."""
    defects = {(one.target, one.slug): one for one in known.KNOWN}
    found = []
    for target in TARGETS.values():
        for path in target.corpus():
            slug = path.name.removeprefix("finding-").split(".")[0]
            marks = [pytest.mark.xfail(strict=True, reason="known.py")] if (target.name, slug) in defects else []
            found.append(pytest.param(target, path, marks=marks, id=f"{target.name}/{path.name}"))
    return found


@pytest.mark.parametrize(("target", "path"), _inputs())
def test_every_input_of_the_corpus_holds(target: Target, path: Path) -> None:
    found = path.name.startswith("finding-")
    oracle.watched(target.name, target.load().run, path.read_bytes(), pass_over=not found)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_mutations_of_the_corpus_hold(target: Target) -> None:
    module, rng = target.load(), random.Random(0)
    inputs = [path.read_bytes() for path in target.corpus()]
    for _ in range(int(target.share * _MUTATIONS)):
        data = module.mutate(rng.choice(inputs), target.bytes_max, rng, havoc(rng))
        assert len(data) <= target.bytes_max
        inputs.append(data)
        try:
            oracle.watched(target.name, module.run, data, pass_over=True)
        except Exception as error:
            raise AssertionError(f"{target.name}: {data!r}") from error


def test_the_seeds_are_what_their_script_writes() -> None:
    """`PYTHONPATH=tests python -m fuzz.seeds` writes them again."""
    for name, seeds in all_seeds().items():
        committed = {p.name: p.read_bytes() for p in TARGETS[name].corpus() if p.name.startswith(PREFIX)}
        assert committed == {f"{PREFIX}{seed}": data for seed, data in seeds.items()}


def test_the_corpus_is_small_and_every_known_defect_has_an_input() -> None:
    paths = [path for target in TARGETS.values() for path in target.corpus()]
    assert sum(path.stat().st_size for path in paths) < _CORPUS_BYTES_MAX
    inputs = {(path.parent.name, path.name.split(".")[0]) for path in paths}
    assert {(one.target, f"finding-{one.slug}") for one in known.KNOWN} <= inputs


# Controls: each promise can be seen to be broken


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no such file: /home/turnout/models/m/1/model.onnx",
        'Traceback (most recent call last):\n  File "codec.py", line 1',
        "raised in codec.py",
        "array at 0x7f1a2b3c4d",
        "<turnout.core.tensors.Signature object at ...>",
        "not a <class 'int'>",
        "name 'a\x1b[31m'",
        "two\nlines",
        "to the \u202eleft",
        "x" * (oracle.TEXT_CHARS_MAX + 1),
    ],
)
def test_a_text_that_leaks_or_floods_is_seen(text: str) -> None:
    with pytest.raises(Finding):
        oracle.refused(ValueError(text), b"")


def test_what_the_input_says_itself_is_no_leak() -> None:
    oracle.refused(ValueError("input '/home/x' has 0 rows"), b"...\x07/home/x...")
    oracle.refused(ValueError("one\ntwo"), b"", lines=True)
    oracle.refused(ValueError("/tmp/x.yaml: no"), b"", own="/tmp/x.yaml")


def _seed(target: str, name: str) -> bytes:
    return all_seeds()[target][name]


def test_another_exception_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "from_raw", lambda *_: vars(known)["from_raw"])
    with pytest.raises(KeyError):
        request.run(_seed("request", "raw-bool"))


def test_a_changed_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = to_bytes
    request.run(_seed("request", "raw-fp32"))
    monkeypatch.setattr(codec, "to_bytes", lambda array, datatype: right(array, datatype)[::-1])
    with pytest.raises(Finding, match="other contents"):
        request.run(_seed("request", "raw-fp32"))


def test_an_array_that_can_be_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(raw: bytes, datatype: DataType, shape: list[int]) -> Array:
        return right(raw, datatype, shape).copy()

    right = from_raw
    monkeypatch.setattr(tensors, "from_raw", copied)
    with pytest.raises(Finding, match="can be written"):
        tensors.run(_seed("tensors", "fp32"))


def test_memory_out_of_proportion_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([1 << 30, (1 << 30) + oracle.PEAK_BYTES_MAX, 1 << 30, (1 << 30) + 2 * oracle.PEAK_BYTES_MAX])
    monkeypatch.setattr(oracle, "_peak_bytes", lambda: next(peaks))
    oracle.watched("request", lambda data: None, b"x")
    with pytest.raises(Finding, match="raised the peak of memory by 128 MiB"):
        oracle.watched("request", lambda data: None, b"x")


def test_a_known_defect_is_passed_over_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(_: bytes) -> None:
        raise RecursionError("too deep")

    with pytest.raises(RecursionError):
        oracle.watched("request", defect, b"", pass_over=True)
    monkeypatch.setattr(
        known, "KNOWN", (known.Known("request", "depth", r"^RecursionError: .* \[fuzz/test_corpus.py\]$"),)
    )
    oracle.watched("request", defect, b"", pass_over=True)
    for target, pass_over in (("request", False), ("tensors", True)):
        with pytest.raises(RecursionError):
            oracle.watched(target, defect, b"", pass_over=pass_over)
