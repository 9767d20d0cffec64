"""Traffic that never stops while slots are swapped and rolled back: nothing failed, lost or doubled, and every answer
is of the revision that it names."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from support.control import Control, S, Shelf
from support.virtual import VirtualLoop, virtual
from support.world import DECLARED, Outcome
from turnout.backends.synthetic import SyntheticModel
from turnout.core.tensors import Tensors
from turnout_wire.tensors import Array

SWAPS, ROLLBACKS = 100, 20


class Scaled(SyntheticModel):
    """y = version * x: the answer tells who gave it."""

    version = 1

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        return [array / 2 * self.version for array in super().run(inputs, outputs)]


def scaled(version: int) -> Scaled:
    model = Scaled(DECLARED)
    model.version = version
    return model


@virtual
async def test_a_hundred_swaps_and_twenty_rollbacks_under_load(loop: VirtualLoop) -> None:
    control = await Control.open(loop, shelf=Shelf(models={v: scaled(v) for v in (1, 2)}), pause_s=0.002)
    await control.load("green", 2)
    for version in (1, 2):
        control.shelf.model(version).wait = lambda rows: control.clock.spend(3_000_000)
    rng = random.Random(0)
    sent: list[tuple[float, int, Outcome]] = []
    done = False

    async def client() -> None:
        while not done:
            value = float(len(sent) + 1)
            generation = control.admin.fleet.model("m").route.generation  # type: ignore[union-attr]
            sent.append((value, generation, control.infer(value, sticky_key=rng.choice([None, "a", "b"]))))
            await asyncio.sleep(rng.expovariate(500))

    clients = [asyncio.ensure_future(client()) for _ in range(8)]
    for number in range(SWAPS):
        await asyncio.sleep(rng.expovariate(50))
        await control.swap(("green", "blue")[number % 2], bake_ns=600 * S)
        if number % 5 == 0:
            await asyncio.sleep(rng.expovariate(200))
            await control.roll_back()
            await control.swap(("green", "blue")[number % 2], bake_ns=600 * S)
    done = True
    await asyncio.gather(*clients)
    await asyncio.sleep(1)
    versions = {"blue": 1, "green": 2}
    generations = set()
    for value, generation, outcome in sent:
        assert outcome.calls == 1, "neither lost nor doubled"
        answer = outcome.response
        assert answer.revision.version == versions[answer.slot]
        assert (answer.outputs[0][1] == value * answer.revision.version).all(), "of the revision that it names"
        assert answer.generation == generation, "routed and leased at one moment"
        generations.add(answer.generation)
    assert len(sent) > 1_000
    assert len(generations) > SWAPS, "traffic met nearly every split"
    counted = Counter(outcome.response.slot for _, _, outcome in sent)
    assert min(counted.values()) > len(sent) / 5
    causes = Counter(line.cause for line in control.journal.lines("m", 1_000))
    assert causes["swap"] == SWAPS + ROLLBACKS
    assert causes["rollback"] == ROLLBACKS
