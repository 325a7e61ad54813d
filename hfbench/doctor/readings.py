"""What the checks look at: the machine as it is now, and what params.yaml wants to do on it. Sizes are in bytes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Processor:
    """The CPUs and how busy they are; None where the machine does not tell."""

    usable_cores: int  # logical ones that this process may run on
    smt: bool | None
    governors: tuple[str, ...]
    boost: bool | None
    boost_off: str | None  # the command that switches boost off
    limit_cores: float | None  # a container's
    is_virtual: bool | None
    busy_percent: float | None  # of all CPUs, a moment ago
    load_average: float  # of the last minute


@dataclass(frozen=True)
class Memory:
    """The main memory."""

    available_bytes: int  # to this process: the least of the machine's and the container's
    total_bytes: int
    swap_used_bytes: int
    transparent_hugepages: str | None  # always, madvise or never


@dataclass(frozen=True)
class Accelerator:
    """One accelerator of this machine."""

    vendor: str
    kind: str  # as torch calls it: cuda, xpu, mps
    name: str
    memory_bytes: int | None
    persistence_mode: bool | None


@dataclass(frozen=True)
class Watched:
    """The accelerator that the measurement will run on, read now."""

    device: str
    name: str
    other_processes: int | None
    memory_used_bytes: int | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Disk:
    """A file system that hfbench writes to, and for what."""

    use: str
    path: Path
    free_bytes: int
    move_with: str | None  # the variable that names another folder


@dataclass(frozen=True)
class Plan:
    """What params.yaml wants."""

    device: str
    model_bytes: dict[str, int]  # weights of the models of the sweep that are resolved already


@dataclass(frozen=True)
class Readings:
    """All of it."""

    processor: Processor
    memory: Memory
    accelerators: tuple[Accelerator, ...]
    watched: Watched | None
    disks: tuple[Disk, ...]
    torch_version: str | None
    hidden: str | None  # the value of CUDA_VISIBLE_DEVICES, if it hides all
    plan: Plan
