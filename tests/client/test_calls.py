"""The clients against the real transport: what is asked for is what is answered, with deadlines and cancellations."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from support.edge import Gate, Served, edge, eventually, signature
from support.fake_inference import IMAGE, KINDS, TRANSPORTS, AnyClient, Refusal, fake_server
from turnout.backends.synthetic import SyntheticModel
from turnout.runtime.jobs import SlotLimits
from turnout_client import InferenceError, Retry, Streams, Tls
from turnout_wire.tensors import DataType

both = pytest.mark.parametrize("kind", KINDS)
ways = pytest.mark.parametrize("transport", TRANSPORTS)
streamed = pytest.mark.parametrize("transport", TRANSPORTS[1:])


@both
@ways
async def test_an_answer_says_who_gave_it(kind: str, transport: str) -> None:
    async with (
        edge({"m": Served(versions=(1, 2))}) as server,
        AnyClient(kind, server.address, transport=transport) as to,
    ):
        await to.wait_ready("m")
        answer = await to.infer("m", IMAGE, request_id="r-1", key="user-7", priority=1)
        assert (answer["y"].tolist(), list(answer), len(answer)) == ([[2.0] * 4], ["y"], 1)
        assert (answer.model, answer.version, answer.slot, answer.revision) == ("m", "2", "blue", "m/2")
        assert (answer.generation, answer.inference_id) == (1, "r-1")
        assert not answer["y"].flags.writeable
        assert (await to.infer("m", IMAGE, version=1)).slot == "v1"
        assert (await to.infer("m", IMAGE, slot="v1")).version == "1"
        assert len((await to.infer("m", IMAGE)).inference_id) == 16
        with pytest.raises(KeyError, match="no output 'z' in the answer, it has y"):
            answer["z"]
        top = await to.infer("m", {"x": np.array([[1, 3, 2, 0]], np.float32)}, classification={"y": 2})
        assert [(c.value, c.index) for c in top.classes("y")[0]] == [(6.0, 1), (4.0, 2)]


@both
@ways
async def test_an_error_says_why(kind: str, transport: str) -> None:
    async with edge() as server, AnyClient(kind, server.address, transport=transport) as to:
        error = await to.failure("m", {"x": np.ones((1, 5), np.float32)})
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert "input 'x' has shape [1, 5]" in str(error) and not error.retryable and not error.unreachable
        assert (await to.failure("n", IMAGE)).reason == "NOT_FOUND"
        server.seen.handler_failures.clear()
        server.inference._exchanges._dispatcher = None  # type: ignore[assignment] # a fault of the server's own
        broken = await to.failure("m", IMAGE)
        ((_, error_id, _),) = server.seen.handler_failures
        assert (broken.code, broken.error_id) == ("INTERNAL", error_id)


@both
@ways
async def test_a_full_queue_is_waited_out(kind: str, transport: str) -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    models, limits = {"m": Served(model, config="max_batch_size: 1")}, SlotLimits(1, 1 << 20)
    async with edge(models, limits=limits) as server:  # noqa: SIM117
        async with AnyClient(kind, server.address, transport=transport, retry=None) as to:
            gate.shut()
            first = asyncio.ensure_future(to.infer("m", IMAGE))
            await gate.reached()
            second = asyncio.ensure_future(to.infer("m", IMAGE))
            await eventually(lambda: server.queued_rows() == 1)
            full = await to.failure("m", IMAGE)
            assert (full.code, full.reason, full.retryable) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", True)
            assert full.retry_after_s is not None and full.retry_after_s >= 0.01
            async with AnyClient(kind, server.address, transport=transport, retry=Retry(attempts_max=5)) as patient:
                third = asyncio.ensure_future(patient.infer("m", IMAGE, timeout_s=15))
                await asyncio.sleep(0.02)
                gate.open()
                assert [answer["y"][0, 0] for answer in await asyncio.gather(first, second, third)] == [2, 2, 2]


@both
@ways
async def test_a_deadline_ends_the_wait(kind: str, transport: str) -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model)}) as server, AnyClient(kind, server.address, transport=transport) as to:
        await to.infer("m", IMAGE)
        gate.shut()
        began = time.monotonic()
        assert (await to.failure("m", IMAGE, timeout_s=0.1)).code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - began < 2
        gate.open()
        assert (await to.infer("m", IMAGE))["y"][0, 0] == 2  # an answer that came too late is nobody else's


@ways
async def test_a_cancelled_call_disturbs_no_other(transport: str) -> None:
    gate = Gate()
    model = SyntheticModel(signature(), wait=gate)
    async with edge({"m": Served(model)}) as server, AnyClient("aio", server.address, transport=transport) as to:
        gate.shut()
        asking = [asyncio.ensure_future(to.infer("m", {"x": np.full((1, 4), n, np.float32)})) for n in range(8)]
        await gate.reached()
        for task in asking[::2]:
            task.cancel()
        gate.open()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert [outcome["y"][0, 0] for outcome in outcomes[1::2]] == [2, 6, 10, 14]  # type: ignore[index]


@both
@streamed
async def test_places_are_bounded_and_given_back(kind: str, transport: str) -> None:
    bounds = Streams(streams_max=2, inflight_max=3)
    async with fake_server() as server, AnyClient(kind, server.address, transport=transport, streams=bounds) as to:
        server.gate.clear()
        asking = [asyncio.ensure_future(to.infer("m", IMAGE, timeout_s=20)) for _ in range(20)]
        await eventually(lambda: len(server.streams) == 2)
        error = await to.failure("m", IMAGE, timeout_s=0.1)
        assert (error.code, error.message) == ("DEADLINE_EXCEEDED", "no place in a stream became free in time")
        server.gate.set()
        assert len(await asyncio.gather(*asking)) == 20 and len(server.streams) == 2


@both
@streamed
async def test_a_request_that_cannot_be_written_keeps_no_place(kind: str, transport: str) -> None:
    bounds = Streams(streams_max=1, inflight_max=1)
    async with fake_server() as server, AnyClient(kind, server.address, transport=transport, streams=bounds) as to:
        with pytest.raises(ValueError, match="surrogates not allowed"):
            await to.infer("m", IMAGE, request_id="\ud800")
        assert await to.infer("m", IMAGE, timeout_s=5)


@both
@streamed
async def test_an_id_that_is_under_way_goes_alone(kind: str, transport: str) -> None:
    single = Streams(streams_max=1)
    async with fake_server() as server, AnyClient(kind, server.address, transport=transport, streams=single) as to:
        server.gate.clear()
        asking = [asyncio.ensure_future(to.infer("m", IMAGE, request_id="r-1")) for _ in range(2)]
        await eventually(lambda: len(server.received) == 2)
        server.gate.set()
        assert [answer.inference_id for answer in await asyncio.gather(*asking)] == ["r-1", "r-1"]
        assert sorted(received.streamed for received in server.received) == [False, True]


@both
@streamed
async def test_old_streams_are_replaced(kind: str, transport: str) -> None:
    bounds = Streams(age_s_max=0.1)
    async with fake_server() as server, AnyClient(kind, server.address, transport=transport, streams=bounds) as to:
        await to.infer("m", IMAGE)
        await to.infer("m", IMAGE)
        assert len(server.streams) == 1
        await asyncio.sleep(0.11)
        await to.infer("m", IMAGE)
        assert len(server.streams) == 2


@both
@streamed
async def test_what_a_server_never_answers_gives_its_place_back_with_its_stream(kind: str, transport: str) -> None:
    bounds = Streams(streams_max=1, inflight_max=1, age_s_max=0.5)
    async with fake_server() as server, AnyClient(kind, server.address, transport=transport, streams=bounds) as to:
        server.gate.clear()
        assert "no answer" in (await to.failure("m", IMAGE, timeout_s=1)).message
        asking = asyncio.ensure_future(to.infer("m", IMAGE, timeout_s=20))
        await eventually(lambda: server.ended == 1 and len(server.received) == 2)
        server.gate.set()
        assert await asking


@both
async def test_packed_streams_are_tried_again_when_another_server_may_have_come(kind: str) -> None:
    bounds = Streams(age_s_max=0.1)
    async with fake_server() as server, AnyClient(kind, server.address, transport="packed", streams=bounds) as to:
        server.packed_refusal = Refusal(grpc.StatusCode.INTERNAL)
        await to.infer("m", IMAGE)
        server.packed_refusal = None
        assert server.packed_streams == 0
        await asyncio.sleep(0.11)
        await to.infer("m", IMAGE)
        assert server.packed_streams == 1


@both
@ways
async def test_headers_token_and_trace(kind: str, transport: str) -> None:
    tokens = iter(f"token-{n}" for n in range(9))
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    more: dict[str, Any] = {"token": lambda: next(tokens), "insecure_token": True, "metadata": {"x-tenant": "t"}}
    async with fake_server() as server:
        async with AnyClient(kind, server.address, transport=transport, **more) as to:
            await to.infer("m", IMAGE)
        sent = server.received[0].metadata
        assert (sent["authorization"], sent["x-tenant"]) == ("Bearer token-0", "t")
        traced = {"trace_headers": lambda: {"traceparent": parent}}
        async with AnyClient(kind, server.address, transport=transport, **traced) as to:
            await to.infer("m", IMAGE, timeout_s=5)
        received = server.received[1]
        assert received.metadata["traceparent"] == parent and not received.streamed
        assert received.remaining_s is not None and 4 < received.remaining_s < 5.1


@both
@ways
async def test_a_closed_client_says_so(kind: str, transport: str) -> None:
    async with fake_server() as server:
        to = AnyClient(kind, server.address, transport=transport)
        server.gate.clear()
        asking = asyncio.ensure_future(to.failure("m", IMAGE))
        await eventually(lambda: server.received)
        await to.close()
        ended = await asking
        assert (ended.code, ended.message, ended.retryable) == ("CANCELLED", "the client was closed", False)
        assert (await to.failure("m", IMAGE)).message == "the client was closed"
        await to.__aexit__()


async def test_a_client_that_another_thread_closes_says_so() -> None:
    async with fake_server() as server:
        to = AnyClient("sync", server.address)
        call = to.client._infer

        def late(*args: Any, **more: Any) -> Any:  # closed after this call has looked, and before gRPC has
            to.client.close()
            return call(*args, **more)

        to.client._infer = late
        ended = await to.failure("m", IMAGE)
        assert (ended.code, ended.message) == ("CANCELLED", "the client was closed")
        await to.__aexit__()


@both
@ways
async def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(kind: str, transport: str) -> None:
    more: dict[str, Any] = {"token": lambda: "secret\n", "insecure_token": True, "transport": transport}
    async with fake_server() as server, AnyClient(kind, server.address, **more) as to:
        with pytest.raises(ValueError, match="'authorization' is no printable ASCII") as refused:
            await to.infer("m", IMAGE)
        assert "secret" not in str(refused.value)


@both
async def test_a_server_that_cancels_does_not_cancel_the_caller(kind: str) -> None:
    async with fake_server(*[Refusal(grpc.StatusCode.CANCELLED)] * 9) as server, AnyClient(kind, server.address) as to:
        assert (await to.failure("m", IMAGE)).code == "CANCELLED"


@both
async def test_the_catalogue(kind: str) -> None:
    async with edge() as server, AnyClient(kind, server.address) as to:
        assert await to.is_server_live() and await to.is_server_ready() and await to.is_model_ready("m", 1)
        assert not await to.is_model_ready("n")
        about = await to.model_metadata("m")
        assert (about.name, about.versions, about.inputs[0].name, about.inputs[0].shape) == ("m", ("1",), "x", (-1, 4))
        assert (await to.server_metadata()).name == "turnout"
        assert (await to.model_config("m")).max_batch_size == 8
        assert [(row.name, row.state) for row in await to.repository_index()] == [("m", "READY")]
        assert [row.name for row in await to.model_statistics("m")] == ["m"]
        server.server.set_not_ready()
        with pytest.raises(InferenceError, match=r"the server is not ready after 0\.2 s: the server answers"):
            await to.wait_ready(timeout_s=0.2)


@both
async def test_bf16_and_texts_reach_a_model(kind: str) -> None:
    import ml_dtypes

    for datatype, array in (
        (DataType.BF16, np.ones((1, 4), ml_dtypes.bfloat16)),
        (DataType.BYTES, np.array([["a", "b", "é", ""]], object)),
    ):
        model = SyntheticModel(signature(datatype))
        async with edge({"m": Served(model)}) as server, AnyClient(kind, server.address) as to:
            got = (await to.infer("m", {"x": array}))["y"]
            expected = [[b"a", b"b", "é".encode(), b""]] if datatype is DataType.BYTES else array.tolist()
            assert got.tolist() == expected and DataType.from_numpy(got.dtype) is datatype


@both
async def test_unhealthy_endpoints_are_left_out(kind: str) -> None:
    async with edge() as a, edge() as b, AnyClient(kind, [a.address, b.address]) as to:
        await asyncio.gather(*(to.infer("m", IMAGE) for _ in range(20)))
        assert min(len(a.slot().runs_seen), 1) if hasattr(a.slot(), "runs_seen") else True
        a.server.set_not_ready()
        await asyncio.sleep(0.1)
        before = _answered(a)
        await asyncio.gather(*(to.infer("m", IMAGE) for _ in range(10)))
        assert _answered(a) == before and _answered(b) >= 10


def _answered(server: Any) -> int:
    from turnout.runtime.account import Outcome

    return int(server.ended(Outcome.SUCCESS))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not on the PATH")
@both
async def test_mutual_tls(kind: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=turnout.test"
    files = ["-keyout", str(key), "-out", str(certificate), "-addext", "subjectAltName=DNS:turnout.test"]
    made = await asyncio.to_thread(subprocess.run, [*command.split(), *files], capture_output=True)
    assert made.returncode == 0, made.stderr
    pair = (key.read_bytes(), certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], certificate.read_bytes(), require_client_auth=True)
    tls = Tls.from_files(certificate, certificate, key, server_name="turnout.test")
    async with fake_server(credentials=credentials) as server:
        async with AnyClient(kind, server.address, tls=tls, token="secret") as to:
            await to.infer("m", IMAGE)
            assert server.received[0].metadata["authorization"] == "Bearer secret"
        stranger = Tls(certificate.read_bytes(), server_name="turnout.test")
        async with AnyClient(kind, server.address, tls=stranger, wait_for_ready=False, retry=None) as to:
            assert (await to.failure("m", IMAGE)).code == "UNAVAILABLE"


TOGETHER = """
import sys, asyncio, numpy as np
{first}
{second}
address = sys.argv[1]
x = np.ones((1, 4), np.float32)
ours = turnout_client.Client(address).infer("m", {{"x": x}})["y"]
given = triton.InferInput("x", [1, 4], "FP32"); given.set_data_from_numpy(x)
theirs = triton.InferenceServerClient(address).infer("m", [given]).as_numpy("y")
assert ours.tolist() == theirs.tolist() == [[2.0] * 4]
"""


@pytest.mark.parametrize("order", [0, 1])
async def test_beside_tritonclient_in_one_process(order: int) -> None:
    imports = ["import turnout_client", "import tritonclient.grpc as triton"]
    code = TOGETHER.format(first=imports[order], second=imports[1 - order])
    async with edge() as server:
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, server.address], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr


@ways
def test_a_client_of_another_loop_says_so(transport: str) -> None:
    async def first() -> AnyClient:
        async with fake_server() as server:
            to = AnyClient("aio", server.address, transport=transport)
            await to.infer("m", IMAGE)
            await to.close()
            to.client._closed = False
            return to

    async def second(to: AnyClient) -> None:
        with pytest.raises(RuntimeError, match="belongs to another event loop: make one in each loop"):
            await to.infer("m", IMAGE)
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await to.is_server_ready()

    asyncio.run(second(asyncio.run(first())))
