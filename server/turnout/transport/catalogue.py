"""The RPCs that say what this server has: liveness, metadata, configuration, statistics, the repository index.

They read the fleet and change nothing. What Turnout does not do is answered here too, with what to use instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from turnout.core.errors import Reason, ServingError
from turnout.core.slots import SlotState
from turnout.core.tensors import TensorSpec
from turnout.runtime.account import Account, Outcome, Tally
from turnout.runtime.fleet import Fleet, Model
from turnout.runtime.ports import ClockNs
from turnout.runtime.slot import Cargo, Slot
from turnout.transport.codec import version_of
from turnout.transport.model_control import control_handlers
from turnout.transport.status import Context, UnaryHandler
from turnout.transport.variants import as_parameter, as_properties, index_note
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.gen import model_config_pb2

EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "statistics")

_UNSUPPORTED = {
    "SystemSharedMemoryStatus": "Turnout has no shared memory: send tensors in the request",
    "SystemSharedMemoryRegister": "Turnout has no shared memory: send tensors in the request",
    "SystemSharedMemoryUnregister": "Turnout has no shared memory: send tensors in the request",
    "CudaSharedMemoryStatus": "Turnout has no shared memory: send tensors in the request",
    "CudaSharedMemoryRegister": "Turnout has no shared memory: send tensors in the request",
    "CudaSharedMemoryUnregister": "Turnout has no shared memory: send tensors in the request",
    "TraceSetting": "tracing cannot be set by RPC",
    "LogSettings": "logging cannot be set by RPC: use --log-level when starting the server",
}
_INDEX_STATE = {
    SlotState.EMPTY: "UNAVAILABLE",
    SlotState.LOADING: "LOADING",
    SlotState.WARMING: "LOADING",
    SlotState.READY: "READY",
    SlotState.DRAINING: "UNLOADING",
    SlotState.FAILED: "UNAVAILABLE",
}


@dataclass(frozen=True)
class Catalogue:
    """Answers questions about the server and its models.

    Args:
        ready: whether the server takes requests.
        control: the two RPCs that load and unload models.
    """

    fleet: Fleet
    server_name: str
    server_version: str
    ready: Callable[[], bool]
    clock_ns: ClockNs
    control: Mapping[str, UnaryHandler] = field(default_factory=lambda: control_handlers(None))

    def handlers(self) -> dict[str, UnaryHandler]:
        """By RPC name."""
        answers: dict[str, Callable[[bytes], bytes]] = {
            "ServerLive": lambda raw: pb.ServerLiveResponse(live=True).SerializeToString(),
            "ServerReady": lambda raw: pb.ServerReadyResponse(ready=self.ready()).SerializeToString(),
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
        }
        answers |= {name: _unsupported(name, instead) for name, instead in _UNSUPPORTED.items()}
        return {name: _handler(answer) for name, answer in answers.items()} | dict(self.control)

    def _server_metadata(self, raw: bytes) -> bytes:
        return pb.ServerMetadataResponse(
            name=self.server_name, version=self.server_version, extensions=EXTENSIONS
        ).SerializeToString()

    def _model_ready(self, raw: bytes) -> bytes:
        request = pb.ModelReadyRequest.FromString(raw)
        version = version_of(request.version)
        try:
            ready = self.fleet.model(request.name).answers(version)
        except ServingError:
            ready = False
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    def _model_metadata(self, raw: bytes) -> bytes:
        request = pb.ModelMetadataRequest.FromString(raw)
        model, slot, cargo = self._find(request.name, request.version)
        versions = {slot_version(s) for s in ([slot] if request.version else model.ready_slots())}
        metadata = pb.ModelMetadataResponse(
            name=model.name,
            versions=[str(version) for version in sorted(versions)],
            platform=cargo.spec.platform,
            inputs=[_tensor(spec) for spec in cargo.spec.signature.inputs],
            outputs=[_tensor(spec) for spec in cargo.spec.signature.outputs],
        )
        return metadata.SerializeToString() + as_properties(as_parameter(model, version_of(request.version)))

    def _model_config(self, raw: bytes) -> bytes:
        request = pb.ModelConfigRequest.FromString(raw)
        model, _, cargo = self._find(request.name, request.version)
        config = model_config_pb2.ModelConfig.FromString(cargo.spec.config_wire)
        for name, text in as_parameter(model, version_of(request.version)).items():
            config.parameters[name].string_value = text
        return pb.ModelConfigResponse(config=config).SerializeToString()

    def _model_statistics(self, raw: bytes) -> bytes:
        request = pb.ModelStatisticsRequest.FromString(raw)
        models = list(self.fleet)
        if request.name:
            try:
                models = [self._find(request.name, request.version)[0]]
            except ServingError as error:
                raise ServingError(Reason.INVALID_REQUEST, error.message) from None
        version = version_of(request.version)
        reply = pb.ModelStatisticsResponse()
        for model in models:
            by_version: dict[int, list[Slot]] = {}
            for slot in model.ready_slots():
                by_version.setdefault(slot_version(slot), []).append(slot)
            for number, slots in sorted(by_version.items()):
                if version in (None, number):
                    reply.model_stats.append(self._statistics(model.name, number, [s.account for s in slots]))
        return reply.SerializeToString()

    def _statistics(self, name: str, version: int, accounts: list[Account]) -> pb.ModelStatistics:
        """One row per numeric version, summed over the slots that hold it."""
        row = pb.ModelStatistics(name=name, version=str(version))
        stats = row.inference_stats
        for account in accounts:
            tallies = {outcome: account.tally(outcome) for outcome in Outcome}
            for outcome, tally in tallies.items():
                _add(stats.success if outcome is Outcome.SUCCESS else stats.fail, tally.requests, tally.duration_ns)
            done = tallies[Outcome.SUCCESS]
            row.inference_count += done.rows
            _add_compute(stats, done)
            _add(stats.queue, done.requests, done.queue_ns)
            row.execution_count += sum(batch.runs for batch in account.batches.values())
            if account.last_success_ns is not None:
                age_ns = self.clock_ns() - account.last_success_ns
                row.last_inference = max(row.last_inference, (time.time_ns() - age_ns) // 1_000_000)
        for size in sorted({size for account in accounts for size in account.batches}):
            entry = row.batch_stats.add(batch_size=size)
            for account in accounts:
                if (batch := account.batches.get(size)) is not None:
                    _add(entry.compute_input, batch.runs, batch.compute_input_ns)
                    _add(entry.compute_infer, batch.runs, batch.compute_infer_ns)
                    _add(entry.compute_output, batch.runs, batch.compute_output_ns)
        return row

    def _repository_index(self, raw: bytes) -> bytes:
        request = pb.RepositoryIndexRequest.FromString(raw)
        if request.repository_name:
            raise ServingError(Reason.UNSUPPORTED, "this server has one repository: leave repository_name empty")
        reply = pb.RepositoryIndexResponse()
        for model in self.fleet:
            if not model.slots and not request.ready:
                reply.models.add(name=model.name, state="UNAVAILABLE", reason=model.problem)
            for slot in sorted(model.slots.values(), key=slot_version):
                if slot.state is SlotState.READY or not request.ready:
                    reply.models.add(
                        name=model.name,
                        version=str(slot_version(slot)),
                        state=_INDEX_STATE[slot.state],
                        reason="; ".join(filter(None, (slot.message, index_note(model, slot)))),
                    )
        return reply.SerializeToString()

    def _find(self, name: str, version: str) -> tuple[Model, Slot, Cargo]:
        model = self.fleet.model(name)
        slot = model.slot_of(version_of(version))
        return model, slot, slot.ready()


def slot_version(slot: Slot) -> int:
    return slot.revision.version if slot.revision is not None else 0


def _handler(answer: Callable[[bytes], bytes]) -> UnaryHandler:
    async def handle(raw: bytes, context: Context) -> bytes:
        return answer(raw)

    return handle


def _unsupported(name: str, instead: str) -> Callable[[bytes], bytes]:
    def answer(raw: bytes) -> bytes:
        raise ServingError(Reason.UNSUPPORTED, f"{name} is not supported: {instead}")

    return answer


def _tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype.value, shape=spec.shape)


def _add(duration: pb.StatisticDuration, count: int, ns: int) -> None:
    duration.count += count
    duration.ns += ns


def _add_compute(stats: pb.InferStatistics, tally: Tally) -> None:
    _add(stats.compute_input, tally.requests, tally.compute_input_ns)
    _add(stats.compute_infer, tally.requests, tally.compute_infer_ns)
    _add(stats.compute_output, tally.requests, tally.compute_output_ns)
