"""Reports of variants for tests that have no files."""

from __future__ import annotations

from turnout.core.parity import Kind, OutputParity
from turnout.core.variants import Budget, Samples, VariantReport

LABELS = OutputParity("y", Kind.LABELS, 1000, agreement=0.995)


def report(*outputs: OutputParity, **changed: object) -> VariantReport:
    """One that stands, of outputs (none: labels that agree)."""
    fields: dict[str, object] = {
        "model": "m",
        "version": 1,
        "variant": "int8",
        "recipe": {"method": "dynamic"},
        "source_digest": "a" * 64,
        "result_digest": "b" * 64,
        "source_bytes": 3750,
        "result_bytes": 1000,
        "libraries": {},
        "machine": {},
        "samples": Samples(1000, "a test"),
        "budget": Budget(),
        "outputs": outputs or (LABELS,),
        "accuracy": None,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return VariantReport(**(fields | changed))  # type: ignore[arg-type]
