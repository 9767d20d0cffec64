"""Variants in a repository: which files make one, what is read of its report, and that none disturbs another."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.onnx_models import SCALE, write
from support.variants import manifest_of, report_of, write_report
from turnout.core.errors import ControlError, Refusal
from turnout.core.model import Artefact
from turnout.core.parity import Kind, OutputParity
from turnout.store import Repository
from turnout.store.variant_files import Ownership, variants_in
from turnout.store.versions import VARIANTS_MAX

AGREES = OutputParity("y", Kind.LABELS, 100, agreement=0.995)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The file of version 1 of model `scale`, alone."""
    return write(tmp_path / "models", "scale", SCALE.format(factor=2))


def add(model: Path, variant: str, report: bool = True, factor: int = 3) -> Path:
    """A variant that stands, unless it has no report."""
    folder = write(model.parent / "elsewhere", "x", SCALE.format(factor=factor))
    path = model.parent / f"model.{variant}.onnx"
    path.write_bytes(folder.read_bytes())
    if report:
        write_report(model, variant, report_of(model, variant, (AGREES,)))
    return path


def find(model: Path, variant: str) -> Artefact:
    return Repository(model.parents[2]).find("scale", 1, variant)[1]


@pytest.mark.parametrize(
    ("base", "names", "found"),
    [
        ("model.onnx", ["model.onnx", "model.int8.onnx", "model.fp16.onnx"], ["fp16", "int8"]),
        ("model.onnx", ["model.int8.onnx", "model.int8.json", "model.a.b.onnx", "model.X.onnx", "o.onnx"], ["int8"]),
        ("model.onnx", ["model.none.onnx", "model.auto.onnx", "model.onnx.onnx", "model..onnx"], []),
        ("net.ort", ["net.int8.ort", "net.int8.onnx"], ["int8"]),
    ],
)  # fmt: skip
def test_variants_are_told_by_their_names(base: str, names: list[str], found: list[str]) -> None:
    assert variants_in(base, names) == found


def test_each_file_belongs_to_the_variant_that_its_name_begins_with() -> None:
    names = ["model.onnx", "model.int8.onnx", "model.int8-static.onnx"]
    base, int8 = Ownership.of("model.onnx", names), Ownership.of("model.int8.onnx", names)
    for name in ("model.int8.onnx.data", "model.int8.onnx_data", "model.int8-static.bin"):
        assert base.is_foreign(name) and not base.is_own(name)
    for name in ("model.onnx.data", "weights.bin", "model.int8x.bin"):
        assert not base.is_foreign(name) and not int8.is_foreign(name)
    assert int8.is_own("model.int8.onnx.data") and int8.is_foreign("model.int8-static.bin")
    assert Ownership.of("model.int8.onnx", ["model.int8.onnx"]) == Ownership("", ()), "nobody's variant"


def test_a_variant_and_its_weights_leave_other_digests_as_they_are(model: Path) -> None:
    (model.parent / "model.onnx.data").write_bytes(b"weights")
    before = manifest_of(model).digest
    add(model, "int8")
    int8 = manifest_of(model, "int8").digest
    add(model, "fp16")
    (model.parent / "model.fp16.onnx.data").write_bytes(b"half of them")
    assert (manifest_of(model).digest, manifest_of(model, "int8").digest) == (before, int8)
    assert [file.name for file in manifest_of(model, "fp16").files] == [
        "model.fp16.onnx", "model.fp16.onnx.data", "model.onnx.data",
    ]  # fmt: skip
    (model.parent / "model.onnx.data").write_bytes(b"other weights")
    assert manifest_of(model).digest != before


def test_what_stands_is_found_with_its_report(model: Path) -> None:
    add(model, "int8")
    found = find(model, "int8")
    assert (str(found.revision), found.doubts, found.problem) == ("scale/1@int8", (), "")
    assert found.report is not None and found.report.outputs == (AGREES,)
    assert found.size_bytes == (model.parent / "model.int8.onnx").stat().st_size
    with found.open() as files:
        assert files.model == "model.int8.onnx"
    assert not Repository(model.parents[2]).find("scale", 1)[1].revision.variant


@pytest.mark.parametrize(
    ("content", "doubt"),
    [
        (None, "there is no report 'model.int8.json' beside it"),
        (b"\xff\xfe", "its report 'model.int8.json' is none"),
        (b"[" * 100_000, "its report 'model.int8.json' is none"),
        (b"{}", "its report 'model.int8.json' is none"),
        (b" " * (1 << 21), "model.int8.json"),
    ],
)
def test_a_report_that_cannot_be_read_is_a_doubt(model: Path, content: bytes | None, doubt: str) -> None:
    add(model, "int8", report=False)
    if content is not None:
        (model.parent / "model.int8.json").write_bytes(content)
    found = find(model, "int8")
    assert len(found.doubts) == 1 and doubt in found.doubts[0] and len(found.doubts[0]) < 400
    assert found.report is None and not found.problem


def test_a_number_that_no_float_holds_costs_that_variant_alone(model: Path) -> None:
    add(model, "int8")
    report = model.parent / "model.int8.json"
    report.write_text(
        json.dumps(json.loads(report.read_text()) | {"budget": {"agreement_min": 0, "error_max": 10**400}})
    )
    (found,) = [each for each in Repository(model.parents[2]).offered("scale") if each.revision.variant]
    assert "field 'budget.error_max'" in found.doubts[0]


