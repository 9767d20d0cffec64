"""How much is measured: the three sizes of a benchmark, every number of rounds and seconds in one place."""

from __future__ import annotations

from dataclasses import dataclass


def _int8(*models: str) -> frozenset[str]:
    """Figures that need an int8 variant of one of these models."""
    return frozenset(
        f"int8_{what}_{model}" for what in ("agreement", "size_ratio", "throughput_ratio") for model in models
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds and seconds.

    Attributes:
        rounds, seconds, warmup_s: of closed loops against two contestants in turn; seconds are for each.
        reference_s: of the in-process model in each round.
        virtual_requests, virtual_seeds: of each simulated run; different arrivals for each seed.
        confirm_rounds, confirm_s: of default policy and best fixed delay against real servers, and of what is beside
            a figure.
        saturation_s: of each step of the search for it; `clients_max` bounds it.
        sweep_loads: shares of saturation; the one at 0.7 must be there. `sweep_s` for each.
        fixed_s: of each load against the model of fixed service time, in twice `rounds`; their calmer half counts.
        ceiling_s: of h2load in each round.
        left_out: figures that are measured only when they are asked for.
        swaps, rollbacks: under traffic; rollbacks come after every n-th swap, and are then timed as often again.
        change_every_s: from one of them to the next.
        loads: of the large model.
        shadow_s: of each round with a shadow, and of each without.
    """

    name: str
    rounds: int
    seconds: float
    warmup_s: float
    reference_s: float
    virtual_requests: int
    virtual_seeds: int
    confirm_rounds: int
    confirm_s: float
    saturation_s: float
    clients_max: int
    sweep_loads: tuple[float, ...]
    sweep_s: float
    fixed_s: float
    ceiling_s: float
    swaps: int
    rollbacks: int
    change_every_s: float
    loads: int
    shadow_s: float
    left_out: frozenset[str] = frozenset()


FULL = Plan(
    name="full",
    rounds=7,
    seconds=3.5,
    warmup_s=0.6,
    reference_s=2.0,
    virtual_requests=1600,
    virtual_seeds=3,
    confirm_rounds=3,
    confirm_s=6.0,
    saturation_s=3.0,
    clients_max=256,
    sweep_loads=(0.3, 0.5, 0.7, 0.8, 0.9, 0.95),
    sweep_s=5.0,
    fixed_s=2.5,
    ceiling_s=4.0,
    swaps=100,
    rollbacks=20,
    change_every_s=0.3,
    loads=5,
    shadow_s=5.0,
    left_out=frozenset(
        {
            "telemetry_p99_ratio",  # minutes, for four collectors that fail in different ways
            *("int8_throughput_ratio_digits", "int8_throughput_ratio_digits_cnn"),  # so small that calls decide
        }
    ),
)
QUICK = Plan(
    name="quick",
    rounds=2,
    seconds=0.4,
    warmup_s=0.1,
    reference_s=0.2,
    virtual_requests=200,
    virtual_seeds=2,
    confirm_rounds=1,
    confirm_s=0.6,
    saturation_s=0.3,
    clients_max=32,
    sweep_loads=(0.5, 0.7),
    sweep_s=0.6,
    fixed_s=0.4,
    ceiling_s=0.5,
    swaps=20,
    rollbacks=5,
    change_every_s=0.2,
    loads=3,
    shadow_s=3.0,
    left_out=frozenset(
        {
            *("swap_failed", "swap_p99_ratio", "rollback_ms", "load_loop_lag_ms"),
            *("shadow_p99_ratio", "telemetry_cpu_ratio", "telemetry_p99_ratio"),
            *_int8("digits", "digits_cnn", "mlp_big", "resnet50"),
        }
    ),
)
# Every line of code that a figure needs, and no claim to a result.
SMOKE = Plan(
    name="smoke",
    rounds=1,
    seconds=0.15,
    warmup_s=0.05,
    reference_s=0.02,
    virtual_requests=60,
    virtual_seeds=1,
    confirm_rounds=1,
    confirm_s=0.2,
    saturation_s=0.1,
    clients_max=8,
    sweep_loads=(0.7,),
    sweep_s=0.3,
    fixed_s=0.3,
    ceiling_s=0.2,
    swaps=4,
    rollbacks=2,
    change_every_s=0.2,
    loads=1,
    shadow_s=0.5,
    left_out=_int8("digits_cnn", "mlp_big", "resnet50"),  # those of digits run the same code
)
PLANS = {plan.name: plan for plan in (FULL, QUICK, SMOKE)}
