"""External data: wherever a model keeps it, it comes from the artefact's own files, or loading fails and says why."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, NodeProto, SparseTensorProto, TensorProto, helper

from support.artefacts import artefact_of
from turnout.backends.onnx import OnnxBackend, OnnxOptions, contents
from turnout.backends.onnx.external import resolve
from turnout.core.errors import LoadError
from turnout.core.model import Execution, OpenArtefact, Placement

WEIGHTS = np.arange(8, dtype=np.float32)
DECOY = np.full(8, 99, np.float32)
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
BACKEND = OnnxBackend(OnnxOptions(Placement.parse("cpu"), intra_op_threads=1))


@pytest.fixture(autouse=True)
def _decoys_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ONNX Runtime reads where it looks for a file by name."""
    (tmp_path / "cwd" / "weights").mkdir(parents=True)
    for name in ("w.bin", "weights/w.bin", "x.bin"):
        (tmp_path / "cwd" / name).write_bytes(DECOY.tobytes())
    monkeypatch.chdir(tmp_path / "cwd")


def external(
    name: str,
    location: str | None,
    offset: int | str | None = 0,
    length: int | str | None = 16,
    dims: Sequence[int] = (4,),
    datatype: int = TensorProto.FLOAT,
) -> TensorProto:
    tensor = TensorProto(name=name, data_type=datatype, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def model(
    nodes: Sequence[NodeProto],
    initializers: Sequence[TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    sparse: Sequence[SparseTensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], initializers)
    graph.sparse_initializer.extend(sparse)
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=8)


ADD = helper.make_node("Add", ["x", "k"], ["y"])


def main_graph(location: str, offset: int = 0) -> onnx.ModelProto:
    return model([ADD], [external("k", location, offset)])


def branch(initializers: Sequence[TensorProto], nodes: Sequence[NodeProto] = ()) -> onnx.GraphProto:
    add = helper.make_node("Add", ["x", "k"], ["z"])
    return helper.make_graph([*nodes, add], "b", [], [info("z")], initializers)


def branches(then: onnx.GraphProto, other: onnx.GraphProto) -> onnx.ModelProto:
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    return model([helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)], [condition])


def constant(tensor: TensorProto) -> NodeProto:
    return helper.make_node("Constant", [], ["k"], value=tensor)


def subgraph(location: str, offset: int = 0) -> onnx.ModelProto:
    return branches(branch([external("k", location, offset)]), branch([external("k", location, 16)]))


def constant_in_a_subgraph(location: str, offset: int = 0) -> onnx.ModelProto:
    graph = branch([], [constant(external("k", location, offset))])
    return branches(graph, graph)


def constant_node(location: str, offset: int = 0) -> onnx.ModelProto:
    return model([constant(external("k", location, offset)), ADD])


def function(location: str, offset: int = 0) -> onnx.ModelProto:
    nodes = [constant(external("k", location, offset)), helper.make_node("Add", ["a", "k"], ["b"])]
    body = helper.make_function("own", "F", ["a"], ["b"], nodes, OPSETS)
    return model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[body])


def sparse(location: str, offset: int = 0) -> onnx.ModelProto:
    values = external("k", location, offset)
    indices = helper.make_tensor("", TensorProto.INT64, [4], [0, 1, 2, 3])
    return model([ADD], sparse=[SparseTensorProto(values=values, indices=indices, dims=[4])])


PLACES = [main_graph, subgraph, constant_in_a_subgraph, constant_node, function, sparse]
Place = Callable[[str, int], onnx.ModelProto]


def write(folder: Path, proto: onnx.ModelProto, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "model.onnx"


def run(path: Path) -> list[float]:
    loaded = BACKEND.load(artefact_of(path), Execution())
    (y,) = loaded.sessions[0].run({"x": np.zeros(4, np.float32)}, ["y"])
    return [float(value) for value in y]


def refusal(path: Path) -> str:
    with pytest.raises(LoadError) as refused:
        run(path)
    for piece in (str(path.parent), "/dev/null", "onnxruntime_src"):
        assert piece not in str(refused.value)
    return str(refused.value)


# Where it works


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("w.bin", "w.bin"),
        ("./w.bin", "w.bin"),
        ("weights/w.bin", "weights/w.bin"),
        ("./weights/w.bin", "weights/w.bin"),
        ("gewichte ü.data", "gewichte ü.data"),
    ],
)
def test_external_data_comes_from_the_artefact(tmp_path: Path, place: Place, location: str, name: str) -> None:
    path = write(tmp_path / "m", place(location, 0), {name: WEIGHTS.tobytes()})
    assert run(path) == [0, 1, 2, 3]
    path = write(tmp_path / "n", place(location, 8), {name: WEIGHTS.tobytes()})
    assert run(path) == [2, 3, 4, 5]


