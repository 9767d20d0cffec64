"""`turnout quantize` through its command line: what it writes, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from turnout.commands import quantize as command
from turnout.core.variants import VariantReport, failures, stands
from turnout.store import Repository
from turnout.variants import graphs
from variants.conftest import Quantize


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"model.onnx", "golden.npz"}


def report_of(folder: Path, variant: str) -> VariantReport:
    return VariantReport.from_json(json.loads((folder / f"model.{variant}.json").read_text()))


def assert_stands(folder: Path, variant: str) -> VariantReport:
    store, report = Repository(folder.parents[1]), report_of(folder, variant)
    digests = [store.find("digits", 2, each)[1].revision.digest for each in ("", variant)]
    assert stands(report, digests[0], digests[1]) == ()
    return report


@pytest.mark.parametrize(
    ("method", "op", "ratio"),
    [("int8", "QuantizeLinear", 2.5), ("int8-dynamic", "MatMulInteger", 2.5), ("int8-weights", "MatMulNBits", 3)],
)
def test_a_variant_and_a_report_that_stands(
    folder: Path, quantize: Quantize, method: str, op: str, ratio: float
) -> None:
    ended = quantize("--method", method)
    assert (ended.status, ended.err) == (0, "")
    assert f"turnoutctl load digits green digits/2@{method}" in ended.out
    assert names(folder) == {f"model.{method}.onnx", f"model.{method}.json"}
    report = assert_stands(folder, method)
    assert op in {node.op_type for node in onnx.load(folder / f"model.{method}.onnx").graph.node}
    assert report.source_bytes / report.result_bytes > ratio
    assert report.libraries["onnxruntime"]
    assert {output.name for output in report.outputs} == {"probabilities", "label"}


def test_static_int8_is_judged_by_rows_that_did_not_calibrate_it(folder: Path, quantize: Quantize) -> None:
    ended = quantize("--json", "--calibrate", "percentile", "--percentile", "99", "--reduce-range", "on")
    report = assert_stands(folder, "int8")
    assert VariantReport.from_json(json.loads(ended.out)) == report
    assert report.samples.source == "golden.npz, odd rows"
    assert report.samples.rows == 32
    assert report.recipe["calibration_source"] == "golden.npz, even rows"
    assert (report.recipe["percentile"], report.recipe["reduce_range"]) == (99.0, True)


def test_a_copy_of_the_calibration_samples_is_divided_as_one_file_is(
    tmp_path: Path, folder: Path, quantize: Quantize
) -> None:
    shutil.copy(folder / "golden.npz", tmp_path / "mine.npz")
    assert quantize("--samples", str(tmp_path / "mine.npz")).status == 0
    report = assert_stands(folder, "int8")
    assert (report.samples.source, report.samples.rows) == ("mine.npz, odd rows", 32)
    assert (report.recipe["calibration_source"], report.recipe["calibration_apart"]) == ("mine.npz, even rows", True)


def test_a_row_that_calibrates_and_judges_is_told(tmp_path: Path, folder: Path, quantize: Quantize) -> None:
    with np.load(folder / "golden.npz") as golden:
        half = npz(tmp_path, **{"input.image": golden["input.image"][:32]})
    assert quantize("--samples", half).status == 0
    assert report_of(folder, "int8").recipe["calibration_apart"] is False


@pytest.mark.parametrize("calibrate", ["minmax", "entropy", "percentile"])
def test_every_calibration_takes_any_number_of_rows(
    tmp_path: Path, folder: Path, quantize: Quantize, calibrate: str
) -> None:
    with np.load(folder / "golden.npz") as golden:
        calibration = npz(tmp_path, **{"input.image": golden["input.image"][:39]})
    assert quantize("--calibration", calibration, "--calibrate", calibrate).status == 0
    report = report_of(folder, "int8")
    assert (report.recipe["calibration_rows"], report.recipe["calibration_source"]) == (32, "given.npz")
    assert (report.samples.rows, report.recipe["calibration_apart"]) == (64, False)  # they are golden samples too


def test_half_precision_keeps_its_inputs_and_outputs(folder: Path, quantize: Quantize) -> None:
    assert quantize("--method", "fp16", "--variant", "half").status == 0
    assert_stands(folder, "half")
    model = onnx.load(folder / "model.half.onnx")
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {TensorProto.FLOAT}
    assert any(each.data_type == TensorProto.FLOAT16 for each in model.graph.initializer)


def test_what_does_not_run_is_refused_by_node_and_provider(folder: Path, quantize: Quantize) -> None:
    ended = quantize("--method", "bf16")
    assert ended.status == 1
    assert "digits/2@bf16 does not run on provider 'cpu'" in ended.err
    assert re.search(r"Could not find an implementation for \w+\(\d+\) node with name '\w+'", ended.err)
    assert names(folder) == set()


@pytest.fixture
def absurd(tmp_path: Path) -> Path:
    """Calibration rows of a thousandth of the brightness: every real activation is beyond its range."""
    file = tmp_path / "dark.npz"
    np.savez(file, **{"input.image": np.full((40, 64), 0.01, np.float32)})
    return file


def test_a_bad_quantization_is_over_its_budget(folder: Path, quantize: Quantize, absurd: Path) -> None:
    ended = quantize("--calibration", str(absurd))
    assert ended.status == 1
    assert "digits/2@int8 is over its budget, not written:" in ended.err
    assert "output 'probabilities': top-1 agreement is" in ended.err
    assert "--keep-fp32-max 4" in ended.err
    assert names(folder) == set()


def test_force_writes_a_report_that_does_not_stand(folder: Path, quantize: Quantize, absurd: Path) -> None:
    ended = quantize("--calibration", str(absurd), "--force")
    assert ended.status == 1
    assert "written as --force asks; it serves only when that is forced too" in ended.err
    assert failures(report_of(folder, "int8"))
    assert names(folder) == {"model.int8.onnx", "model.int8.json"}


def test_the_search_keeps_the_worst_nodes(folder: Path, quantize: Quantize) -> None:
    flags = ("--method", "int4-weights", "--block-size", "256", "--agreement-min", "1")
    assert quantize(*flags).status == 1
    ended = quantize(*flags, "--keep-fp32-max", "2")
    assert ended.status == 0
    assert "search: MatMul 'Gemm_1_MatMul' alone costs" in ended.err
    report = assert_stands(folder, "int4-weights")
    assert report.recipe["kept_fp32"]
    kept = {node.name for node in onnx.load(folder / "model.int4-weights.onnx").graph.node if node.op_type == "MatMul"}
    assert kept == set(report.recipe["kept_fp32"])  # type: ignore[arg-type]


def test_what_is_excluded_stays(folder: Path, quantize: Quantize) -> None:
    assert quantize("--exclude-node", "Gemm_5").status == 0
    model = onnx.load(folder / "model.int8.onnx")
    assert "weights_2" in {each.name for each in model.graph.initializer}
    assert "weights_0" not in {each.name for each in model.graph.initializer}


def test_a_dry_run_lists_the_nodes_and_writes_nothing(folder: Path, quantize: Quantize) -> None:
    ended = quantize("--dry-run")
    assert ended.out.splitlines()[2].split() == ["Gemm_1", "Gemm", "33280", "yes"]
    nodes = json.loads(quantize("--dry-run", "--json", "--exclude-op", "Relu").out)
    assert {node["name"] for node in nodes if node["quantized"]} == {"Gemm_1", "Gemm_3", "Gemm_5"}
    assert names(folder) == set()


def test_what_is_there_is_replaced_only_when_asked(folder: Path, quantize: Quantize) -> None:
    assert quantize("--method", "int8-weights").status == 0
    before = (folder / "model.int8-weights.onnx").read_bytes()
    ended = quantize("--method", "int8-weights", "--block-size", "64")
    assert ended.status == 1
    assert "'model.int8-weights.onnx' is there already: use --overwrite, or another --variant" in ended.err
    assert quantize("--method", "int8-weights", "--block-size", "64", "--overwrite").status == 0
    assert (folder / "model.int8-weights.onnx").read_bytes() != before
    assert_stands(folder, "int8-weights")
    (folder / "model.int8-weights.json").unlink()
    assert "without a report (was a run interrupted?)" in quantize("--method", "int8-weights").err


def npz(path: Path, **arrays: object) -> str:
    np.savez(path / "given.npz", **arrays)  # type: ignore[arg-type]
    return str(path / "given.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input.picture": np.zeros((4, 64), "f4")}, "no input 'picture', it takes 'image': rename input.picture"),
        ({"input.image": np.zeros((4, 63), "f4")}, "has shape [4, 63], the model takes [-1, 64]"),
        ({"input.image": np.zeros((4, 64), "f8")}, "is of float64, the model takes FP32: convert it"),
        ({"input.image": np.zeros((0, 64), "f4")}, "it has no rows"),
        ({"image": np.zeros((4, 64), "f4")}, "holds 'image': an array of samples is named input.NAME"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, quantize: Quantize, arrays: dict[str, object], words: str) -> None:
    ended = quantize("--samples", npz(tmp_path, **arrays))
    assert (ended.status, words in ended.err) == (1, True), ended.err
    assert "given.npz" in ended.err


@pytest.mark.parametrize(
    ("version", "flags", "words"),
    [
        ("digits", (), "'digits' names no version: write MODEL/VERSION"),
        ("digits/x", (), "'digits/x' names no version"),
        ("digits/2@int8", (), "'digits/2@int8' is a variant: quantize the version itself, digits/2"),
        ("digits/7", (), "no revision 'digits/7': it has no version 7, it has 2"),
        ("other/1", (), "the model repository has no folder 'other'"),
        ("digits/2", ("--variant", "Int8"), "--variant 'Int8': a name has 1 to 32 lower-case letters"),
        ("digits/2", ("--exclude-node", "x"), "--exclude-node 'x': the model has no node of that name, see --dry-run"),
        ("digits/2", ("--exclude-op", "Conv"), "--exclude-op 'Conv': the model has ArgMax, Gemm,"),
        ("digits/2", ("--exclude-op", "Gemm"), "there is nothing to quantize: int8 takes nodes of Conv, Gemm, MatMul"),
        ("digits/2", ("--agreement-min", "2"), "--agreement-min is 2, it must be from 0 to 1"),
        ("digits/2", ("--error-max", "nan"), "--error-max is nan"),
        ("digits/2", ("--block-size", "7"), "--block-size is 7, it must be one of 16, 32"),
        ("digits/2", ("--percentile", "5"), "--percentile is 5, it must be from 50 to 100"),
        ("digits/2", ("--keep-fp32-max", "-1"), "--keep-fp32-max is -1, it must be at least 0"),
        ("digits/2", ("--calibration-rows", "0"), "--calibration-rows is 0, it must be at least 1"),
        ("digits/2", ("--output-kind", "label"), "--output-kind 'label': write NAME=KIND"),
        ("digits/2", ("--output-kind", "y=values"), "there is no output 'y', the outputs are 'probabilities', 'label'"),
        ("digits/2", ("--calibration", "none.npz"), "'none.npz' cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_refused(
    folder: Path, quantize: Quantize, version: str, flags: tuple[str, ...], words: str
) -> None:
    ended = quantize(*flags, version=version)
    assert (ended.status, words in ended.err) == (1, True), ended.err
    assert names(folder) == set()


@pytest.mark.parametrize(("labels", "output"), [("i8", "probabilities"), ("U1", None)])
def test_labels_give_the_accuracy_of_both(
    tmp_path: Path, folder: Path, quantize: Quantize, labels: str, output: str | None
) -> None:
    with np.load(folder / "golden.npz") as golden:
        image, right = golden["input.image"], golden["output.label"].astype(labels)
    given = {"input.image": image, "labels": np.where(np.arange(64) < 16, right[::-1], right)}
    ended = quantize("--method", "int8-weights", "--samples", npz(tmp_path, **given))
    accuracy = report_of(folder, "int8-weights").accuracy
    if output is None:
        assert accuracy is None
        return
    assert accuracy is not None
    assert (accuracy.output, accuracy.rows) == (output, 64)
    assert accuracy.reference == np.mean(given["labels"] == right) == accuracy.variant
    assert f"right      {accuracy.variant:.4g} of 64 labels" in ended.out


def test_without_samples_there_is_nothing_to_compare_on(folder: Path, quantize: Quantize) -> None:
    (folder / "golden.npz").unlink()
    assert "digits/2 has no golden.npz, and a variant must be compared on something: give --samples" in quantize().err


def test_temporary_files_that_cannot_be_written(
    folder: Path, quantize: Quantize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    assert "temporary files cannot be used: No such file or directory: see TMPDIR" in quantize().err
    assert names(folder) == set()


def test_a_reader_that_has_gone_is_no_failure(folder: Path) -> None:
    command = f"{sys.executable} -m turnout.cli quantize digits/2 --dry-run --method fp16"
    shown = subprocess.run(
        f"{command} --model-repository {folder.parents[1]} | true",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""


def test_a_missing_package_is_named(quantize: Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_NEEDS", ("no_such_package",))
    ended = quantize()
    assert ended.status == 1
    assert "(no module 'no_such_package'): pip install \"turnout[server,quantize]\"" in ended.err


def write(folder: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A model x -> y of 64 columns in the place of digits/2, with samples of its own."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], initializer=weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "model.onnx")
    x = np.random.default_rng(1).standard_normal((40, 64), dtype=np.float32)
    np.savez(folder / "golden.npz", **{"input.x": x, "output.y": x})
    (folder.parent / "config.pbtxt").unlink()
    return model


WEIGHTS = numpy_helper.from_array(np.random.default_rng(2).standard_normal((64, 64), dtype=np.float32), "w")


def test_a_model_with_nothing_to_quantize(folder: Path, quantize: Quantize) -> None:
    write(folder, [helper.make_node("Relu", ["x"], ["y"])], [])
    assert "there is nothing to quantize: int8 takes nodes of Conv, Gemm, MatMul, Gather" in quantize().err
    assert "the model has Relu" in quantize("--method", "int4-weights").err


def test_a_model_that_is_quantized_already(folder: Path, quantize: Quantize) -> None:
    assert quantize("--method", "int8-dynamic").status == 0
    shutil.move(folder / "model.int8-dynamic.onnx", folder / "model.onnx")
    ended = quantize("--method", "int8", "--overwrite")
    assert "the model is quantized already, it has DynamicQuantizeLinear, MatMulInteger" in ended.err


def test_a_model_whose_answers_have_other_shapes_each_time(folder: Path, quantize: Quantize) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("NonZero", ["r"], ["y"]),
    ]
    model = write(folder, nodes, [WEIGHTS])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, [2, "found"]))
    onnx.save(model, folder / "model.onnx")
    ended = quantize("--method", "int8-dynamic")
    assert ended.status == 1
    assert "its answers to several runs on golden.npz cannot be joined" in ended.err
    assert names(folder) == set()


def test_weights_beside_the_model_come_into_the_variant(folder: Path, quantize: Quantize) -> None:
    model = write(folder, [helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHTS])
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    ended = quantize("--method", "int8-weights", "--output-kind", "y=values")
    assert ended.status == 0, ended.err
    report = assert_stands(folder, "int8-weights")
    assert report.source_bytes > 64 * 64 * 4
    assert report.outputs[0].kind.value == "values"
    assert not any(each.external_data for each in onnx.load(folder / "model.int8-weights.onnx").graph.initializer)


def test_a_model_beyond_the_limit_of_one_file(
    folder: Path, quantize: Quantize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "BYTES_MAX", 1000)
    assert "the model has 69495 bytes with its weights, turnout quantize takes at most 1000" in quantize().err
    assert names(folder) == set()


def test_a_second_interruption_does_not_disturb_what_the_first_one_ends() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(KeyboardInterrupt):
            command._stop(signal.SIGINT, None)
        for number in before:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "turnout.cli", "quantize", "digits/2", "--model-repository", str(folder.parents[1])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end_s = time.monotonic() + 60
    while not (folder / ".model.int8.onnx.part").exists() and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, "turnout: interrupted, no variant was written\n")
    assert names(folder) == set()
