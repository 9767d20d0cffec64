"""What a model is before it serves: its artefacts, how to run them, and the specification that loading completes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum

from turnout.core.batch_policy import BatchPolicy
from turnout.core.gates import Golden
from turnout.core.ids import Revision
from turnout.core.tensors import Signature, Tensors
from turnout.core.variants import VariantReport

Options = tuple[tuple[str, str], ...]  # names and values, as ONNX Runtime takes them


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
    parallel: bool = False  # operators of one run side by side (ONNX Runtime's ORT_PARALLEL)
    cpu_arena: bool = True
    memory_pattern: bool = True
    session_entries: Options = ()  # session configuration entries, `session.…`
    run_entries: Options = ()  # run configuration entries, such as the arena's shrinkage
    disabled_optimizers: tuple[str, ...] = ()
    cuda: Options = ()  # options of the CUDA provider
    tensorrt: Options | None = None  # options of the TensorRT provider; None: only where the server's --provider says
    openvino: Options | None = None
    op_libraries: tuple[str, ...] = ()  # libraries of custom operators, by name in the model's folder


@dataclass(frozen=True, slots=True)
class OpenArtefact:
    """An artefact's files, open for reading: descriptors, so that what is loaded is what was checked.

    Attributes:
        model: the name of the model file among `files`.
        files: descriptors by path relative to the model file's folder, with `/`: the model and what may hold its
            weights. To be read at given offsets, or mapped: their own offset may be anywhere.
        libraries: descriptors of the model's operator libraries by name.
    """

    model: str
    files: Mapping[str, int]
    libraries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artefact:
    """A revision's files, hashed. `open` gives them for as long as its context lasts, and raises LoadError where they
    are no longer what was hashed. `problem` says why there are none. `golden` reads the revision's samples, if it has
    any, and raises LoadError where they cannot be read. `size_bytes` is that of all files. Of a variant, `golden` are
    the version's own, `report` says how it was made, and `doubts` why it may not serve unless somebody insists."""

    revision: Revision
    open: Callable[[], AbstractContextManager[OpenArtefact]]
    problem: str = ""
    golden: Callable[[], Golden | None] = lambda: None
    size_bytes: int = 0
    report: VariantReport | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """Data for warm-up that a configuration gives: inputs without open dimensions, run `count` times."""

    name: str
    inputs: Tensors
    count: int = 1


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model version ready to serve: configuration completed from, and checked against, the artefact."""

    signature: Signature
    platform: str
    config_wire: bytes  # the completed ModelConfig, serialised: opaque to everything but transport
    batch_inferred: bool = False  # rows_max was guessed from the file, not configured: warm-up must prove it
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    warmup: tuple[WarmupSample, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of outputs, for classification
    refuse_nonfinite: bool = False  # an answer with a NaN or an infinity is an error
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