def test_many_initializers_in_one_file_and_in_several(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x" if i == 0 else f"t{i}", f"k{i}"], [f"t{i + 1}"]) for i in range(3)]
    nodes[-1].output[0] = "y"
    tensors = [external("k0", "w.bin", 0), external("k1", "w.bin", 16), external("k2", "v", None, None)]
    path = write(tmp_path / "m", model(nodes, tensors), {"w.bin": WEIGHTS.tobytes(), "v": np.ones(4, "f4").tobytes()})
    assert run(path) == [0 + 4 + 1, 1 + 5 + 1, 2 + 6 + 1, 3 + 7 + 1]


def test_onnx_s_own_way_to_write_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tensors = [onnx.numpy_helper.from_array(rng.normal(size=(64, 64)).astype("f4"), name) for name in ("a", "b")]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["m"]), helper.make_node("ReduceMean", ["m"], ["k"], keepdims=0)]
    proto = model([*nodes, ADD], tensors)
    onnx.save(proto, tmp_path / "plain.onnx")
    onnx.save(proto, tmp_path / "one.onnx", save_as_external_data=True, location="one.data")
    onnx.save(
        onnx.load(tmp_path / "plain.onnx"),
        tmp_path / "each.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
    )
    assert run(tmp_path / "one.onnx") == run(tmp_path / "each.onnx") == run(tmp_path / "plain.onnx")


def test_tensors_without_elements_and_files_without_bytes(tmp_path: Path) -> None:
    empty = external("e", "empty.bin", 0, 0, dims=[0])
    nodes = [helper.make_node("ReduceSum", ["e"], ["k"], keepdims=0), ADD]
    assert run(write(tmp_path / "m", model(nodes, [empty]), {"empty.bin": b""})) == [0, 0, 0, 0]


def test_mapped_weights_are_the_same_as_read_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m", main_graph("w.bin", 4), {"w.bin": WEIGHTS.tobytes()})
    monkeypatch.setattr(contents, "_READ_BYTES_MAX", 31)
    assert run(path) == [1, 2, 3, 4]


def test_models_without_external_data_are_passed_as_they_are() -> None:
    plain = model([ADD], [helper.make_tensor("k", TensorProto.FLOAT, [4], [1, 2, 3, 4])]).SerializeToString()
    assert resolve(plain, no_data).model is plain
    spoken = model([ADD], [helper.make_tensor("k", TensorProto.FLOAT, [4], [1, 2, 3, 4])])
    spoken.doc_string = "location"
    spoken.graph.node[0].name = "location"
    kept = spoken.SerializeToString()
    assert resolve(kept, no_data).model is kept


def no_data(location: str) -> memoryview:
    raise AssertionError(f"nothing refers to '{location}'")


# Where it does not


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location", ["../w.bin", "weights/../../w.bin", "a/../w.bin", "..", "/etc/passwd", "{here}/w.bin"]
)
def test_a_path_that_leads_out_of_the_folder(tmp_path: Path, place: Place, location: str) -> None:
    path = write(tmp_path / "m", place(location.format(here=tmp_path / "m"), 0), {"w.bin": WEIGHTS.tobytes()})
    (tmp_path / "w.bin").write_bytes(DECOY.tobytes())
    assert "'k': its data is at a path that leads out of the version's folder" in refusal(path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["x.bin", "W.BIN", "w.bin ", "weights", "weights\\w.bin", "w.bin\0", ""])
def test_a_file_that_is_not_there(tmp_path: Path, place: Place, location: str) -> None:
    path = write(tmp_path / "m", place(location, 0), {"w.bin": WEIGHTS.tobytes(), "weights/w.bin": b""})
    assert "tensor 'k': its data is in '" in refusal(path)
    assert "which is not there, or has a name that weights may not have" in refusal(path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("offset", "end"), [(17, 33), (32, 48), (1 << 40, (1 << 40) + 16)])
