"""A model that is loaded while the server runs fits the largest message, which is fixed by then, or is refused."""

from __future__ import annotations

import pytest

from support.control import Control
from support.virtual import VirtualLoop, virtual
from turnout.backends.synthetic import SyntheticModel
from turnout.core.errors import ControlError, Refusal
from turnout.core.gates import Gate, Verdict
from turnout.core.tensors import Signature, TensorSpec
from turnout_wire.tensors import DataType

LIMIT = 4096
ELEMENTS_FIT = (LIMIT - 1024) // 4  # a request's names and shapes have the rest


def wide(elements: int) -> SyntheticModel:
    x, y = (TensorSpec(name, DataType.FP32, (-1, elements)) for name in ("x", "y"))
    return SyntheticModel(Signature((x,), (y,)))


async def serving(loop: VirtualLoop, elements: int) -> Control:
    """Version 2 has rows of so many elements; version 1 was loaded before the limit was known."""
    control = await Control.open(loop)
    control.shelf.models[2] = wide(elements)
    control.controller.works.opener.message_limit.bytes_max = LIMIT
    return control


@virtual
async def test_a_model_that_no_request_could_reach_is_refused_with_what_it_needs(loop: VirtualLoop) -> None:
    control = await serving(loop, ELEMENTS_FIT + 1)
    with pytest.raises(ControlError) as caught:
        await control.load("green", 2, allow_signature_change=True)
    error = caught.value
    assert (error.refusal, error.metadata["gate"]) == (Refusal.GATE_FAILED, "message")
    assert (float(error.metadata["observed"]), float(error.metadata["limit"])) == (LIMIT + 4, LIMIT)
    assert f"takes {LIMIT + 4} bytes, request messages may have {LIMIT}" in error.message
    assert f"restart with --message-bytes-max {LIMIT + 4} or more" in error.message
    assert control.in_force == {"blue": 10_000}


@virtual
async def test_a_model_whose_largest_batch_does_not_fit_is_loaded_and_says_so(loop: VirtualLoop) -> None:
    control = await serving(loop, ELEMENTS_FIT)
    await control.load("green", 2, allow_signature_change=True)
    slot = control.controller.view("m").slots[1]
    assert "its largest request takes up to" in slot.message and "--message-bytes-max" in slot.message
    assert {result.gate: result.verdict for result in slot.gates}[Gate.MESSAGE] is Verdict.PASS


@virtual
async def test_a_model_that_fits_has_no_note(loop: VirtualLoop) -> None:
    control = await serving(loop, 4)
    await control.load("green", 2)
    assert control.controller.view("m").slots[1].message == ""
