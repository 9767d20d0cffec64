"""Shadow rules for tests."""

from __future__ import annotations

from typing import Any

from turnout.core.shadow_rules import ShadowRule


def shadow_rule(slot: str, sample_bp: int = 10_000, **more: Any) -> ShadowRule:
    """Copies of everything, bounded, without noise or comparators; unless told otherwise."""
    known = {"salt": "", "comparators": (), "queue_max": 64, "bytes_max": 1 << 20, "deadline_ns": 10**9, "noise_bp": 0}
    return ShadowRule(slot, sample_bp, **{**known, **more})