def test_data_beyond_the_end_of_the_file(tmp_path: Path, place: Place, offset: int, end: int) -> None:
    path = write(tmp_path / "m", place("w.bin", offset), {"w.bin": WEIGHTS.tobytes()})
    assert f"tensor 'k': its data ends at byte {end} of 'w.bin', which has 32" in refusal(path)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (external("k", "w.bin", -16), "has offset '-16', no number of bytes"),
        (external("k", "w.bin", 0, -1), "has length '-1', no number of bytes"),
        (external("k", "w.bin", 2**64 - 16), "has offset '18446744073709551600', no number of bytes"),
        (external("k", "w.bin", "0x10"), "has offset '0x10', no number of bytes"),
        (external("k", "w.bin", "\u0661"), "has offset '\u0661', no number of bytes"),
        (external("k", "w.bin", 2**59, 2**59), "its data ends at byte 1152921504606846976 of 'w.bin'"),
        (external("k", "w.bin", 33, None), "its data ends at byte 33 of 'w.bin'"),
        (external("k", None), "Missing 'location'"),
        (external("k", "*/_ORT_MEM_ADDR_/*", 4096), "its data is in '*/_ORT_MEM_ADDR_/*'"),
        (external("k", "w.bin", 0, 8), "size mismatch"),
        (external("k", "w.bin", 0, 16, dims=[2**40, 2**40]), "ONNX Runtime cannot load it"),
        (external("k", "w.bin", 0, 16, datatype=TensorProto.STRING), "ONNX Runtime cannot load it"),
        (external("k\x1b[31m", "w\n.bin"), r"tensor 'k\x1b[31m': its data is in 'w\n.bin'"),
    ],
)
def test_malformed_external_data(tmp_path: Path, tensor: TensorProto, words: str) -> None:
    assert words in refusal(write(tmp_path / "m", model([ADD], [tensor]), {"w.bin": WEIGHTS.tobytes()}))


