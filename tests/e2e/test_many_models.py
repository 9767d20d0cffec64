"""One server for a repository of many models: those that serve answer as `support/many_models` says, byte for byte, and
those that are broken are listed with their reason and stop nothing else."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from support import many_models
from support.many_models import BROKEN, GOOD, Ask, Entry, Refusal
from support.server import Server, run, serving
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceAioStub, GRPCInferenceServiceStub
from turnout_wire.tensors import DataType, to_bytes

ALL = (*GOOD, *BROKEN)
NAMES = {entry.title: entry for entry in ALL}
WITH_PREFLIGHT = (
    *("datatype_bf16", "datatype_bytes", "rank_0", "sequence_running_sum", "optional_input", "reshape_batched"),
    *("external_data_below", "links_to_blobs", "labels", "newest_version_broken", "warmup_from_file", "parameters"),
    *("broken_garbage", "broken_operator", "broken_kernel", "broken_cycle", "broken_sequence", "broken_run"),
    *("broken_weights_missing", "broken_weights_up", "broken_max_batch", "broken_gpu"),
)
LOAD_REQUESTS = 400
LOAD_CLIENTS = 16
CALL_S_MAX = 60
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many") / "models"
    many_models.write(root, ALL)
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    # In a child process each model would take a third of a second; `test_preflight...` has some of them.
    with serving(repository, "--preflight=off") as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as one:
        yield one


def by_name(entries: tuple[Entry, ...]) -> Any:
    return pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.title) for entry in entries])


# Requests and answers


def wire(entry: Entry, ask: Ask | Refusal, *, typed: bool = False) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=entry.title, model_version=ask.version, id=entry.title)
    for key, value in ask.parameters.items():
        request.parameters[key].int64_param = value
    for name, array in ask.inputs.items():
        datatype = DataType.from_numpy(array.dtype)
        tensor = request.inputs.add(name=name, datatype=datatype.value, shape=array.shape)
        if typed:
            getattr(tensor.contents, str(datatype.contents_field)).extend(array.reshape(-1).tolist())
        else:
            request.raw_input_contents.append(to_bytes(array, datatype))
    for name in ask.outputs:
        output = request.outputs.add(name=name)
        if ask.classes:
            output.parameters["classification"].int64_param = ask.classes
    return request


def has_typed_form(ask: Ask) -> bool:
    return all(DataType.from_numpy(array.dtype).contents_field for array in ask.inputs.values())


def check(entry: Entry, ask: Ask, response: Any) -> None:
    """The whole answer, to the last byte."""
    assert (response.model_name, response.model_version, response.id) == (entry.title, ask.by, entry.title)
    got = {
        output.name: (output.datatype, list(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    expected = {}
    for name, array in ask.answers.items():
        datatype = DataType.from_numpy(array.dtype)
        expected[name] = (datatype.value, list(array.shape), to_bytes(array, datatype))
    assert got == expected
    assert [output.name for output in response.outputs] == list(expected)


def check_with_tritonclient(client: triton.InferenceServerClient, entry: Entry, ask: Ask) -> None:
    inputs = []
    for name, array in ask.inputs.items():
        tensor = triton.InferInput(name, list(array.shape), DataType.from_numpy(array.dtype).value)
        inputs.append(tensor.set_data_from_numpy(array))
    result = client.infer(
        entry.title,
        inputs,
        model_version=ask.version,
        outputs=[triton.InferRequestedOutput(name, class_count=ask.classes) for name in ask.outputs],
        request_id=entry.title,
        **ask.parameters,
    )
    check(entry, ask, result.get_response())
    for name, array in ask.answers.items():
        np.testing.assert_array_equal(result.as_numpy(name), array, strict=True)


def refusal_of(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as refused:
        call(*arguments, timeout=CALL_S_MAX)
    return refused.value.code().name, refused.value.details()


# What serves


@by_name(GOOD)
def test_answers_as_documented(
    stub: GRPCInferenceServiceStub, client: triton.InferenceServerClient, entry: Entry
) -> None:
    for ask in entry.asks:
        if isinstance(ask, Refusal):
            status, message = refusal_of(stub.ModelInfer, wire(entry, ask))
            assert status == ask.status and ask.words in message, message
            continue
        check_with_tritonclient(client, entry, ask)
        check(entry, ask, stub.ModelInfer(wire(entry, ask), timeout=CALL_S_MAX))
        if has_typed_form(ask):
            check(entry, ask, stub.ModelInfer(wire(entry, ask, typed=True), timeout=CALL_S_MAX))


@by_name(GOOD)
def test_says_what_it_is(stub: GRPCInferenceServiceStub, entry: Entry) -> None:
    ready = [version for version, why in entry.states.items() if not why]
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=entry.title, version=ready[-1]))
    shapes = {tensor.name: list(tensor.shape) for tensor in (*metadata.inputs, *metadata.outputs)}
    assert {name: shapes[name] for name in entry.shapes} == entry.shapes
    assert metadata.platform == "onnxruntime_onnx"
    config = stub.ModelConfig(pb.ModelConfigRequest(name=entry.title, version=ready[-1])).config
    assert (config.name, config.max_batch_size, config.backend) == (entry.title, entry.rows_max, "onnxruntime")
    for version in ready:
        assert stub.ModelReady(pb.ModelReadyRequest(name=entry.title, version=version)).ready


def test_one_stream_asks_all_of_them_in_turn(stub: GRPCInferenceServiceStub) -> None:
    asks = [(entry, ask) for entry in GOOD for ask in entry.asks]
    replies = list(stub.ModelStreamInfer(iter([wire(*one) for one in asks]), timeout=CALL_S_MAX))
    assert len(replies) == len(asks)
    for (entry, ask), reply in zip(asks, replies, strict=True):
        assert reply.infer_response.id == entry.title
        if isinstance(ask, Refusal):
            assert ask.words in reply.error_message
        else:
            assert not reply.error_message
            check(entry, ask, reply.infer_response)


async def test_a_crowd_that_asks_all_of_them_at_once_gets_only_right_answers(server: Server) -> None:
    draw = random.Random(20261121)
    asks = [(entry, ask) for entry in GOOD for ask in entry.asks]
    waiting = iter(draw.choices(asks, k=LOAD_REQUESTS))
    answered: list[Entry] = []

    async def one_client(stub: GRPCInferenceServiceAioStub) -> None:
        for entry, ask in waiting:
            if isinstance(ask, Refusal):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.ModelInfer(wire(entry, ask), timeout=CALL_S_MAX)
                assert refused.value.code().name == ask.status and ask.words in str(refused.value.details())
            else:
                check(entry, ask, await stub.ModelInfer(wire(entry, ask), timeout=CALL_S_MAX))
            answered.append(entry)

    async with grpc.aio.insecure_channel(server.address) as channel, asyncio.timeout(CALL_S_MAX):
        stub = GRPCInferenceServiceAioStub(channel)
        await asyncio.gather(*(one_client(stub) for _ in range(LOAD_CLIENTS)))
    assert len(answered) == LOAD_REQUESTS and len({entry.name for entry in answered}) > len(GOOD) / 2


# What is said of each: in RepositoryIndex, in the start-up table, in the log


def index(stub: GRPCInferenceServiceStub, *, ready: bool = False) -> dict[str, dict[str, tuple[str, str]]]:
    rows: dict[str, dict[str, tuple[str, str]]] = {}
    for row in stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready)).models:
        versions = rows.setdefault(row.name, {})
        assert row.version not in versions
        versions[row.version] = (row.state, row.reason)
    return rows


def check_rows(entry: Entry, rows: dict[str, tuple[str, str]]) -> None:
    assert rows.keys() == entry.states.keys()
    for version, words in entry.states.items():
        state, reason = rows[version]
        assert state == ("UNAVAILABLE" if words else "READY")
        assert words in reason if words else reason == ""


@by_name(ALL)
def test_index_has_each_version_with_its_state(stub: GRPCInferenceServiceStub, entry: Entry) -> None:
    check_rows(entry, index(stub)[entry.title])


def test_index_lists_every_folder_and_the_filter_only_what_is_ready(stub: GRPCInferenceServiceStub) -> None:
    assert len(GOOD) >= 30 and len(BROKEN) >= 10 and all(entry.asks for entry in GOOD)
    assert index(stub).keys() == NAMES.keys()
    ready = {
        name: {version: ("READY", "") for version, words in entry.states.items() if not words}
        for name, entry in NAMES.items()
        if not entry.broken
    }
    assert index(stub, ready=True) == ready


def table(server: Server) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The start-up table: the state by model and revision, and the notes."""
    lines = server.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("model "))
    rows: dict[str, dict[str, str]] = {}
    notes = []
    for line in lines[start + 1 :]:
        if line.startswith("note  "):
            notes.append(line.removeprefix("note  "))
        elif match := re.match(r"(.+?) +(-|blue|v\d+) +(\S+) +(READY|FAILED)\b", line):
            rows.setdefault(match[1], {})[match[3]] = match[4]
    return rows, notes


