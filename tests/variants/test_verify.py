"""`turnout verify` through its command line, in this process: what it finds, shows and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnout.app import verifying
from turnout.cli import main
from turnout.variants.recipes import QuantizeError
from turnout.variants.whole_file import write_whole
from variants.conftest import DIGITS, Ended
from zoo.samples import heldout

Verify = Callable[..., Ended]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = heldout(300)
    file = tmp_path_factory.mktemp("samples") / "digits.npz"
    np.savez(file, allow_pickle=False, **{"input.image": images, "labels": labels})
    return file


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Called with flags; of the answers alone unless they say --seconds."""

    def run(
        *flags: str | Path, reference: str = "digits/2", candidate: str = "digits/3", repository: Path = DIGITS.parent
    ) -> Ended:
        named = ["verify", reference, candidate, "--model-repository", str(repository), "--provider", "cpu"]
        with pytest.raises(SystemExit) as ended:
            main([*named, *(() if "--seconds" in flags else ("--seconds", "0")), *map(str, flags)])
        told = capsys.readouterr()
        return Ended(int(str(ended.value.code)), told.out, told.err)

    return run


def test_a_worse_version_is_over_the_budget(verify: Verify, samples: Path) -> None:
    ended = verify("--samples", samples)
    assert ended.status == 1
    assert "digits/3 against digits/2: over its budget" in ended.out
    assert "turnout: digits/3 is over its budget:" in ended.err
    assert re.search(r"output 'probabilities': top-1 agreement is 0\.9\d*, the limit is 0\.99", ended.err)
    assert not re.search(r"\x1b|Traceback", ended.out + ended.err)
    (accuracy,) = re.findall(r"^probabilities +(\S+)% +(\S+)% +300$", ended.out, re.MULTILINE)
    assert float(accuracy[0]) > float(accuracy[1]) + 2


def test_a_budget_that_it_keeps(verify: Verify, samples: Path) -> None:
    ended = verify("--samples", samples, "--agreement-min", "0.8")
    assert (ended.status, ended.err) == (0, "")
    assert "within its budget" in ended.out


def test_a_version_agrees_with_itself(verify: Verify, samples: Path) -> None:
    ended = verify("--samples", samples, "--json", candidate="digits/2")
    found = json.loads(ended.out)
    assert ended.status == 0 and found["failures"] == [] and found["format"] == 1
    for output in found["outputs"]:
        assert output["worst"] == [] and all(each["agree"] == each["rows"] for each in output["classes"])


def test_json_holds_what_was_found(verify: Verify, samples: Path) -> None:
    found = json.loads(verify("--samples", samples, "--json").out)
    scores, label = found["outputs"]
    assert (scores["name"], scores["kind"], scores["rows"]) == ("probabilities", "scores", 300)
    assert sum(each["rows"] for each in scores["classes"]) == 300
    agree = sum(each["agree"] for each in scores["classes"])
    assert scores["top1_agreement"] == label["agreement"] == pytest.approx(agree / 300)
    assert sum(scores["histogram"]["counts"]) + scores["histogram"]["equal"] == 3000
    assert {each["output"] for each in found["accuracy"]} == {"probabilities", "label"}
    _, labels = heldout(300)
    worst = scores["worst"][0]
    assert worst["label"] == str(labels[worst["row"]]) and worst["reference"] != worst["candidate"]
    assert found["reference"]["revision"] == "digits/2" and found["candidate"]["place"] == "cpu"
    assert re.fullmatch("[0-9a-f]{64}", found["reference"]["digest"])


def test_the_golden_samples_are_used_where_none_are_given(verify: Verify) -> None:
    assert "on 64 rows of golden.npz" in verify().out


def test_a_folder_is_read_in_the_order_of_its_names(verify: Verify, samples: Path, tmp_path: Path) -> None:
    with np.load(samples) as whole:
        for name, part in (("b", slice(100, 300)), ("a", slice(100))):
            np.savez(tmp_path / f"{name}.npz", allow_pickle=False, **{key: whole[key][part] for key in whole.files})
    one, parts = (json.loads(verify("--samples", path, "--json").out) for path in (samples, tmp_path))
    assert parts["outputs"] == one["outputs"] and parts["accuracy"] == one["accuracy"]
    assert parts["source"].endswith("2 files")


