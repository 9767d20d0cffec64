"""What the users of one process share: options, samples, rules, account."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import grpc

from turnout_locust.account import Account
from turnout_locust.calls import LOST, channel, status
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
    rules: Rules
    account: Account = field(default_factory=Account)
    name: str = field(default_factory=lambda: f"user-{os.getpid()}")
    _texts: set[str] = field(default_factory=set)

    def bounded(self, fault: str) -> str:
        """The text of a fault, or how it begins where there were many different ones."""
        if fault not in self._texts and len(self._texts) >= _TEXTS_MAX:
            return fault.partition(":")[0] + ": more of this kind, with other details"
        self._texts.add(fault)
        return fault


def prepared(options: Options, rules: Rules) -> Load:
    """Reads the samples.

    Raises:
        LoadTestError: they are not there, or not what the scenario needs.
    """
    samples = read_samples(options.expected, options.model, options.batch_rows_max > 0, options.versions)
    storms = options.scenario.storms
    too_large = oversized(samples[0], options.batch_rows_max, options.message_bytes_max) if storms else []
    if storms and not too_large:
        raise LoadTestError(
            f"model '{options.model}' does not batch, and the server's message limit is not known: MESSAGE_BYTES_MAX="
        )
    return Load(options, samples, too_large, rules)


def batch_rows_max(host: str, model: str) -> int:
    """Of the model's configuration, as the server has it; 0: it does not batch.

    Raises:
        LoadTestError: the server or the model is not there.
    """
    with channel(host) as connection:
        stub = GRPCInferenceServiceStub(connection)
        try:
            reply = stub.ModelConfig(pb.ModelConfigRequest(name=model), timeout=_ANSWER_S_MAX, wait_for_ready=True)
        except grpc.RpcError as error:
            code, details = status(error)
            said = f"no answer within {_ANSWER_S_MAX:g} s" if code == LOST else f"{code} {details}"
            raise LoadTestError(f"the server at {host} does not serve model '{model}': {said}") from None
    return int(reply.config.max_batch_size)
