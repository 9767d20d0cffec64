"""A bounded piece of `make sim`, its determinism, and the control that it can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.simulate import Plan, run


@pytest.mark.parametrize("seed", range(60))
def test_the_invariants_hold(seed: int) -> None:
    run(Plan.draw(seed))


def test_a_seed_repeats_itself() -> None:
    assert run(Plan.draw(7)) == run(Plan.draw(7))
    assert run(Plan.draw(7)) != run(Plan.draw(8))


def test_a_broken_invariant_is_seen() -> None:
    plan = replace(Plan.draw(0), poison=0, cancel=0, deadline=0, unload_after=None, requests=100, run_ms=1, rows_max=8)
    run(plan)
    with pytest.raises(AssertionError, match="13: an answer changed"):
        run(replace(plan, break_reuse=True))