def test_labels_may_be_in_a_file_of_their_own(verify: Verify, samples: Path, tmp_path: Path) -> None:
    right = json.loads(verify("--samples", samples, "--json").out)["accuracy"]
    np.savez(tmp_path / "wrong.npz", labels=np.full(300, 11))
    wrong = json.loads(verify("--samples", samples, "--labels", tmp_path / "wrong.npz", "--json").out)["accuracy"]
    assert wrong[0]["reference"] == 0 < right[0]["reference"]


def test_values_have_a_cosine_and_no_agreement(verify: Verify, samples: Path) -> None:
    ended = verify("--samples", samples, "--output-kind", "probabilities=values", "--error-max", "1", "--json")
    scores = json.loads(ended.out)["outputs"][0]
    assert scores["top1_agreement"] is None and scores["classes"] == [] and scores["cosine_min"] < 0.9


def test_latency_memory_and_a_page(verify: Verify, samples: Path, tmp_path: Path) -> None:
    ended = verify("--samples", samples, "--seconds", "0.01", "--html", tmp_path / "page.html", "--json")
    found = json.loads(ended.out)
    assert [point["rows"] for point in found["latency"]] == [1, 8, 32]
    assert all(point["rounds"] >= 10 and point["reference"]["p50_ns"] > 0 for point in found["latency"])
    assert found["notes"] == []
    for side in ("reference", "candidate"):
        memory = found[side]["memory"]
        assert 0 < memory["loaded_bytes"] < 10**9 and set(memory["peak_bytes"]) == {"1", "8", "32"}
    written = (tmp_path / "page.html").read_text()
    assert "digits/3" in written and "Latency against batch size" in written and "Memory" in written
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def npz(**arrays: Any) -> Callable[[Path], None]:
    named = {name.replace("__", "."): array for name, array in arrays.items()}
    return lambda path: np.savez(path, allow_pickle=False, **named)


IMAGES = np.zeros((3, 64), np.float32)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"no archive"), "is no archive of arrays"),
        (npz(image=IMAGES), "holds 'image': an array of samples is named input.NAME"),
        (npz(input__picture=IMAGES), "the model has no input 'picture', it takes 'image'"),
        (npz(input__image=IMAGES.astype("f8")), "is of float64, the model takes FP32"),
        (npz(input__image=IMAGES[:, :7]), "has shape [3, 7], the model takes [-1, 64]"),
        (npz(input__image=IMAGES[:0]), "it has no rows"),
        (npz(input__image=IMAGES, labels=np.zeros(2, int)), "labels of shape [2] for 3 rows: give one for each"),
        (npz(input__image=IMAGES, labels=np.zeros((3, 2), int)), "labels of shape [3, 2] for 3 rows"),
    ],
)
def test_samples_that_cannot_be_used(
    verify: Verify, tmp_path: Path, write: Callable[[Path], None] | None, said: str
) -> None:
    if write is not None:
        write(tmp_path / "samples.npz")
    refused(verify("--samples", tmp_path / "samples.npz"), said)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({}, "has no .npz file"),
        ({"input.image": IMAGES}, "'b.npz' and 'a.npz' differ: only one has labels"),
        ({"input.other": IMAGES, "labels": np.zeros(3, int)}, "'b.npz' and 'a.npz' differ: only one has input."),
        ({"input.image": IMAGES[:, :5], "labels": np.zeros(3, int)}, "cannot be joined, pad them to one shape"),
    ],
)
def test_folders_that_cannot_be_used(verify: Verify, tmp_path: Path, second: dict[str, Any], said: str) -> None:
    if second:
        np.savez(tmp_path / "a.npz", allow_pickle=False, **{"input.image": IMAGES, "labels": np.zeros(3, int)})
        np.savez(tmp_path / "b.npz", allow_pickle=False, **second)
    refused(verify("--samples", tmp_path), said)


