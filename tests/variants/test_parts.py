"""The parts of a quantization that need no model to run: samples, the search, the machine, bfloat16."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from turnout.core.parity import Kind, OutputParity
from turnout.core.tensors import Signature, TensorSpec
from turnout.variants import calibrating, machine, searching
from turnout.variants.bfloat16 import to_bfloat16
from turnout.variants.graphs import Node
from turnout.variants.recipes import Method, QuantizeError, Recipe
from turnout.variants.searching import Attempt
from turnout_wire.tensors import DataType


def signature(*shapes: tuple[int, ...]) -> Signature:
    return Signature(tuple(TensorSpec(f"x{i}", DataType.FP32, shape) for i, shape in enumerate(shapes)), ())


def rows(count: int, *shapes: tuple[int, ...]) -> calibrating.Rows:
    inputs = {f"x{i}": np.arange(count * 2, dtype="f4").reshape(count, 2) for i in range(len(shapes))}
    return calibrating.check(inputs, signature(*shapes), "given")


def test_rows_are_divided_where_there_are_enough() -> None:
    calibration, judged = calibrating.divide(rows(33, (-1, 2)))
    assert (calibration.count, judged.count) == (17, 16)
    assert (calibration.source, judged.source) == ("given, even rows", "given, odd rows")
    assert judged.inputs["x0"][:, 0].tolist() == [2 + 4 * i for i in range(16)]
    few = rows(31, (-1, 2))
    assert calibrating.divide(few) == (few, few)


def test_a_fixed_batch_is_kept_whole() -> None:
    fixed = rows(40, (8, 2))
    assert calibrating.divide(fixed) == (fixed, fixed)  # 20 rows are no runs of 8
    calibration, _ = calibrating.divide(rows(64, (8, 2)))
    assert [len(run["x0"]) for run in calibration.runs()] == [8, 8, 8, 8]
    assert calibration.first(13).count == 8
    assert calibration.first(3).count == 8


def test_labels_stay_with_their_rows() -> None:
    inputs, labels = {"x0": np.zeros((40, 2), "f4")}, np.arange(40)
    labelled = calibrating.check(inputs, signature((-1, 2)), "given", labels[:, None])
    _, judged = calibrating.divide(labelled)
    assert judged.labels is not None
    assert judged.labels.tolist() == list(range(1, 40, 2))
    assert judged.first(3).labels.tolist() == [1, 3, 5]  # type: ignore[union-attr]
    with pytest.raises(QuantizeError, match=r"given: there are labels of shape \[39\] for 40 rows: give one for each"):
        calibrating.check(inputs, signature((-1, 2)), "given", labels[1:])


def test_runs_are_of_so_many_rows() -> None:
    assert [len(run["x0"]) for run in rows(70, (-1, 2), (-1, 2)).runs()] == [32, 32, 6]
    assert rows(70, (-1, 2)).first(10).count == 10
    assert [len(run["x0"]) for run in rows(70, (-1, 2)).even().runs()] == [32, 32]
    assert rows(10, (-1, 2)).even().count == 10


def test_a_model_without_rows_is_run_once() -> None:
    inputs = {"x0": np.zeros((3, 2), "f4"), "x1": np.zeros((5,), "f4")}
    found = calibrating.check(inputs, signature((-1, 2), (5,)), "given")
    assert found.batch is None
    assert list(found.runs()) == [inputs]
    assert found.first(1) is found
    assert found.even() is found


def test_a_fixed_batch_takes_whole_runs_alone() -> None:
    with pytest.raises(QuantizeError, match=r"has shape \[9, 2\], the model takes \[8, 2\]"):
        rows(9, (8, 2))
    with pytest.raises(QuantizeError, match=r"there is no input.x1, the model takes 'x0', 'x1': add it"):
        calibrating.check({"x0": np.zeros((2, 2), "f4")}, signature((-1, 2), (-1, 2)), "given")


@dataclass(slots=True)
class Quiet:
    notes: list[str] = field(default_factory=list)

    def stage(self, what: str, total: int | None = None) -> None: ...
    def advance(self, count: int) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


def searched(costs: dict[str, float], enough: float, kept_max: int) -> tuple[Attempt, list[tuple[str, ...]]]:
    """A network whose error is the sum of what its quantized nodes cost."""
    asked = []
    nodes = [Node(name, "MatMul", 100 + index, True) for index, name in enumerate(costs)]

    def attempt(recipe: Recipe) -> Attempt:
        asked.append(recipe.kept)
        error = sum(cost for name, cost in costs.items() if name not in recipe.kept)
        output = OutputParity("y", Kind.VALUES, 1, error_max=1.0, error_mean=1.0, error_relative_max=error)
        return Attempt(recipe, (output,), ("over",) if error > enough else ())

    first = attempt(Recipe(Method.INT8_DYNAMIC))
    asked.clear()
    return searching.search(first, nodes, kept_max, attempt, Quiet()), asked


def test_the_search_keeps_the_costliest_nodes_first() -> None:
    found, asked = searched({"a": 1, "b": 5, "c": 3, "d": 2}, enough=3.5, kept_max=3)
    assert found.recipe.kept == ("b", "c")
    assert not found.failures
    assert asked == [("b", "c", "d"), ("a", "c", "d"), ("a", "b", "d"), ("a", "b", "c"), ("b",), ("b", "c")]


def test_a_search_without_success_gives_the_best() -> None:
    found, asked = searched({"a": 1, "b": 5, "c": 3}, enough=0, kept_max=5)
    assert (found.recipe.kept, found.failures) == (("b", "c"), ("over",))
    assert ("a", "b", "c") not in asked  # it would be no variant


def test_the_search_is_bounded() -> None:
    _, asked = searched({f"n{i}": i for i in range(searching.NODES_MAX + 10)}, enough=0, kept_max=1)
    assert len(asked) == searching.NODES_MAX + 1


@pytest.mark.parametrize(
    ("text", "cpu", "flags", "reduces"),
    [
        ("model name : A\nflags : fpu avx2 avx512_vnni\nflags : avx2\n", "A", "avx2 avx512_vnni", False),
        ("model name : B\nflags : fpu avx2\n", "B", "avx2", True),
        ("", "", "", True),
    ],
)
def test_the_machine_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cpu: str, flags: str, reduces: bool
) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    found = machine.read(tmp_path)
    assert (found["cpu"], found["flags"], machine.reduces_range(found)) == (cpu, flags, reduces)
    assert not machine.reduces_range({**found, "architecture": "aarch64"})
    assert machine.read(tmp_path / "none")["cpu"] == ""


def test_bfloat16_takes_the_place_of_float16_everywhere() -> None:
    weights = np.asarray([1e30, -3.0], "f4")  # float16 had to cut the first

    def model(array: object, to: int) -> onnx.ModelProto:
        inner = helper.make_graph(
            [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, "f2")))],
            "inner",
            [],
            [helper.make_tensor_value_info("c", TensorProto.FLOAT16, [2])],
        )
        nodes = [
            helper.make_node("Cast", ["x"], ["h"], to=to),
            helper.make_node("Add", ["h", "w"], ["s"]),
            helper.make_node("If", ["b"], ["o"], then_branch=inner, else_branch=inner),
        ]
        graph = helper.make_graph(
            nodes, "g", [], [], initializer=[numpy_helper.from_array(np.asarray(array), "w")],
            value_info=[helper.make_tensor_value_info("h", to, [2])],
        )  # fmt: skip
        return helper.make_model(graph)

    half = model(np.asarray([65504, -3], "f2"), TensorProto.FLOAT16)
    to_bfloat16(half, model(weights, TensorProto.FLOAT))
    assert b"".join(each.raw_data for each in half.graph.initializer) == weights.astype(ml_dtypes.bfloat16).tobytes()
    assert half.graph.node[0].attribute[0].i == TensorProto.BFLOAT16
    assert half.graph.value_info[0].type.tensor_type.elem_type == TensorProto.BFLOAT16
    for branch in half.graph.node[2].attribute:
        assert branch.g.output[0].type.tensor_type.elem_type == TensorProto.BFLOAT16
        assert branch.g.node[0].attribute[0].t.data_type == TensorProto.BFLOAT16
