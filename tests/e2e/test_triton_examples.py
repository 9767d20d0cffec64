"""Programs in the spirit of Triton's public client examples, against a real process: what they do must work here.

Written from tritonclient's public interface. `test_process.py` has what concerns the process itself.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from support.server import Server, until

FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
SECOND = np.ones((1, 16), dtype=np.int32)


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as one:
        yield one


@pytest.fixture
def stub(server: Server) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name: str, array: Any, datatype: str) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def pair(first: Any = FIRST, second: Any = SECOND, datatype: str = "INT32") -> list[triton.InferInput]:
    return [tensor("INPUT0", first, datatype), tensor("INPUT1", second, datatype)]


def check_sums(result: triton.InferResult, first: Any = FIRST, second: Any = SECOND) -> None:
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)


# simple_grpc_infer_client


def test_infer_with_requested_outputs_id_and_statistics(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("simple", as_json=True)["model_stats"][0]
    outputs = [triton.InferRequestedOutput("OUTPUT0"), triton.InferRequestedOutput("OUTPUT1")]
    result = client.infer("simple", pair(), outputs=outputs, request_id="1", headers={"test": "1"})
    check_sums(result)
    answer = result.get_response()
    assert (answer.model_name, answer.model_version, answer.id) == ("simple", "1", "1")
    assert answer.parameters["turnout_revision"].string_param == "simple/1"
    after = client.get_inference_statistics("simple")
    assert len(after.model_stats) == 1
    assert after.model_stats[0].inference_count == int(before.get("inference_count", 0)) + 1
    assert after.model_stats[0].inference_stats.compute_infer.ns > 0


def test_only_the_requested_output_comes_back_in_the_requested_order(client: triton.InferenceServerClient) -> None:
    result = client.infer("simple", pair(), outputs=[triton.InferRequestedOutput("OUTPUT1")])
    assert result.as_numpy("OUTPUT0") is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), FIRST - SECOND)
    names = ["OUTPUT1", "OUTPUT0"]
    both = client.infer("simple", pair(), outputs=[triton.InferRequestedOutput(name) for name in names])
    assert [output.name for output in both.get_response().outputs] == names
    check_sums(both)


def test_no_requested_outputs_means_all(client: triton.InferenceServerClient) -> None:
    result = client.infer("simple", pair())
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT0", "OUTPUT1"]
    check_sums(result)


def test_a_batch_of_rows(client: triton.InferenceServerClient) -> None:
    first, second = np.arange(128, dtype=np.int32).reshape(8, 16), np.full((8, 16), 3, np.int32)
    check_sums(client.infer("simple", pair(first, second)), first, second)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: triton.InferenceServerClient, algorithm: str) -> None:
    check_sums(client.infer("simple", pair(), compression_algorithm=algorithm))


def test_errors_arrive_as_status_and_message(client: triton.InferenceServerClient) -> None:
    for arguments, status, words in (
        (("nobody", pair()), "NOT_FOUND", "unknown model 'nobody'"),
        (("simple", pair()[:1]), "INVALID_ARGUMENT", "takes 2 input(s) 'INPUT0', 'INPUT1', the request has 1"),
        (("simple", pair(FIRST.astype("f4"), SECOND.astype("f4"), "FP32")), "INVALID_ARGUMENT", "takes INT32"),
        (("simple", pair(FIRST[:, :8])), "INVALID_ARGUMENT", "input 'INPUT0' has shape [1, 8]"),
        (("simple", pair(np.zeros((9, 16), "i4"), np.zeros((9, 16), "i4"))), "INVALID_ARGUMENT", "9 rows"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            client.infer(*arguments)
        assert refused.value.status() == f"StatusCode.{status}"
        assert words in refused.value.message()


def test_versions_are_chosen_by_number(client: triton.InferenceServerClient) -> None:
    x = np.ones((1, 3), np.float32)
    got = {}
    for version in ("", "1", "2"):
        result = client.infer("scale", [tensor("x", x, "FP32")], model_version=version)
        got[version] = (result.get_response().model_version, float(result.as_numpy("y")[0, 0]))
    assert got == {"": ("2", 3.0), "1": ("1", 2.0), "2": ("2", 3.0)}


def test_custom_parameters_priority_and_timeout_are_taken(client: triton.InferenceServerClient) -> None:
    result = client.infer(
        "simple", pair(), priority=3, timeout=5_000_000, parameters={"text": "a", "flag": True, "count": 3, "real": 0.5}
    )
    check_sums(result)


# simple_grpc_async_infer_client


def test_async_infer_with_callbacks(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for index in range(20):
        client.async_infer(
            "simple",
            pair(FIRST + index),
            callback=lambda result, error, index=index: answers.put((index, result, error)),
            client_timeout=30,
        )
    seen = set()
    for _ in range(20):
        index, result, error = answers.get(timeout=30)
        assert error is None
        check_sums(result, FIRST + index)
        seen.add(index)
    assert seen == set(range(20))


def test_async_infer_that_is_cancelled(client: triton.InferenceServerClient) -> None:
    """client_cancel: the callback gets the cancellation, the server goes on."""
    errors: queue.Queue[Any] = queue.Queue()
    slow = [tensor("x", np.array([[1500]], np.int64), "INT64")]
    context = client.async_infer("slow", slow, callback=lambda result, error: errors.put(error))
    context.cancel()
    assert errors.get(timeout=30).status() == "StatusCode.CANCELLED"
    check_sums(client.infer("simple", pair()))


# simple_grpc_aio_infer_client


async def test_aio_infer(server: Server) -> None:
    async with triton_aio.InferenceServerClient(server.address) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        result = await client.infer("simple", pair(), request_id="aio")
        assert result.get_response().id == "aio"
        check_sums(result)


# simple_grpc_async_stream_infer_client, simple_grpc_aio_sequence_stream_infer_client


def test_stream_keeps_order_and_carries_errors(client: triton.InferenceServerClient) -> None:
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: replies.put((result, error)))
    slow = [tensor("x", np.array([[100]], np.int64), "INT64")]
    client.async_stream_infer("slow", slow, request_id="slow")
    for index in range(10):
        client.async_stream_infer("simple", pair(FIRST + index), request_id=str(index))
    client.async_stream_infer("nobody", pair(), request_id="nobody")
    client.async_stream_infer("simple", pair(), request_id="last", enable_empty_final_response=True)
    client.stop_stream()  # waits for what is in flight
    got = [replies.get_nowait() for _ in range(13)]
    assert replies.empty()
    assert got[0][0].get_response().id == "slow" and got[0][0].as_numpy("y").tolist() == [[100]]
    for index, (result, error) in enumerate(got[1:11]):
        assert error is None and result.get_response().id == str(index)
        check_sums(result, FIRST + index)
    result, error = got[11]
    assert result is None and "unknown model 'nobody'" in error.message()
    last, error = got[12]
    assert error is None and last.get_response().id == "last"
    assert last.get_response().parameters["triton_final_response"].bool_param is True


def test_stream_with_grpc_errors_ends_at_the_first(client: triton.InferenceServerClient) -> None:
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(
        callback=lambda result, error: replies.put((result, error)), headers={"triton_grpc_error": "true"}
    )
    client.async_stream_infer("nobody", pair())
    result, error = replies.get(timeout=30)
    assert result is None and error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream(cancel_requests=True)


def test_stream_that_is_cancelled_ends_at_once(client: triton.InferenceServerClient) -> None:
    replies: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: replies.put((result, error)))
    client.async_stream_infer("simple", pair())
    check_sums(replies.get(timeout=30)[0])
    for _ in range(10):  # in turn: several seconds of runs
        client.async_stream_infer("slow", [tensor("x", np.full((4, 1), 1000, np.int64), "INT64")])
    client.stop_stream(cancel_requests=True)
    result, error = replies.get(timeout=30)
    assert result is None and error.status() == "StatusCode.CANCELLED"
    assert replies.empty()
    check_sums(client.infer("simple", pair()))


async def test_aio_stream(server: Server) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for index in range(5):
            yield {"model_name": "simple", "inputs": pair(FIRST + index), "request_id": str(index)}

    async with triton_aio.InferenceServerClient(server.address) as client:
        index = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None and result.get_response().id == str(index)
            check_sums(result, FIRST + index)
            index += 1
        assert index == 5


# simple_grpc_string_infer_client


def text(array: Any) -> Any:
    return np.array([str(value).encode() for value in array.reshape(-1)], dtype=np.object_).reshape(array.shape)


def test_strings_of_decimal_integers(client: triton.InferenceServerClient) -> None:
    result = client.infer("simple_string", pair(text(FIRST), text(SECOND), "BYTES"))
    sums, differences = result.as_numpy("OUTPUT0"), result.as_numpy("OUTPUT1")
    assert [int(value) for value in sums[0]] == list(range(1, 17))
    assert [int(value) for value in differences[0]] == list(range(-1, 15))


@pytest.mark.parametrize(
    "words",
    [["plain"], ["", "", ""], ["naïve", "日本語", "\U0001f600"], ["a\0b", "\0", "tail\0"], ["x" * 100_000, "y"]],
    ids=["plain", "empty", "non-ascii", "nul", "long"],
)
def test_identity_of_strings(client: triton.InferenceServerClient, words: list[str]) -> None:
    array = np.array([word.encode() for word in words], dtype=np.object_).reshape(1, -1)
    result = client.infer("simple_identity", [tensor("INPUT0", array, "BYTES")])
    assert [value.decode() for value in result.as_numpy("OUTPUT0")[0]] == words


def test_bytes_that_are_no_text_are_refused_by_name(client: triton.InferenceServerClient) -> None:
    array = np.array([[b"\xff\xfe"]], dtype=np.object_)
    with pytest.raises(InferenceServerException, match="input 'INPUT0': element 0 is not UTF-8"):
        client.infer("simple_identity", [tensor("INPUT0", array, "BYTES")])


# Every datatype, with models that have no config.pbtxt

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-32768, 0, 32767],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP16": [-1.5, 0.0, 65504.0],
    "FP32": [-1.5, float("inf"), 1e-30],
    "FP64": [-1.5, float("-inf"), 1e-300],
    "BYTES": [b"a", b"", b"bc"],
    "BF16": [-1.5, 0.0, 256.0],
}


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("datatype", VALUES)
def test_identity_of_every_datatype(client: triton.InferenceServerClient, datatype: str, rows: int) -> None:
    dtype = ml_dtypes.bfloat16 if datatype == "BF16" else triton_to_np_dtype(datatype)
    array = np.array([VALUES[datatype]] * rows, dtype=dtype)
    model = f"identity_{datatype.lower()}"
    result = client.infer(model, [tensor("x", array, datatype)])
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    assert result.get_output("y").datatype == datatype
    metadata = client.get_model_metadata(model)
    assert [(t.datatype, list(t.shape)) for t in metadata.inputs] == [(datatype, [-1, -1])]
    assert client.get_model_config(model).config.max_batch_size == 4  # Triton's default where a model can batch


def test_models_of_other_shapes(client: triton.InferenceServerClient) -> None:
    x = np.array([1, 2, 3], np.float32)
    no_batch = client.infer("no_batch", [tensor("x", x, "FP32")])
    np.testing.assert_array_equal(no_batch.as_numpy("y"), x + x)
    fixed = client.infer("fixed_batch", [tensor("x", x.reshape(1, 3), "FP32")])
    np.testing.assert_array_equal(fixed.as_numpy("y"), (x + x).reshape(1, 3))
    assert client.get_model_config("fixed_batch").config.max_batch_size == 0
    k = np.array([[5], [6]], np.int64)
    mixed = client.infer("two_datatypes", [tensor("k", k, "INT64"), tensor("x", np.stack([x, x]), "FP32")])
    np.testing.assert_array_equal(mixed.as_numpy("y"), np.stack([5 * x, 6 * x]))
    np.testing.assert_array_equal(mixed.as_numpy("twice"), 2 * k)


# simple_grpc_keepalive_client


def test_pings_as_often_as_the_server_allows_keep_the_connection(server: Server) -> None:
    """That it sends others away shows test_process."""
    options = triton.KeepAliveOptions(
        keepalive_time_ms=200,
        keepalive_timeout_ms=5000,
        keepalive_permit_without_calls=True,
        http2_max_pings_without_data=0,
    )
    with triton.InferenceServerClient(server.address, keepalive_options=options) as client:
        check_sums(client.infer("simple", pair()))
        slow = [tensor("x", np.array([[3000]], np.int64), "INT64")]  # long enough for several pings
        assert client.infer("slow", slow).as_numpy("y").tolist() == [[3000]]
        check_sums(client.infer("simple", pair()))


# grpc_client, grpc_explicit_int_content_client, grpc_explicit_int8_..., grpc_explicit_byte_content_client


def raw_request(model: str, datatype: str) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model, id="my request id")
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype=datatype, shape=[1, 16])
    for name in ("OUTPUT0", "OUTPUT1"):
        request.outputs.add(name=name)
    return request


def test_generated_stub_with_raw_contents(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
    assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    assert stub.ModelReady(service_pb2.ModelReadyRequest(name="simple")).ready
    request = raw_request("simple", "INT32")
    request.raw_input_contents.extend([FIRST.tobytes(), SECOND.tobytes()])
    response = stub.ModelInfer(request)
    assert response.id == "my request id"
    outputs = [np.frombuffer(raw, np.int32) for raw in response.raw_output_contents]
    np.testing.assert_array_equal(outputs[0], (FIRST + SECOND)[0])
    np.testing.assert_array_equal(outputs[1], (FIRST - SECOND)[0])


@pytest.mark.parametrize(("model", "datatype", "dtype"), [("simple", "INT32", "i4"), ("simple_int8", "INT8", "i1")])
def test_explicit_int_contents(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, model: str, datatype: str, dtype: str
) -> None:
    request = raw_request(model, datatype)
    request.inputs[0].contents.int_contents[:] = range(16)
    request.inputs[1].contents.int_contents[:] = [1] * 16
    response = stub.ModelInfer(request)
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("OUTPUT0", datatype, [1, 16]),
        ("OUTPUT1", datatype, [1, 16]),
    ]
    assert np.frombuffer(response.raw_output_contents[0], dtype).tolist() == list(range(1, 17))
    assert np.frombuffer(response.raw_output_contents[1], dtype).tolist() == list(range(-1, 15))


def test_explicit_byte_contents(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = raw_request("simple_string", "BYTES")
    request.inputs[0].contents.bytes_contents[:] = [str(i).encode() for i in range(16)]
    request.inputs[1].contents.bytes_contents[:] = [b"1"] * 16
    result = triton.InferResult(stub.ModelInfer(request))
    assert [int(value) for value in result.as_numpy("OUTPUT0")[0]] == list(range(1, 17))


def test_raw_and_explicit_contents_do_not_mix(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    """As grpc_explicit_..._content_client checks: the server must refuse, and name the input."""
    request = raw_request("simple", "INT32")
    request.inputs[0].contents.int_contents[:] = range(16)
    request.raw_input_contents.extend([FIRST.tobytes(), SECOND.tobytes()])
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'INPUT0'" in refused.value.details()


# simple_grpc_health_metadata, simple_grpc_model_control (its questions), simple_grpc_custom_args_client


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "turnout"
    metadata = client.get_model_metadata("simple", as_json=True)
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("simple", ["1"], "onnxruntime_onnx")
    assert [t["name"] for t in metadata["inputs"]] == ["INPUT0", "INPUT1"]
    with pytest.raises(InferenceServerException) as refused:
        client.get_model_metadata("wrong_model_name")
    assert refused.value.status() == "StatusCode.NOT_FOUND" and "unknown model" in refused.value.message()


def test_model_config_as_json(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("simple", as_json=True)["config"]
    assert (config["name"], config["max_batch_size"], config["backend"]) == ("simple", 8, "onnxruntime")
    assert config["input"][0] == {"name": "INPUT0", "data_type": "TYPE_INT32", "dims": ["16"]}
    assert "dynamic_batching" in config and json.dumps(config)


def test_repository_index(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    rows = {(m.name, m.version): (m.state, m.reason) for m in index.models}
    assert rows["simple", "1"] == rows["scale", "1"] == rows["scale", "2"] == ("READY", "")
    assert rows["broken", "1"][0] == "UNAVAILABLE"
    assert rows["unversioned", ""] == (
        "UNAVAILABLE",
        "it has no version folder: put the model into a folder named 1, 2, ...",
    )
    assert rows["contradicted", "1"] == (
        "UNAVAILABLE",
        "config.pbtxt: input 'x' is TYPE_INT32, the model file has TYPE_FP32",
    )


def test_repository_cannot_be_changed_from_the_data_port_unless_told(client: triton.InferenceServerClient) -> None:
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException) as refused:
            call("simple")
        assert refused.value.status() == "StatusCode.UNAVAILABLE"
    assert client.is_model_ready("simple")


def test_custom_channel_arguments(server: Server) -> None:
    arguments = [("grpc.primary_user_agent", "my client"), ("grpc.lb_policy_name", "pick_first")]
    with triton.InferenceServerClient(server.address, channel_args=arguments) as client:
        check_sums(client.infer("simple", pair()))


# client_timeout


def test_client_timeout(client: triton.InferenceServerClient) -> None:
    slow = [tensor("x", np.array([[1500]], np.int64), "INT64")]
    with pytest.raises(InferenceServerException) as late:
        client.infer("slow", slow, client_timeout=0.05)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    check_sums(client.infer("simple", pair(), client_timeout=30))


# A failing run


def test_bad_input_fails_alone_and_tells_nothing_of_the_server(
    client: triton.InferenceServerClient, server: Server
) -> None:
    def look_up(index: int) -> Any:
        return client.infer("lookup", [tensor("index", np.array([[index]], np.int64), "INT64")]).as_numpy("y")

    answers: dict[int, Any] = {}

    def ask(index: int) -> None:
        try:
            answers[index] = look_up(index).tolist()
        except InferenceServerException as error:
            answers[index] = error

    threads = [threading.Thread(target=ask, args=(index,)) for index in (0, 1, 2, 3, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    failure = answers.pop(9)
    assert answers == {0: [[10.0]], 1: [[20.0]], 2: [[30.0]], 3: [[40.0]]}
    assert failure.status() == "StatusCode.INTERNAL"
    match = re.fullmatch(r"model 'lookup' failed to run this request \(error id ([0-9a-f]{16})\)", failure.message())
    assert match
    until(lambda: match[1] in server.stderr)  # a thread of its own writes the log
    (line,) = [line for line in server.stderr.splitlines() if match[1] in line]
    assert "Gather" in json.loads(line)["error"]  # the operator has what the client has not