@pytest.mark.parametrize(
    ("reference", "candidate", "said"),
    [
        ("digits", "digits/3", "'digits' names no revision: write MODEL/VERSION or MODEL/VERSION@VARIANT"),
        ("digits/2", "digits/2@", "'digits/2@' names no revision"),
        ("digits/2", "digits/9", "it has no version 9, it has 1, 2, 3 (--model-repository "),
        ("letters/1", "digits/3", "the model repository has no folder 'letters'"),
        ("digits/2", "@int8", "no revision 'digits/2@int8'"),
        ("digits/2@fp16", "@int8", "no revision 'digits/2@fp16'"),
    ],
)
def test_revisions_that_are_not_there(verify: Verify, reference: str, candidate: str, said: str) -> None:
    refused(verify(reference=reference, candidate=candidate), said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--agreement-min", "1.2"], "--agreement-min is 1.2, it must be from 0 to 1"),
        (["--error-max", "-1"], "--error-max is -1, it must be"),
        (["--seconds", "-3"], "--seconds is -3, it must be from 0 to 3600"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--output-kind", "label"], "--output-kind 'label': write NAME=KIND, the kinds are scores and values"),
        (["--output-kind", "other=values"], "there is no output 'other', the outputs are 'probabilities', 'label'"),
        (["--output-kind", "label=values"], "output 'label'"),
        (["--labels", "nowhere.npz"], "'nowhere.npz' cannot be read"),
        (["--html", "nowhere/page.html"], "--html 'nowhere/page.html': its folder is not there"),
    ],
)
def test_flags_that_cannot_be_meant(verify: Verify, flags: list[str], said: str) -> None:
    refused(verify(*flags), said)


def test_labels_without_the_array(verify: Verify, samples: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", right=np.zeros(300, int))
    refused(verify("--samples", samples, "--labels", tmp_path / "labels.npz"), "has no array 'labels'")


def test_no_samples_at_all(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "digits" / "2").mkdir(parents=True)
    shutil.copy(DIGITS / "2" / "model.onnx", tmp_path / "digits" / "2")
    refused(verify(repository=tmp_path, candidate="digits/2"), "digits/2 has no golden.npz: give --samples")


def test_a_model_that_cannot_be_loaded(verify: Verify, tmp_path: Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    (tmp_path / "digits" / "3" / "model.onnx").write_bytes(b"half a model")
    refused(verify(repository=tmp_path), "digits/3 cannot be loaded: ")


def test_what_cannot_be_compared(verify: Verify, tmp_path: Path) -> None:
    import onnx

    shutil.copytree(DIGITS, tmp_path / "digits")
    other = onnx.load(DIGITS / "3" / "model.onnx")
    del other.graph.output[1]
    onnx.save(other, tmp_path / "digits" / "3" / "model.onnx")
    refused(verify(repository=tmp_path), "digits/3 cannot be compared with digits/2: the variant has no output 'label'")


def refused(ended: Ended, said: str) -> None:
    assert ended.status == 1 and ended.out == ""
    assert ended.err.startswith("turnout: ") and said in ended.err and "Traceback" not in ended.err


def test_an_interruption_leaves_no_page(verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt(15)

    monkeypatch.setattr(verifying, "verify", interrupted)
    ended = verify("--html", tmp_path / "page.html")
    assert (ended.status, ended.err) == (143, "turnout: interrupted, nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_page_that_was_there(
    verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    (tmp_path / "page.html").write_text("the one before")
    monkeypatch.setattr(os, "fsync", full)
    refused(verify("--html", tmp_path / "page.html"), "cannot be written: No space left on device")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the one before"]


def test_it_needs_no_tools_that_make_variants() -> None:
    code = "import sys; sys.modules['onnx'] = None; import turnout.app.verifying, turnout.variants.page"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_whole(tmp_path / "page.html", text)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["two"]


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # A function of three arguments that another process knows too, and that ends it.
    monkeypatch.setattr(verifying, "_memory_here", exec)
    with pytest.raises(QuantizeError, match="the process that measured it ended"):
        verifying._memory("import os; os._exit(1)", {}, {})  # type: ignore[arg-type]


def test_a_candidate_is_a_revision_of_the_repository() -> None:
    assert verifying._completed("@int8", "digits/2@fp16") == "digits/2@int8"
    assert verifying._completed("digits/3", "digits/2") == "digits/3"
