"""Requests that a server must refuse because of their size, each with the status that it then answers."""

from __future__ import annotations

from dataclasses import dataclass

from turnout_locust.expected import Sample
from turnout_wire.gen import grpc_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Oversized:
    """`name`: its row in the statistics; `status`: the code that it must be refused with."""

    name: str
    request: pb.ModelInferRequest
    status: str


def oversized(sample: Sample, batch_rows_max: int, message_bytes_max: int) -> list[Oversized]:
    """One row too many for the model's batches, and a message beyond the server's limit. 0: there is no such limit, or
    it is not known."""
    found = []
    if batch_rows_max:
        found.append(Oversized("too many rows", _repeated(sample.request, batch_rows_max + 1), "INVALID_ARGUMENT"))
    if message_bytes_max:
        # The size alone is refused, before anything of the message is read.
        message = pb.ModelInferRequest(model_name=sample.request.model_name)
        message.raw_input_contents.append(bytes(message_bytes_max))
        found.append(Oversized("message too large", message, "RESOURCE_EXHAUSTED"))
    return found


def _repeated(request: pb.ModelInferRequest, rows: int) -> pb.ModelInferRequest:
    """A request of one row, with that row many times."""
    message = pb.ModelInferRequest()
    message.CopyFrom(request)
    for tensor in message.inputs:
        tensor.shape[0] = rows
    message.raw_input_contents[:] = [raw * rows for raw in request.raw_input_contents]
    return message