@by_name(ALL)
def test_start_up_table_has_each_version_with_its_state(server: Server, entry: Entry) -> None:
    rows, notes = table(server)
    expected = {}
    for version, words in entry.states.items():
        revision = f"{entry.title}/{version}" if version else "-"
        expected[revision] = "FAILED" if words else "READY"
    assert rows[entry.title] == expected
    own = [note for note in notes if re.match(re.escape(entry.title) + r"(/\d+)?: ", note)]
    wanted = [words for words in (*entry.states.values(), *entry.notes) if words]
    assert len(own) == len(wanted), own
    for words in wanted:
        assert any(words in note for note in own), own


def unlogged(server: Server, entry: Entry) -> list[str]:
    """Reasons that no line of the log gives for this model."""
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    told = [str(line.get("why")) for line in lines if line.get("model") == entry.title and line["level"] == "error"]
    return [words for words in entry.states.values() if words and not any(words in why for why in told)]


@by_name(tuple(entry for entry in ALL if any(entry.states.values()) and "" not in entry.states))
def test_log_has_the_reason(server: Server, entry: Entry) -> None:
    assert unlogged(server, entry) == []


def test_log_has_the_reason_of_models_without_a_version(server: Server) -> None:
    assert [entry.title for entry in ALL if "" in entry.states and unlogged(server, entry)] == []


