"""Messages of a server, read into values: answers, and what a stream says of a request that failed."""

from __future__ import annotations

from typing import Any

from turnout_client.answers import (
    Answer,
    IndexEntry,
    ModelMetadata,
    ParameterValue,
    ServerMetadata,
    TensorMetadata,
)
from turnout_client.errors import InferenceError, error_id_of
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.tensors import Array, DataType, TensorError, from_contents, from_raw

_CODE = "turnout_code"  # response parameters of a request that failed inside a stream
_REASON = "turnout_reason"
_PUSHBACK = "turnout_retry_after_ms"


def answer_of(message: pb.ModelInferResponse) -> Answer:
    """Raises InferenceError (INTERNAL) where the message is no answer."""
    parameters = {name: _value(parameter) for name, parameter in message.parameters.items()}
    generation = parameters.get("turnout_generation", 0)
    return Answer(
        _outputs(message),
        message.model_name,
        message.model_version,
        str(parameters.get("turnout_slot", "")),
        str(parameters.get("turnout_revision", "")),
        generation if isinstance(generation, int) else 0,
        str(parameters.get("inference_id", message.id)),
        parameters,
    )


def stream_error(message: pb.ModelStreamInferResponse) -> InferenceError:
    """Why a request of a stream failed. A server that is no Turnout says no more than a text: UNKNOWN."""
    said = {name: _value(parameter) for name, parameter in message.infer_response.parameters.items()}
    after_ms = said.get(_PUSHBACK)
    return InferenceError(
        str(said.get(_CODE, "UNKNOWN")),
        message.error_message,
        str(said.get(_REASON, "")),
        after_ms / 1000 if isinstance(after_ms, int) else None,
        error_id_of(message.error_message),
    )


def model_metadata_of(message: pb.ModelMetadataResponse) -> ModelMetadata:
    return ModelMetadata(
        message.name,
        tuple(message.versions),
        message.platform,
        tuple(TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in message.inputs),
        tuple(TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in message.outputs),
    )


def server_metadata_of(message: pb.ServerMetadataResponse) -> ServerMetadata:
    return ServerMetadata(message.name, message.version, tuple(message.extensions))


def index_of(message: pb.RepositoryIndexResponse) -> list[IndexEntry]:
    return [IndexEntry(row.name, row.version, row.state, row.reason) for row in message.models]


def _outputs(message: pb.ModelInferResponse) -> dict[str, Array]:
    raws = message.raw_output_contents
    if raws and len(raws) != len(message.outputs):
        raise _unreadable(f"it has {len(message.outputs)} outputs and {len(raws)} raw_output_contents")
    outputs: dict[str, Array] = {}
    for index, tensor in enumerate(message.outputs):
        try:
            datatype = DataType(tensor.datatype)
            if raws:
                outputs[tensor.name] = from_raw(raws[index], datatype, tensor.shape)
            else:
                outputs[tensor.name] = _typed(tensor, datatype)
        except (TensorError, ValueError) as error:  # the latter: a datatype that the protocol does not have
            raise _unreadable(f"output '{tensor.name}': {error}") from None
    return outputs


def _typed(tensor: Any, datatype: DataType) -> Array:
    field = datatype.contents_field
    if field is None:
        raise TensorError(f"{datatype.value} has no typed contents")
    return from_contents(getattr(tensor.contents, field), datatype, tensor.shape)


def _value(parameter: pb.InferParameter) -> ParameterValue:
    kind = parameter.WhichOneof("parameter_choice")
    value: ParameterValue = getattr(parameter, kind) if kind else ""
    return value


def _unreadable(why: str) -> InferenceError:
    return InferenceError("INTERNAL", f"the answer cannot be read: {why}")
