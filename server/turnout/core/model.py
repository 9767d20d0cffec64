"""What a model is before it serves: its artefacts, how to run them, and the specification that loading completes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from turnout.core.ids import Revision
from turnout.core.tensors import Signature


class Device(Enum):
    """Where a model's instances run; Triton's instance group kinds."""

    AUTO = "auto"  # the server's --provider decides
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Execution:
    """How a model is run. `instances` is the number of parallel runs (on a GPU: per device)."""

    instances: int = 1
    device: Device = Device.AUTO
    gpus: tuple[int, ...] = ()  # device ids; none: those of the server's --provider
    graph_level: int = 0  # Triton's optimization.graph.level: 0 all, -1 basic, 1 extended, 2 none
    intra_op_threads: int | None = None  # None: the server's setting
    inter_op_threads: int | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    """A revision's file, hashed. The path stays inside the server: no message carries it. `problem` says why there is
    no such file."""

    revision: Revision
    path: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model version ready to serve: configuration completed from, and checked against, the artefact."""

    signature: Signature
    platform: str
    config_wire: bytes  # the completed ModelConfig, serialised: opaque to everything but transport
    batch_inferred: bool = False  # rows_max was guessed from the file, not configured: warm-up must prove it
    warnings: tuple[str, ...] = field(default=())


def buckets(rows_max: int) -> tuple[int, ...]:
    """The batch sizes to warm: powers of two up to `rows_max`, and `rows_max` itself; (1,) without batching."""
    sizes = []
    size = 1
    while size < rows_max:
        sizes.append(size)
        size *= 2
    return (*sizes, max(rows_max, 1))


class Provider(Enum):
    """ONNX Runtime's execution provider, as the server's --provider names it."""

    AUTO = "auto"  # CUDA where it works, else CPU: the only one that may fall back
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where models run unless their configuration says otherwise."""

    provider: Provider
    devices: tuple[int, ...] = (0,)

    @classmethod
    def parse(cls, text: str) -> Placement:
        """`auto`, `cpu`, `cuda`, `cuda:0,1`, `tensorrt:1`.

        Raises:
            ValueError: naming the forms that there are.
        """
        name, colon, ids = text.partition(":")
        try:
            provider = Provider(name)
            devices = tuple(int(device) for device in ids.split(",")) if colon else (0,)
        except ValueError:
            devices = ()
        if not devices or min(devices) < 0 or len(set(devices)) != len(devices) or (colon and name in ("auto", "cpu")):
            raise ValueError(f"provider '{text}' is none of auto, cpu, cuda[:ID,...], tensorrt[:ID,...]")
        return cls(provider, devices)
