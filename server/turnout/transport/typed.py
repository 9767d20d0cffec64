"""The models' own services, `/turnout.models.Digits/Predict`: those of the models that there are, as they come and go.

A service has the signature that clients of the model know, its stable slot's, and is replaced when that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from turnout.core.tensors import Signature, TensorSpec
from turnout.runtime.counts import Counts
from turnout.runtime.fleet import Fleet
from turnout.runtime.ports import Observer
from turnout.transport.counting import counted
from turnout.transport.inference import InferenceHandlers
from turnout.transport.plan import DecodeLimits
from turnout.transport.reflection import Reflection
from turnout.transport.rpcs import Method
from turnout.transport.status import StatusTable, guarded, guarded_stream
from turnout.transport.typed_codec import TypedCodec
from turnout_wire.typed import ModelService, Tensor, model_service


class ModelServices:
    """Follows the fleet: call `refresh` after each change of it.

    Attributes:
        handlers: by path.
    """

    def __init__(
        self,
        fleet: Fleet,
        inference: InferenceHandlers,
        limits: DecodeLimits,
        table: StatusTable,
        observer: Observer,
        counts: Counts,
        reflection: Reflection,
    ) -> None:
        self.handlers: dict[str, Method] = {}
        self._fleet = fleet
        self._inference = inference
        self._limits = limits
        self._table = table
        self._observer = observer
        self._counts = counts
        self._reflection = reflection
        self._served: dict[str, tuple[Signature, ModelService]] = {}

    def refresh(self) -> None:
        """Neither blocks nor raises; touches only the models whose signature has changed."""
        signatures = {model.name: model.clients_know(model.route) for model in self._fleet}
        served = dict(self._served)
        for name, (before, service) in served.items():
            if signatures.get(name) != before:
                del self._served[name], self.handlers[service.predict_path], self.handlers[service.stream_path]
        for name, signature in signatures.items():
            if signature is not None and name not in self._served:
                service = model_service(name, _tensors(signature.inputs), _tensors(signature.outputs))
                if service.predict_path not in self.handlers:  # two names of one hash: the first has it
                    self._served[name] = signature, service
                    self._serve(service)
        for name, (_, service) in served.items():
            if name not in self._served:
                for path in (service.predict_path, service.stream_path):
                    self._counts.forget_calls(path.removeprefix("/"))
        if self._served != served:
            self._reflection.serve_also([service for _, service in self._served.values()])

    def _serve(self, service: ModelService) -> None:
        codec = TypedCodec(service, self._limits)
        unary = guarded(codec.unary, partial(self._inference.infer, dialect=codec), self._observer, self._table)
        stream = guarded_stream(
            codec.stream, partial(self._inference.stream, dialect=codec), self._observer, self._table
        )
        self.handlers[service.predict_path] = Method(counted(service.predict_path, unary, self._counts))
        self.handlers[service.stream_path] = Method(counted(service.stream_path, stream, self._counts))


def _tensors(specs: Iterable[TensorSpec]) -> Sequence[Tensor]:
    return [Tensor(spec.name, spec.datatype, spec.shape, spec.optional) for spec in specs]