def test_what_changed_since_the_report_is_a_doubt(model: Path) -> None:
    path = add(model, "int8")
    path.write_bytes(path.read_bytes() + b"\0")
    assert ["its report is of other files" in doubt for doubt in find(model, "int8").doubts] == [True]
    add(model, "int8")
    model.write_bytes(write(model.parent / "elsewhere", "x", SCALE.format(factor=5)).read_bytes())
    assert ["another version's files" in doubt for doubt in find(model, "int8").doubts] == [True]


def test_what_is_over_its_budget_is_a_doubt_whatever_the_report_claims(model: Path) -> None:
    add(model, "int8", report=False)
    write_report(model, "int8", report_of(model, "int8", (replace(AGREES, agreement=0.5),)))
    assert find(model, "int8").doubts == ("output 'y': agreement is 0.5, the limit is 0.99",)


def test_a_variant_that_is_not_there_names_those_that_are(model: Path) -> None:
    add(model, "int8", report=False)
    for name in ("fp16", "../x", "INT8"):
        with pytest.raises(ControlError, match="its variants are: int8") as caught:
            find(model, name)
        assert caught.value.refusal is Refusal.REVISION_NOT_FOUND


def test_sums_hold_for_each_by_itself(model: Path) -> None:
    def listed(*paths: Path) -> None:
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in paths]
        (model.parent / "SHA256SUMS").write_text("\n".join(lines) + "\n")

    path = add(model, "int8")
    listed(model)
    assert not find(model, "int8").problem, "what is made where it is served need not be listed"
    listed(model, path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert Repository(model.parents[2]).find("scale", 1)[1].problem == "", "a damaged variant is nothing to its version"
    with pytest.raises(ControlError, match=r"version 1@int8: 'model\.int8\.onnx' has sha256") as caught:
        find(model, "int8")
    assert caught.value.refusal is Refusal.MANIFEST_MISMATCH
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(ControlError, match=r"version 1: 'model\.onnx' has sha256"):
        find(model, "int8")


def test_a_version_that_has_gone_since_it_was_read_has_no_variants(model: Path) -> None:
    add(model, "int8")
    (found,) = Repository(model.parents[2]).models()
    assert len(found.variants(1)) == 1
    shutil.rmtree(model.parent)
    assert found.variants(1) == [] and len(found.entries()) == 1


def test_no_more_variants_of_a_version_are_looked_at_than_the_limit(model: Path) -> None:
    for number in range(VARIANTS_MAX + 5):
        shutil.copy(model, model.parent / f"model.v{number:03}.onnx")
    (source,) = Repository(model.parents[2]).models()
    listed = source.variants(1)
    assert len(listed) == VARIANTS_MAX + 1
    assert [each.problem for each in listed if each.problem] == [
        "version 1 has 69 variants, the limit is 64: remove some"
    ]
    assert find(model, "v068").doubts == ("there is no report 'model.v068.json' beside it",), "by its name it is found"


def test_everything_that_is_there_is_offered(model: Path) -> None:
    add(model, "int8")
    add(model, "fp16", report=False)
    write(model.parents[2], "scale", SCALE.format(factor=7), version=2)
    repository = Repository(model.parents[2])
    assert [str(each.revision) for each in repository.offered("scale")] == [
        "scale/1", "scale/1@fp16", "scale/1@int8", "scale/2",
    ]  # fmt: skip
    assert repository.offered("nobody") == repository.offered("../scale") == []
    (source,) = repository.models()
    assert [artefact.revision.version for artefact in source.artefacts] == [2], "the policy's"
    assert list(source.variants(2)) == list(source.variants(9)) == []
    (model.parent / "SHA256SUMS").write_text(json.dumps({}))
    assert [each.problem != "" for each in repository.offered("scale")] == [True, False], "no version, no variants"


def test_a_list_reads_only_what_is_new_and_a_load_reads_all(
    model: Path, hashed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    later_ns = time.time_ns() + 10**12
    monkeypatch.setattr(time, "time_ns", lambda: later_ns)  # no file has changed lately
    add(model, "int8")
    repository = Repository(model.parents[2])

    def files_read() -> int:
        hashed.clear()
        listed = repository.offered("scale")
        count = len(hashed)
        assert [each.revision.digest for each in listed] == [
            manifest_of(model).digest,
            manifest_of(model, "int8").digest,
        ]
        return count

    assert [files_read(), files_read()] == [2, 0]
    os.utime(add(model, "int8", factor=4), ns=(1, 1))
    assert [files_read(), files_read()] == [1, 0], "its identity tells the new file from the old"
    later_ns = model.stat().st_ctime_ns  # changed just now: it could change again within one tick
    Path(model).touch()
    assert [files_read(), files_read()] == [1, 1]
    hashed.clear()
    repository.find("scale", 1)
    repository.find("scale", 1)
    assert len(hashed) == 2


def test_a_model_file_in_a_folder_has_variants_there(tmp_path: Path) -> None:
    model = write(tmp_path / "models", "scale", SCALE.format(factor=2), 'default_model_filename: "net"')
    folder = model.parent / "net"
    folder.mkdir()
    model.rename(folder / "model.onnx")
    (folder / "model.int8.onnx").write_bytes((folder / "model.onnx").read_bytes())
    found = Repository(tmp_path / "models").find("scale", 1, "int8")[1]
    assert "no report" in found.doubts[0]
    with found.open() as files:
        assert files.model == "model.int8.onnx"
