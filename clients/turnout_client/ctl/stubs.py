"""A model's own .proto and Python client, from what a running server says of the model."""

from __future__ import annotations

from turnout_client.answers import TensorMetadata
from turnout_client.ctl.proto_text import proto_text
from turnout_client.ctl.python_text import python_text
from turnout_client.errors import InferenceError
from turnout_client.sync import Client
from turnout_wire.tensors import DataType
from turnout_wire.typed import ModelService, Tensor, model_service
from turnout_wire.typed_names import file_stem


def stubs(endpoint: str, model: str, version: str, timeout_s: float) -> dict[str, str]:
    """The texts by file name. Raises InferenceError."""
    service, rows_max = asked(endpoint, model, version, timeout_s)
    stem = file_stem(model)
    return {f"{stem}.proto": proto_text(service, rows_max), f"{stem}_client.py": python_text(service, rows_max)}


def asked(endpoint: str, model: str, version: str, timeout_s: float) -> tuple[ModelService, int]:
    """A model's service, and the rows that it takes at once; 0: it has no batch dimension. Raises InferenceError."""
    with Client(endpoint, timeout_s=timeout_s, wait_for_ready=False) as client:
        metadata = client.model_metadata(model, version)
        config = client.model_config(model, version)
    optional = {given.name for given in config.input if given.optional}
    inputs = [_tensor(given, given.name in optional) for given in metadata.inputs]
    return model_service(model, inputs, map(_tensor, metadata.outputs)), config.max_batch_size


def _tensor(given: TensorMetadata, optional: bool = False) -> Tensor:
    try:
        datatype = DataType(given.datatype)
    except ValueError:
        raise InferenceError(
            "UNIMPLEMENTED",
            f"tensor '{given.name}' has datatype '{given.datatype[:32]}', which the protocol does not have: no "
            "field can hold it",
        ) from None
    return Tensor(given.name, datatype, given.shape, optional)