def test_tensors_that_are_overlooked_here_are_not_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime gets a folder that cannot be in its place."""
    monkeypatch.setattr("turnout.backends.onnx.external._MARK", b"none has this")
    path = write(tmp_path / "m", subgraph("w.bin"), {"w.bin": WEIGHTS.tobytes()})
    assert "should be stored in <path>" in refusal(path)


def test_weights_that_are_shortened_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m", main_graph("w.bin"), {"w.bin": WEIGHTS.tobytes()})
    real = os.preadv

    def shortening(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("w.bin"):
            os.truncate(tmp_path / "m" / "w.bin", 20)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", shortening)
    assert "'w.bin' changed while it was loaded" in refusal(path)


def test_reading_that_stops_early_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m", main_graph("w.bin", 8), {"w.bin": WEIGHTS.tobytes()})
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:7]], offset))
    assert run(path) == [2, 3, 4, 5]


def test_reading_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m", main_graph("w.bin"), {"w.bin": WEIGHTS.tobytes()})

    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error", str(tmp_path))

    monkeypatch.setattr(os, "preadv", fails)
    assert refusal(path) == "its files cannot be read: Input/output error"

    def exhausted(*_: object) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, "preadv", exhausted)
    assert refusal(path) == "there is not enough memory to read its files"


def test_what_is_too_large_for_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = branch([external("k", "w.bin", 0, 400, dims=[100])])
    path = write(tmp_path / "m", branches(graph, graph), {"w.bin": bytes(400)})
    size = path.stat().st_size
    monkeypatch.setattr(contents, "_PROTOBUF_BYTES_MAX", size)
    assert re.search(rf"the model has \d+ bytes with the external data .* of its format is {size}: keep", refusal(path))
    monkeypatch.setattr(contents, "_PROTOBUF_BYTES_MAX", size - 1)
    assert f"the model file has {size} bytes, the limit of its format is {size - 1}: export it with" in refusal(path)


def test_a_sparse_file_of_3_gib_as_model_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, 3 << 30)
    assert "the model file has 3221225472 bytes, the limit of its format is 2147483647" in refusal(path)


# Whatever bytes come


def resolved(model: bytes) -> bytes | None:
    """None: refused. Anything but a LoadError is a failure."""
    try:
        return resolve(model, lambda location: memoryview(WEIGHTS.tobytes())).model
    except LoadError:
        return None


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_walked_without_failing(before: bytes, after: bytes) -> None:
    resolved(before + b"location" + after)


SAMPLES = [place("w.bin", 0).SerializeToString() for place in PLACES]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damaged_models_are_walked_without_failing(sample: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(sample)
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    resolved(bytes(damaged))


def test_cut_off_models_are_walked_without_failing() -> None:
    for sample in SAMPLES:
        for end in range(len(sample)):
            resolved(sample[:end])


@pytest.mark.parametrize("place", PLACES)
def test_what_is_rewritten_is_what_onnx_itself_would_make_of_it(tmp_path: Path, place: Place) -> None:
    path = write(tmp_path / "m", place("w.bin", 4), {"w.bin": WEIGHTS.tobytes()})
    ours = onnx.ModelProto.FromString(resolved(path.read_bytes()) or b"")
    expected = place("w.bin", 4)
    for tensor in tensors_of(expected.graph, [node for f in expected.functions for node in f.node]):
        if tensor.data_location == TensorProto.EXTERNAL and place is not main_graph:
            tensor.raw_data = (
                WEIGHTS.tobytes()[4:20] if tensor.external_data[1].value == "4" else WEIGHTS.tobytes()[16:]
            )
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    assert ours == expected


def tensors_of(graph: onnx.GraphProto, nodes: Sequence[NodeProto] = ()) -> list[TensorProto]:
    found = [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
    for node in (*graph.node, *nodes):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                found.append(attribute.t)
            if attribute.type == AttributeProto.GRAPH:
                found += tensors_of(attribute.g)
    return found


def length(content: bytes) -> bytes:
    size, out = len(content), bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + length(content) + content


EXTERNAL_K = external("k", "w.bin").SerializeToString()
IRREGULAR = {
    "two graphs": field(7, b"") + field(7, field(1, field(5, field(5, EXTERNAL_K)))),
    "two tensors of an attribute": field(7, field(1, field(5, field(5, b"") + field(5, EXTERNAL_K)))),
    "a graph in a group": b"\x3b" + field(5, EXTERNAL_K) + b"\x3c",
    "a number for a graph": b"\x38\x01" + field(14, b"location"),
    "a place beyond 32 bits": field(7, field(5, EXTERNAL_K + b"\x70\x81\x80\x80\x80\x10")),
    "an unknown place": field(7, field(5, EXTERNAL_K + b"\x70\x07")),
    "a text as place": field(7, field(5, EXTERNAL_K + field(14, b"x"))),
    "a number for an entry": field(7, field(5, EXTERNAL_K + b"\x68\x01")),
    "a number for a key": field(7, field(5, EXTERNAL_K + field(13, b"\x08\x01"))),
    "no field's number": field(7, field(5, EXTERNAL_K)) + b"\x00\x01",
}


@pytest.mark.parametrize("model", IRREGULAR.values(), ids=IRREGULAR.keys())
def test_what_no_exporter_writes_is_refused(model: bytes) -> None:
    with pytest.raises(LoadError, match="is damaged, or written as no exporter does: export it again"):
        resolve(model, lambda location: memoryview(WEIGHTS.tobytes()))


def test_the_format_of_onnx_runtime_itself_is_passed_as_it_is() -> None:
    model = b"\x20\0\0\0ORTM location"
    assert resolve(model, no_data).model is model


def test_nesting_deeper_than_protobuf_allows() -> None:
    inner = b"location"
    for _ in range(2000):
        for field in (6, 5, 1):  # graph of an attribute of a node of a graph
            inner = bytes([field << 3 | 2]) + length(inner) + inner
    deep = bytes([7 << 3 | 2]) + length(inner) + inner
    with pytest.raises(LoadError, match="is damaged, or written as no exporter does"):
        resolve(deep, no_data)


# Descriptors


def test_descriptors_whose_offset_has_moved(tmp_path: Path) -> None:
    """A child process shares it, and whoever hashes moves it."""
    path = write(tmp_path / "m", main_graph("w.bin", 8), {"w.bin": WEIGHTS.tobytes()})
    with ExitStack() as stack:
        files = {}
        for name in ("model.onnx", "w.bin"):
            files[name] = os.open(path.parent / name, os.O_RDONLY)
            stack.callback(os.close, files[name])
            os.lseek(files[name], 0, os.SEEK_END)
        read = contents.Contents.read(OpenArtefact("model.onnx", files))
    assert read.model[:] == path.read_bytes()
    assert bytes(read.files["w.bin"]) == WEIGHTS.tobytes()


@pytest.mark.parametrize("before", [0, 1 << 22, (1 << 22) - 4, (1 << 22) - 8, (1 << 23) - 1])
def test_a_model_is_read_further_wherever_the_mark_is(before: int) -> None:
    """It is searched in pieces of 4 MiB, and the mark may lie across two."""
    with pytest.raises(LoadError, match="damaged"):
        resolve(b"\xff" * before + b"location", lambda name: memoryview(b""))
    assert resolve(b"\xff" * before + b"locatio", lambda name: memoryview(b"")).files == frozenset()


@pytest.mark.parametrize("alone", [False, True])
def test_a_model_in_onnx_runtimes_own_format(tmp_path: Path, alone: bool) -> None:
    """By a path it would be known by its name alone, and the file in memory has none."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.onnx")
    options.add_session_config_entry("session.save_model_format", "ORT")
    source = write(tmp_path / "source", main_graph("w.bin", 8), {"w.bin": WEIGHTS.tobytes()})
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    backend = OnnxBackend(OnnxOptions(Placement.parse("cpu")), alone=alone)
    loaded = backend.load(artefact_of(tmp_path / "model.onnx"), Execution())
    (y,) = loaded.sessions[0].run({"x": np.zeros(4, np.float32)}, ["y"])
    assert y.tolist() == [2, 3, 4, 5]
