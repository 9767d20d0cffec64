"""What the users of one process share: options, samples, rules, account."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import grpc

from turnout_locust.account import Account
from turnout_locust.calls import channel
from turnout_locust.expected import Sample, read_samples
from turnout_locust.options import Options
from turnout_locust.oversized import Oversized, oversized
from turnout_locust.rules import Rules
from turnout_locust.scenarios import LoadTestError
from turnout_wire.gen import grpc_service_pb2 as pb
from turnout_wire.service import GRPCInferenceServiceStub

_TEXTS_MAX = 50  # each different text of a failure is a row of Locust's, and one more in every report of a worker
_ANSWER_S_MAX = 10.0


@dataclass(slots=True)
class Load:
    """Attributes:
    name: of this process, different from those of all others.
    """

    options: Options
    samples: list[Sample]
    oversized: list[Oversized]
    rules: Rules = field(default_factory=Rules)
    account: Account = field(default_factory=Account)
    name: str = ""
    _texts: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """A new run."""
        self.rules, self.account = Rules(), Account()
        self.name = f"user-{os.getpid()}"
        self._texts.clear()

    def bounded(self, fault: str) -> str:
        """The text of a fault, or how it begins where there were many different ones."""
        if fault not in self._texts and len(self._texts) >= _TEXTS_MAX:
            return fault.partition(":")[0] + ": more of this kind, with other details"
        self._texts.add(fault)
        return fault


def prepare(options: Options) -> Load:
    """Reads the samples and asks the server whether the model batches.

    Raises:
        LoadTestError: they, the server or the model are not there.
    """
    rows_max = _batch_rows_max(options.host, options.model)
    samples = read_samples(options.expected, options.model, batched=rows_max > 0, versions=options.versions)
    too_large = oversized(samples[0], rows_max, options.message_bytes_max) if options.scenario.storms else []
    if options.scenario.storms and not too_large:
        raise LoadTestError(
            f"model '{options.model}' does not batch, and the server's message limit is not known: MESSAGE_BYTES_MAX="
        )
    return Load(options, samples, too_large)


def _batch_rows_max(host: str, model: str) -> int:
    """Of the model's configuration; 0: it does not batch."""
    with channel(host) as connection:
        stub = GRPCInferenceServiceStub(connection)
        try:
            reply = stub.ModelConfig(
                pb.ModelConfigRequest(name=model), timeout=_ANSWER_S_MAX, wait_for_ready=True
            )
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            said = f"{error.code().name} {error.details()}"
            raise LoadTestError(f"the server at {host} does not serve model '{model}': {said}") from None
    return int(reply.config.max_batch_size)