# What is broken


@by_name(BROKEN)
def test_broken_is_not_ready_and_says_why(
    stub: GRPCInferenceServiceStub, client: triton.InferenceServerClient, entry: Entry
) -> None:
    assert entry.broken
    for version in ("", "1"):
        assert not client.is_model_ready(entry.title, version)
    (words,) = entry.states.values()
    for call, asked in (
        (stub.ModelInfer, wire(entry, Ask({"x": many_models.X}, {}))),
        (stub.ModelInfer, wire(entry, Ask({"x": many_models.X}, {}, version="1"))),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name=entry.title)),
        (stub.ModelConfig, pb.ModelConfigRequest(name=entry.title)),
    ):
        status, message = refusal_of(call, asked)
        assert (status, words in message) == ("NOT_FOUND", True), message
    status, message = refusal_of(stub.ModelStatistics, pb.ModelStatisticsRequest(name=entry.title))
    assert status == "INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.get_model_metadata(entry.title)


def test_health_of_each(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for entry in ALL:
            newest = max(entry.states, key=lambda version: int(version or 0))
            expected = health_pb2.HealthCheckResponse.NOT_SERVING if entry.states[newest] else SERVING
            assert health.Check(health_pb2.HealthCheckRequest(service=entry.title)).status == expected, entry.title
        assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING


LEAKS = re.compile(r"""(?<![\w<>.])/[\w.-]+/[\w.-]+|site-packages|Traceback|File "|\.py:\d+|0x[0-9a-f]{6,}""")


def test_nothing_that_is_told_leads_to_the_host(
    repository: Path, server: Server, stub: GRPCInferenceServiceStub
) -> None:
    told = {f"{name}/{version}": why for name, rows in index(stub).items() for version, (_, why) in rows.items() if why}
    told |= {f"table {number}": note for number, note in enumerate(table(server)[1])}
    x = {"x": many_models.X}
    for entry in ALL:
        refusals = [ask for ask in entry.asks if isinstance(ask, Refusal)]
        if entry.broken:
            refusals += [Refusal(x, ""), Refusal(x, "", version="1")]
            asked = pb.ModelStatisticsRequest(name=entry.title)
            told[f"{entry.title} statistics"] = refusal_of(stub.ModelStatistics, asked)[1]
        for number, refusal in enumerate(refusals):
            told[f"{entry.title} {number}"] = refusal_of(stub.ModelInfer, wire(entry, refusal))[1]
    assert len(told) > 5 * len(BROKEN)
    names = (str(repository), repository.parent.name, str(Path(many_models.__file__).parents[2]))
    for where, text in told.items():
        assert not LEAKS.search(text) and not any(name in text for name in names), (where, text)
    assert LEAKS.search("Load model from /srv/models/m/1/model.onnx failed")  # it would be seen


# Other ways to start


def test_preflight_lets_the_same_models_pass(tmp_path: Path) -> None:
    some = [*(NAMES[name] for name in WITH_PREFLIGHT), many_models.BROKEN_MEMORY]
    many_models.write(tmp_path / "models", some)
    limits = ("--preflight=on", "--preflight-memory-bytes-max=2000000000")
    with serving(tmp_path / "models", *limits) as server, grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        rows = index(stub)
        assert rows.keys() == {entry.title for entry in some}
        for entry in some:
            check_rows(entry, rows[entry.title])
            for ask in entry.asks:
                if isinstance(ask, Ask):
                    check(entry, ask, stub.ModelInfer(wire(entry, ask), timeout=CALL_S_MAX))


def test_strict_refuses_to_start_and_names_them_all(tmp_path: Path) -> None:
    many_models.write(tmp_path / "models", (GOOD[0], *BROKEN))
    ended = run(
        "serve",
        f"--model-repository={tmp_path / 'models'}",
        "--grpc-port=0",
        "--provider=cpu",
        "--strict",
        "--preflight=off",
    )
    assert ended.returncode == 1
    assert "ready: " not in ended.stdout
    for entry in BROKEN:
        (words,) = entry.states.values()
        assert entry.title in ended.stderr and words in ended.stderr, entry.title
    assert GOOD[0].name not in ended.stderr.split("turnout: ", 1)[-1]
