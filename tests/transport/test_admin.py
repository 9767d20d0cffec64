"""SlotService over gRPC, in process: each error of the table with its details, and what messages say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from support.admin import Served, served
from support.control import other_signature
from support.reports import report
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import ControlError, Refusal
from turnout.core.ids import Revision
from turnout.core.model import Artefact
from turnout.core.parity import Kind, OutputParity
from turnout.transport.admin_codec import available
from turnout.transport.admin_server import _CALLS_MAX, _STREAMS_MAX
from turnout.transport.admin_status import ADMIN_STATUS, details_of
from turnout_wire.admin import DETAILS_KEY, METHODS, error_info
from turnout_wire.gen import slots_pb2 as pb


def weights(**shares: int) -> pb.SetWeightsRequest:
    return pb.SetWeightsRequest(model="m", weights=[pb.SlotWeight(slot=s, weight_bp=w) for s, w in shares.items()])


def rule(slot: str = "green", sample_bp: int = 10_000, **more: Any) -> pb.SetShadowRequest:
    mutation = more.pop("mutation", None)
    shadow = pb.ShadowRule(slot=slot, sample_bp=sample_bp, **more)
    return pb.SetShadowRequest(model="m", rule=shadow, mutation=mutation)


def compared(**parts: Any) -> pb.SetShadowRequest:
    exact = pb.Comparator(output="y", method=pb.COMPARISON_METHOD_EXACT)
    return rule(comparators=[exact, pb.Comparator(**parts)])


async def _etag_mismatch(one: Served) -> None:
    await one.swap("green", etag='"99"')


async def _in_progress(one: Served) -> None:
    one.admin.controller.desk("m").rollbacks = 1
    try:
        await one.swap("green")
    finally:
        one.admin.controller.desk("m").rollbacks = 0


async def _id_reused(one: Served) -> None:
    await one.swap("green", request_id="id")
    await one.swap("blue", request_id="id")


async def _state_store(one: Served) -> None:
    one.journal.broken = True
    try:
        await one.swap("green")
    finally:
        one.journal.broken = False


async def _unloaded(one: Served) -> None:
    await one.stub.RollbackModel(pb.RollbackModelRequest(model="m"))


async def _gate(one: Served) -> None:
    one.shelf.failing[3] = "it crashed"
    await one.load("red", 3)


async def _signature(one: Served) -> None:
    one.shelf.models[3] = SyntheticModel(other_signature())
    await one.load("red", 3)


async def _manifest(one: Served) -> None:
    def find(*args: Any) -> Any:
        raise ControlError(Refusal.MANIFEST_MISMATCH, "'model.onnx' has another sha256 than SHA256SUMS says")

    one.shelf.find = find  # type: ignore[method-assign]
    await one.load("red", 3)


async def _digest(one: Served) -> None:
    await one.load("red", 3, digest="0" * 64)


async def _variant(one: Served) -> None:
    one.shelf.variants[3, "int8"] = ("it has no report",)
    await one.load("red", 3, variant="int8")


async def _memory(one: Served) -> None:
    object.__setattr__(one.admin.operations.demands, "memory_bytes_max", 15)
    await one.load("red", 3)


async def _expired(one: Served) -> None:
    async for _ in one.stub.WatchModel(pb.WatchModelRequest(model="m", resume_token="other-1")):
        pass


async def _stopping(one: Served) -> None:
    await one.admin.stop()
    await one.swap("green")


async def _internal(one: Served) -> None:
    one.admin.controller.view = None  # type: ignore[assignment, method-assign]
    await one.model()


async def _parse(one: Served) -> None:
    call = one.channel.unary_unary(METHODS["GetModel"].path)
    await call(b"\xff\xff")


Call = Callable[[Served], Awaitable[Any]]
ROWS: dict[Refusal, Call] = {
    Refusal.ETAG_MISMATCH: _etag_mismatch,
    Refusal.OPERATION_IN_PROGRESS: _in_progress,
    Refusal.REQUEST_ID_REUSED: _id_reused,
    Refusal.INVALID_SPEC: lambda one: one.stub.SetWeights(weights(blue=1)),
    Refusal.INVALID_REQUEST: _parse,
    Refusal.MODEL_NOT_FOUND: lambda one: one.stub.GetModel(pb.GetModelRequest(model="x")),
    Refusal.SLOT_NOT_FOUND: lambda one: one.swap("pink"),
    Refusal.REVISION_NOT_FOUND: lambda one: one.load("red", 9),
    Refusal.SLOT_ROUTED: lambda one: one.stub.UnloadSlot(pb.UnloadSlotRequest(model="m", slot="blue")),
    Refusal.SLOT_OCCUPIED: lambda one: one.load("green", 3),
    Refusal.SLOT_NOT_READY: lambda one: one.stub.SetWeights(weights(gone=10_000)),
    Refusal.ROLLBACK_TARGET_UNLOADED: _unloaded,
    Refusal.GATE_FAILED: _gate,
    Refusal.SIGNATURE_MISMATCH: _signature,
    Refusal.MANIFEST_MISMATCH: _manifest,
    Refusal.DIGEST_MISMATCH: _digest,
    Refusal.VARIANT_REFUSED: _variant,
    Refusal.SLOT_MEMORY: _memory,
    Refusal.STATE_STORE: _state_store,
    Refusal.TOKEN_EXPIRED: _expired,
    Refusal.STOPPING: _stopping,
    Refusal.INTERNAL: _internal,
}
# What the API says, once more, by hand: the table itself must not be its own proof.
CODES = {
    "ABORTED": "ETAG_MISMATCH OPERATION_IN_PROGRESS",
    "INVALID_ARGUMENT": "ETAG_REQUIRED REQUEST_ID_REUSED INVALID_SPEC INVALID_REQUEST",
    "NOT_FOUND": "MODEL_NOT_FOUND SLOT_NOT_FOUND REVISION_NOT_FOUND",
    "FAILED_PRECONDITION": "SLOT_ROUTED SLOT_OCCUPIED SLOT_NOT_READY ROLLBACK_TARGET_UNLOADED GATE_FAILED "
    "SIGNATURE_MISMATCH MANIFEST_MISMATCH VARIANT_REFUSED",
    "ALREADY_EXISTS": "DIGEST_MISMATCH",
    "RESOURCE_EXHAUSTED": "SLOT_MEMORY",
    "UNAVAILABLE": "STATE_STORE STOPPING",
    "OUT_OF_RANGE": "TOKEN_EXPIRED",
    "INTERNAL": "INTERNAL",
}


def test_the_table_has_every_refusal_and_the_code_of_the_api() -> None:
    assert set(ADMIN_STATUS) == set(Refusal)
    expected = {reason: code for code, reasons in CODES.items() for reason in reasons.split()}
    assert {refusal.name: code.name for refusal, code in ADMIN_STATUS.items()} == expected
    assert set(ROWS) | {Refusal.ETAG_REQUIRED} == set(Refusal)


@pytest.mark.parametrize("refusal", ROWS, ids=lambda refusal: refusal.name)
async def test_each_row_reaches_the_client_with_its_details(refusal: Refusal) -> None:
    async with served() as one:
        if refusal is Refusal.SLOT_NOT_READY:
            await one.load("gone", 3)
            await one.stub.UnloadSlot(pb.UnloadSlotRequest(model="m", slot="gone", wait=True))
        view = one.admin.controller.view
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ROWS[refusal](one)
        one.admin.controller.view = view  # type: ignore[method-assign]
        info = error_info(caught.value)
        assert info is not None
        assert (caught.value.code(), info.reason) == (ADMIN_STATUS[refusal], refusal.name)
        assert (caught.value.details() or "")[-1] not in ".!"


async def test_an_etag_is_required_where_the_server_says_so() -> None:
    async with served(require_etag=True) as one:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.swap("blue")
        info = error_info(caught.value)
        assert info is not None
        assert info.reason == "ETAG_REQUIRED"


def test_details_name_the_field_and_when_to_retry_and_are_bounded() -> None:
    status = details_of(ControlError(Refusal.STATE_STORE, "m" * 9_000, "a.b", slot="x" * 9_000))
    kinds = [detail.TypeName().rpartition(".")[2] for detail in status.details]
    assert kinds == ["ErrorInfo", "BadRequest", "RetryInfo"]
    bad, retry = BadRequest(), RetryInfo()
    assert status.details[1].Unpack(bad)
    assert status.details[2].Unpack(retry)
    assert (bad.field_violations[0].field, retry.retry_delay.seconds) == ("a.b", 5)
    assert len(status.SerializeToString()) < 8_000


async def test_the_details_are_where_grpc_looks_for_them() -> None:
    async with served() as one:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.stub.SetWeights(weights(blue=1))
        raw = dict(caught.value.trailing_metadata() or ())[DETAILS_KEY]
        status = Status.FromString(raw)  # type: ignore[arg-type]
        assert (status.code, status.message) == (3, caught.value.details())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.SwapSlotsRequest(model="m", slot="green", mutation=pb.Mutation(reason="r" * 1025)), "mutation.reason"),
        (pb.SwapSlotsRequest(model="m", slot="a", mutation=pb.Mutation(request_id="r" * 129)), "mutation.request_id"),
        (pb.LoadSlotRequest(model="m", slot="red"), "revision.version"),
        (pb.LoadSlotRequest(model="m", slot="red", revision=pb.Revision(model="n", version=1)), "revision.model"),
        (pb.SetWeightsRequest(model="m", pins=[pb.Pin(slot="blue")]), "set_pins"),
        (pb.SetWeightsRequest(model="m", weights=[pb.SlotWeight(slot="a")] * 2), "weights[1].slot"),
        (pb.SetShadowRequest(model="m"), "rule"),
        (rule(sample_bp=0), "rule.sample_bp"),
        (rule(sample_bp=10_001), "rule.sample_bp"),
        (rule(noise_bp=-1), "rule.noise_bp"),
        (rule(salt="s" * 65), "rule.salt"),
        (rule(queue_max=-1), "rule.queue_max"),
        (rule(queue_max=1025), "rule.queue_max"),
        (rule(bytes_max=(64 << 20) + 1), "rule.bytes_max"),
        (rule(deadline=Duration(seconds=31)), "rule.deadline"),
        (rule(deadline=Duration(seconds=-1)), "rule.deadline"),
        (compared(output="y"), "rule.comparators[1].method"),
        (compared(output="y", method=99), "rule.comparators[1].method"),
        (compared(output="z", method="COMPARISON_METHOD_JS"), "rule.comparators[1].output"),
        (compared(output="y", method="COMPARISON_METHOD_ARGMAX", k=2), "rule.comparators[1].k"),
        (compared(output="y", method="COMPARISON_METHOD_ALLCLOSE", atol=-1), "rule.comparators[1].atol"),
        (pb.ListModelsRequest(page_size=-1), "page_size"),
        (pb.ListTransitionsRequest(page_token="x"), "page_token"),
        (pb.WatchModelRequest(model="m", resume_token="run-0", send_initial_state=True), "resume_token"),
    ],
)  # fmt: skip
async def test_a_field_out_of_its_bounds_is_named(request_: Any, field: str) -> None:
    name = type(request_).DESCRIPTOR.name.removesuffix("Request")
    async with served() as one:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            call = getattr(one.stub, name)(request_)
            await (call.read() if METHODS[name].stream else call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (caught.value.details() or "").count(field) or field in str(caught.value.trailing_metadata())


async def test_a_model_says_all_that_an_operator_needs() -> None:
    async with served() as one:
        reply = await one.stub.SetWeights(weights(blue=9_000, green=1_000))
        model = reply.model
        assert (model.stable_slot, model.candidate_slot, model.previous_slot) == ("blue", "green", "blue")
        assert {w.slot: (w.weight_bp, w.actual_bp) for w in model.weights} == {
            "green": (1_000, -1),
            "blue": (9_000, -1),
        }
        assert (model.route.etag, model.route.generation) == ("2", 2)
        assert [(i.start_bp, i.end_bp, i.slot) for i in model.route.intervals] == [
            (0, 1_000, "green"), (1_000, 10_000, "blue"),
        ]  # fmt: skip
        green = model.slots[1]
        assert (green.name, green.state, green.revision.version) == ("green", pb.SLOT_STATE_READY, 2)
        assert (green.digest, green.memory_bytes, green.batch_rows_max) == ("digest-2", 10, 8)
        assert {gate.gate for gate in green.gates} >= {"digest", "manifest", "preflight", "warmup", "signature"}
        assert model.health == pb.HEALTH_HEALTHY


async def test_a_shadow_rule_is_set_read_and_cleared() -> None:
    async with served() as one:
        asked = rule(
            sample_bp=1_000,
            salt="s",
            noise_bp=200,
            comparators=[
                pb.Comparator(output="y", method=pb.COMPARISON_METHOD_ALLCLOSE, atol=0.0, rtol=1e-3),
                pb.Comparator(output="y", method=pb.COMPARISON_METHOD_TOPK, k=3, threshold=0.5),
                pb.Comparator(output="y", method=pb.COMPARISON_METHOD_ARGMAX, near_tie=0.1),
            ],
            deadline=Duration(nanos=1),
            mutation=pb.Mutation(etag="1", request_id="id", reason="look first"),
        )
        model = (await one.stub.SetShadow(asked)).model
        assert (model.route.etag, model.health, model.message) == ("2", pb.HEALTH_HEALTHY, "")
        (read,) = model.route.shadows
        assert (read.queue_max, read.bytes_max) == (1024, 64 << 20), "what the server fills in"
        read.ClearField("queue_max")
        read.ClearField("bytes_max")
        assert read == asked.rule, "also which parameters are set at all"
        assert (await one.stub.SetShadow(asked)).model.route.etag == "2", "the same request is carried out once"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one.stub.ClearShadow(pb.ClearShadowRequest(model="m", slot="green", mutation=pb.Mutation(etag="1")))
        info = error_info(caught.value)
        assert info is not None
        assert (info.reason, info.metadata["current_etag"]) == ("ETAG_MISMATCH", "2")
        checked = pb.ClearShadowRequest(model="m", slot="green", mutation=pb.Mutation(validate_only=True))
        assert (await one.stub.ClearShadow(checked)).model.route.shadows
        cleared = (await one.stub.ClearShadow(pb.ClearShadowRequest(model="m", slot="green"))).model
        assert (cleared.route.etag, list(cleared.route.shadows)) == ("3", [])
        listed = await one.stub.ListTransitions(pb.ListTransitionsRequest(model="m", page_size=2))
        assert [(t.object, t.cause, t.reason, t.to_state, t.generation) for t in listed.transitions] == [
            ("shadows/green", "shadow", "", "", 3),
            ("shadows/green", "shadow", "look first", "sample=1000 noise=200 m/2", 2),
        ]


async def test_a_shadow_that_is_swapped_to_loses_its_rule() -> None:
    async with served() as one:
        await one.stub.SetShadow(rule())
        assert not (await one.swap("green")).model.route.shadows


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda one: one.stub.SetShadow(rule("blue")), "SLOT_ROUTED"),
        (lambda one: one.stub.SetShadow(rule("pink")), "SLOT_NOT_FOUND"),
        (lambda one: one.stub.SetShadow(rule("red")), "SLOT_NOT_READY"),
        (lambda one: one.stub.ClearShadow(pb.ClearShadowRequest(model="m", slot="pink")), "SLOT_NOT_FOUND"),
        (lambda one: one.stub.ClearShadow(pb.ClearShadowRequest(model="x", slot="blue")), "MODEL_NOT_FOUND"),
        (lambda one: one.stub.UnloadSlot(pb.UnloadSlotRequest(model="m", slot="green")), "SLOT_ROUTED"),
    ],
)  # fmt: skip
async def test_what_shadow_rules_are_refused_for(call: Call, reason: str) -> None:
    async with served() as one:
        await one.stub.SetShadow(rule())
        one.shelf.failing[3] = "it crashed"
        with pytest.raises(grpc.aio.AioRpcError):
            await one.load("red", 3)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(one)
        info = error_info(caught.value)
        assert info is not None
        assert info.reason == reason


async def test_swap_then_rollback_by_rpc_and_history() -> None:
    async with served() as one:
        swapped = (await one.swap("green", reason="v2 is better", request_id="r-1")).model
        assert swapped.HasField("bake_until")
        assert swapped.slots[0].held
        back = await one.stub.RollbackModel(pb.RollbackModelRequest(model="m", mutation=pb.Mutation(reason="worse")))
        assert back.model.stable_slot == "blue"
        listed = await one.stub.ListTransitions(pb.ListTransitionsRequest(model="m", page_size=2))
        first, second = listed.transitions
        assert (first.cause, first.from_state, first.to_state, first.reason) == (
            "rollback", "green=10000", "blue=10000", "worse",
        )  # fmt: skip
        assert (second.reason, second.request_id) == ("v2 is better", "r-1")
        assert first.actor.startswith("ipv4:127.0.0.1:")
        rest = await one.stub.ListTransitions(pb.ListTransitionsRequest(page_token=listed.next_page_token))
        assert [line.seq for line in rest.transitions] == [4, 3, 2, 1]
        assert rest.next_page_token == ""
        news = await one.stub.ListTransitions(pb.ListTransitionsRequest(since_seq=second.seq))
        assert list(news.transitions) == [first]


async def test_models_are_listed_by_page() -> None:
    async with served() as one:
        page = await one.stub.ListModels(pb.ListModelsRequest(page_size=1))
        assert [model.name for model in page.models] == ["m"]
        assert page.next_page_token == ""
        assert not (await one.stub.ListModels(pb.ListModelsRequest(page_token="m"))).models


async def test_the_cost_of_a_replace_is_told_before() -> None:
    async with served() as one:
        reply = await one.load("blue", 3, replace=True, accept_outage=True, mutation=pb.Mutation(validate_only=True))
        assert reply.cost.share_bp == 10_000
        assert (await one.model()).slots[0].revision.version == 1


async def test_a_watch_is_resumed_by_its_token_and_misses_nothing() -> None:
    async with served() as one:
        call = one.stub.WatchModel(pb.WatchModelRequest(model="-", send_initial_state=True))
        initial, synced = await call.read(), await call.read()
        assert (initial.event_type, initial.model.name) == (pb.MODEL_EVENT_TYPE_INITIAL, "m")
        assert synced.event_type == pb.MODEL_EVENT_TYPE_SYNCED
        await one.swap("green", reason="first")
        event = await call.read()
        assert (event.event_type, event.transition.reason) == (pb.MODEL_EVENT_TYPE_ROUTE, "first")
        assert event.model.stable_slot == "green"
        call.cancel()
        await one.stub.RollbackModel(pb.RollbackModelRequest(model="m"))
        await one.load("red", 3)
        only = [pb.MODEL_EVENT_TYPE_ROUTE]
        again = one.stub.WatchModel(pb.WatchModelRequest(model="m", resume_token=event.resume_token, event_types=only))
        assert (await again.read()).transition.cause == "rollback"
        again.cancel()
        every = one.stub.WatchModel(pb.WatchModelRequest(model="m", resume_token=event.resume_token))
        seen = [await every.read() for _ in range(4)]
        assert [e.transition.to_state for e in seen] == ["blue=10000", "LOADING m/3", "", "READY m/3"]
        assert seen[2].model.slots[2].state in (pb.SLOT_STATE_WARMING, pb.SLOT_STATE_READY)


async def test_streams_end_when_the_server_stops() -> None:
    async with served() as one:
        call = one.stub.WatchModel(pb.WatchModelRequest(model="m"))
        reflection = ServerReflectionStub(one.channel).ServerReflectionInfo(_asked())
        await reflection.read()
        reading = [asyncio.ensure_future(call.read()), asyncio.ensure_future(reflection.read())]
        await one.model()
        await one.server.stop(1)
        for read in reading:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def _asked() -> AsyncIterator[ServerReflectionRequest]:
    """One question, and no end."""
    yield ServerReflectionRequest(list_services="")
    await asyncio.Event().wait()


@pytest.mark.parametrize("reflection", [False, True])
async def test_streams_leave_room_for_a_rollback(reflection: bool) -> None:
    """As many at once as the server takes calls: half of them are refused, and a call that decides is not."""
    async with served() as one:
        await one.swap("green")

        async def first() -> tuple[Any, grpc.StatusCode | None, str]:
            if reflection:
                call = ServerReflectionStub(one.channel).ServerReflectionInfo(_asked())
            else:
                call = one.stub.WatchModel(pb.WatchModelRequest(model="m", send_initial_state=True))
            try:
                await call.read()
            except grpc.aio.AioRpcError as refused:
                return call, refused.code(), refused.details() or ""
            return call, None, ""

        streams = [await first() for _ in range(_CALLS_MAX)]
        kept = [call for call, code, _ in streams if code is None]
        assert len(kept) == _STREAMS_MAX == _CALLS_MAX // 2
        # A client that still sends when it is refused may call that an error of its own.
        codes = {code: details for _, code, details in streams if code not in (None, grpc.StatusCode.INTERNAL)}
        assert list(codes) == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        details = codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert details.startswith("128 streams (watches, reflection) are under way, the limit is 128")
        back = await one.stub.RollbackModel(pb.RollbackModelRequest(model="m"))
        assert back.model.stable_slot == "blue"
        for call in kept:
            call.cancel()
        while (await first())[1] is not None:  # their places are free as soon as the server has noticed
            await asyncio.sleep(0.01)


async def test_a_forced_load_and_what_the_repository_has() -> None:
    async with served() as one:
        one.shelf.variants = {(3, "int8"): ("it has no report",), (3, "fp16"): ()}
        reply = await one.load("red", 3, variant="int8", force=True, mutation=pb.Mutation(reason="why not"))
        (red,) = [slot for slot in reply.model.slots if slot.name == "red"]
        assert (red.forced, red.message) == ("it has no report", "forced: it has no report")
        found = await one.stub.GetModel(pb.GetModelRequest(model="m", available=True))
        assert [(each.revision.version, each.revision.variant) for each in found.available] == [
            (1, ""), (2, ""), (3, ""), (3, "fp16"), (3, "int8"),
        ]  # fmt: skip
        assert [list(each.doubts) for each in found.available[3:]] == [[], ["it has no report"]]
        assert not (await one.stub.GetModel(pb.GetModelRequest(model="m"))).available
        with pytest.raises(grpc.aio.AioRpcError, match=r"revision\.variant is 'INT8'"):
            await one.load("red", 3, variant="INT8")


def test_a_report_in_short() -> None:
    values = OutputParity("v", Kind.VALUES, 9, error_relative_max=0.25)
    artefact = Artefact(Revision("m", 1, "int8", "d"), open=lambda: nullcontext(), report=report(values))  # type: ignore[arg-type, return-value]
    told = available(artefact).report
    assert (told.error_relative_max, told.size_ratio, told.rows) == (0.25, 3.75, 1000)
    assert not told.HasField("agreement") and told.created_at.startswith("2026")
