"""Proves a loaded revision before it is READY: memory, signature, golden samples, finite outputs. Blocks, so it runs
off the loop; what was loaded and warmed before stands for the gates before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from turnout.core.errors import LoadError
from turnout.core.gates import Gate, GateResult, Golden, Verdict, golden_difference, nonfinite, signature_difference
from turnout.core.model import ModelSpec
from turnout.core.tensors import Signature, Tensors
from turnout.core.variant_gates import golden_within_budget
from turnout.core.variants import VariantReport
from turnout.runtime.ports import Loaded, Session
from turnout_wire.tensors import Array

# What a request message has beside its tensors: names and shapes, at the least and at the most.
HEADER_BYTES_MIN = 1 << 10
HEADER_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class MessageLimit:
    """The largest request message that the server takes. It is known once every model of the start is loaded, and then
    stays: gRPC takes it when its server is made. 0: not known yet."""

    bytes_max: int = 0


@dataclass(slots=True)
class Gates:
    """What one load is held to; `results` fills while it is.

    Attributes:
        stable: the signature that clients know; None: there is no slot with traffic, or nothing is known of it.
        golden: reads the revision's samples; None: it has none.
        memory_left: bytes that it may take resident as things are now, which may be less than none; None: no bound.
        unknown: there is traffic, and what signature its clients know is not known.
        variant: the samples are its version's, and may be missed by as much as `report` (None: the usual budget)
            allows; where it is `forced`, by any amount.
    """

    stable: Signature | None
    allow_signature_change: bool
    golden: Callable[[], Golden | None]
    memory_left: Callable[[], int] | None = None
    unknown: bool = False
    variant: bool = False
    report: VariantReport | None = None
    forced: str = ""
    results: list[GateResult] = field(default_factory=list)

    def passed(self, gate: Gate) -> None:
        self.results.append(GateResult(gate, Verdict.PASS))

    def failed(self, error: LoadError, during: Gate) -> None:
        """What a load ended with, as the result of the gate that it came to, where that is not told yet."""
        if not any(result.verdict is Verdict.FAIL for result in self.results):
            self.results.append(GateResult(during, Verdict.FAIL, str(error)))

    def files(self, size_bytes: int) -> None:
        """Before a load: may it fit at all?

        Raises:
            LoadError: its files alone take more than is left by now.
        """
        if self.memory_left is not None:
            self._fits("its files take", size_bytes, self.memory_left())

    def memory(self, loaded: Loaded) -> None:
        """Raises:
        LoadError: it takes more than is left by now.
        """
        if self.memory_left is None:
            return
        taken, left = loaded.memory_bytes, self.memory_left()
        if taken is None:
            self.results.append(GateResult(Gate.MEMORY, Verdict.INCONCLUSIVE, "it was not measured"))
            return
        self._fits("it takes", taken, left)
        self.results.append(GateResult(Gate.MEMORY, Verdict.PASS, "", taken, left))

    def _fits(self, what: str, taken: int, left: int) -> None:
        if taken > left:
            message = f"{what} {taken} bytes, {max(left, 0)} are left for slots (--slot-memory-bytes-max)"
            self._fail(Gate.MEMORY, message, taken, left)

    def signature(self, spec: ModelSpec) -> None:
        """Raises:
        LoadError: clients of the stable slot would trip over it.
        """
        if self.unknown:
            note = "what clients know is not known: the slot with the traffic has not served since the server started"
            self.results.append(GateResult(Gate.SIGNATURE, Verdict.INCONCLUSIVE, note))
            return
        difference = signature_difference(self.stable, spec.signature) if self.stable else ""
        if difference and not self.allow_signature_change:
            self._fail(Gate.SIGNATURE, f"{difference}: clients may break; allow the change where they are ready for it")
        note = f"allowed: {difference}" if difference else ""
        self.results.append(GateResult(Gate.SIGNATURE, Verdict.PASS, note))

    def message(self, signature: Signature, limit: MessageLimit) -> str:
        """What operators should know: requests that the model takes and the server does not; "": there are none.

        Raises:
            LoadError: no request of the model fits a message.
        """
        if not limit.bytes_max:
            return ""
        least, most = signature.request_bytes_min() + HEADER_BYTES_MIN, signature.request_bytes_max()
        there_is = f"request messages may have {limit.bytes_max} (--message-bytes-max, fixed at start)"
        if least > limit.bytes_max:
            message = (
                f"its smallest request takes {least} bytes, {there_is}: restart with --message-bytes-max {least} or"
            )
            self._fail(Gate.MESSAGE, f"{message} more", least, limit.bytes_max)
        note = ""
        if most is not None and most + HEADER_BYTES_MIN > limit.bytes_max:
            note = (
                f"its largest request takes up to {most + HEADER_BYTES_MIN} bytes, {there_is}: larger ones are refused"
            )
        self.results.append(GateResult(Gate.MESSAGE, Verdict.PASS, note, least, limit.bytes_max))
        return note

    def samples(self, loaded: Loaded, spec: ModelSpec) -> None:
        """Raises:
        LoadError: its golden samples give something else here, or something that is not finite.
        """
        golden = self.golden()
        if golden is None:
            note = "it has no golden.npz"
            self.results += [GateResult(gate, Verdict.INCONCLUSIVE, note) for gate in (Gate.GOLDEN, Gate.FINITE)]
            return
        for session in {id(session): session for session in loaded.sessions}.values():
            try:
                actual = _run(session, golden, spec.signature.rows_max)
            except Exception as error:  # noqa: BLE001 - whatever a model run raises
                self._fail(Gate.GOLDEN, "the model fails to run on its golden samples", cause=error)
            if name := nonfinite(actual):
                self._fail(Gate.FINITE, f"output '{name}' holds a NaN or an infinity for its golden samples")
            result = self._golden(golden, actual)
            if result.verdict is Verdict.FAIL:
                self.results.append(result)
                raise LoadError(result.message)
        self.results += [result, GateResult(Gate.FINITE, Verdict.PASS)]

    def _golden(self, golden: Golden, actual: Tensors) -> GateResult:
        if not self.variant:
            return golden_difference(golden.outputs, actual, golden.rtol)
        result = golden_within_budget(golden.outputs, actual, self.report)
        if result.verdict is Verdict.FAIL and self.forced:
            return replace(result, verdict=Verdict.INCONCLUSIVE, message=f"in spite of this: {result.message}")
        return result

    def _fail(
        self, gate: Gate, message: str, observed: float = 0, limit: float = 0, cause: Exception | None = None
    ) -> None:
        self.results.append(GateResult(gate, Verdict.FAIL, message, observed, limit))
        raise LoadError(message) from cause


def _run(session: Session, golden: Golden, rows_max: int) -> dict[str, Array]:
    """All samples, in batches that the model takes; one run where it has no batch dimension."""
    names = tuple(golden.outputs)
    rows = {len(array) if array.ndim else 1 for array in golden.inputs.values()}
    if not rows_max or len(rows) != 1:
        return dict(zip(names, session.run(golden.inputs, names), strict=True))
    parts: list[list[Array]] = []
    for start in range(0, rows.pop(), rows_max):
        batch: Tensors = {
            name: np.ascontiguousarray(array[start : start + rows_max]) for name, array in golden.inputs.items()
        }
        parts.append(session.run(batch, names))
    return {name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(names)}
