"""The command `hfbench doctor`: is this machine fit to measure what params.yaml asks for?"""

import io
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfbench.core.system import FILESYSTEM
from hfbench.environment.accelerators import describe_accelerators
from hfbench.environment.describe import cpu_limit, describe_memory, describe_system, memory_limit
from hfbench.environment.processor import BOOST, NO_TURBO, describe_cpu
from hfbench.model.cache import cache_folder
from hfbench.model.manifest import read_previous
from hfbench.monitoring.monitor import machine_before, open_devices
from hfbench.params.schema import Params, load_params

Level = Literal["ok", "note", "warning"]


@dataclass(frozen=True)
class Finding:
    """One result: `what` in a sentence, `remedy` as a command or an instruction, if there is one.

    A warning is likely to change what is measured, or stops it; a note is worth knowing when numbers are read.
    """

    level: Level
    what: str
    remedy: str | None = None


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


# What the version of torch ends in when it was built for a vendor; the build without an ending is NVIDIA's on Linux.
_BUILDS = {"nvidia": ("cu", ""), "amd": ("rocm",), "intel": ("xpu",), "apple": ("",)}


def check_device(readings: Readings) -> Finding | None:
    """Warn where params.yaml asks for a device that is not here."""
    asked = readings.plan.device
    kind, _, number = asked.partition(":")
    present = [accelerator for accelerator in readings.accelerators if accelerator.kind == kind]
    if kind in ("auto", "cpu"):
        name = readings.watched.name if readings.watched and _is_usable(readings) else "the CPU"
        return Finding("ok", f"device: {asked} means {name} here.")
    if kind == "cuda" and present and readings.hidden is not None:
        return Finding(
            "warning",
            f"CUDA_VISIBLE_DEVICES is {readings.hidden!r} and hides the {kind} devices that params.yaml asks for.",
            "unset CUDA_VISIBLE_DEVICES",
        )
    if int(number or 0) < len(present):
        return Finding("ok", f"device: {asked} is {present[int(number or 0)].name}.")
    found = f"{len(present)} {kind} device" + "s" * (len(present) > 1) if present else f"no {kind} device"
    return Finding(
        "warning",
        f"params.yaml asks for device {asked}, and {found} was found: every point would be recorded as unsupported.",
        "Set `device: auto` in params.yaml, or look whether the driver works (nvidia-smi, rocm-smi, xpu-smi).",
    )


def check_torch_build(readings: Readings) -> Finding | None:
    """Warn where torch cannot use the accelerator that is here."""
    version = readings.torch_version
    if version is None or not readings.accelerators or readings.plan.device == "cpu":
        return None
    if _is_usable(readings):
        return Finding("ok", f"torch {version} is built for this accelerator.")
    return Finding(
        "warning",
        f"torch {version} is not built for {readings.accelerators[0].name}: points would run on the CPU or not at all.",
        "Install the build of torch for it: pytorch.org says how, under Get Started.",
    )


def _is_usable(readings: Readings) -> bool:
    """Whether torch is built for any of the accelerators."""
    build = (readings.torch_version or "").partition("+")[2].rstrip(".0123456789")
    return any(build in _BUILDS.get(accelerator.vendor, ()) for accelerator in readings.accelerators)


def check_device_processes(readings: Readings) -> Finding | None:
    """Warn where others compute on the device."""
    watched = readings.watched
    if watched is None or watched.other_processes is None:
        return None
    if watched.other_processes == 0:
        return Finding("ok", f"No other process computes on {watched.name}.")
    count = watched.other_processes
    return Finding(
        "warning",
        f"{count} other process{'es' * (count > 1)} hold{'s' * (count == 1)} memory on {watched.name} "
        "and may compute on it.",
        f"End {'them' if count > 1 else 'it'}; `nvidia-smi` (or `rocm-smi --showpids`) shows which.",
    )


def check_persistence_mode(readings: Readings) -> Finding | None:
    """Warn where NVIDIA's driver lets go of the GPU between two processes."""
    states = [gpu.persistence_mode for gpu in readings.accelerators if gpu.persistence_mode is not None]
    if not states or readings.plan.device == "cpu":
        return None
    if all(states):
        return Finding("ok", "Persistence mode is on.")
    return Finding(
        "warning",
        "Persistence mode is off: the driver starts the GPU anew for each process, which takes seconds a point "
        "and forgets clocks that were set.",
        "sudo nvidia-smi -pm 1",
    )


# Of the weights' size. Loaded in float32, files of bfloat16 take twice their size; loaded as they are, the cache of
# keys and values and the activations of a benchmark are well within as much again.
_MEMORY_FACTOR = 2.0
# Of the main memory. Less than this was written out long ago and is not missed.
_SWAP_SHARE = 0.01
# Compile caches, records and tables of a sweep stay well below; a model comes on top.
_LEAST_FREE_BYTES = 5 * 10**9


def check_memory(readings: Readings) -> Finding | None:
    """Compare the free memory with the largest model's need, as far as models are resolved."""
    if not readings.plan.model_bytes:
        return Finding(
            "note",
            "No model of the sweep is resolved yet, so that its need of memory is not known.",
            "dvc repro model, then hfbench doctor again",
        )
    name, weights = max(readings.plan.model_bytes.items(), key=lambda model: model[1])
    where, free = _memory_to_use(readings)
    if free is None:
        return None
    told = f"{where} has {_gb(free)} free; the weights of {name} take {_gb(weights)}"
    if free < weights:
        return Finding("warning", f"{told}: it does not fit.", "Free memory, or measure a smaller model.")
    if free < _MEMORY_FACTOR * weights:
        return Finding(
            "note",
            f"{told}: in the files' dtype it fits; float32, a large batch or a long sequence may not.",
            "Points that do not fit are recorded as out_of_memory.",
        )
    return Finding("ok", f"{told}.")


def check_swap(readings: Readings) -> Finding | None:
    """Warn where memory was written out to disk."""
    used = readings.memory.swap_used_bytes
    if used <= _SWAP_SHARE * readings.memory.total_bytes:
        return Finding("ok", "No swap is in use." if used == 0 else f"Little swap is in use ({_gb(used)}).")
    return Finding(
        "warning",
        f"{_gb(used)} of swap are in use: what was written out to disk is slow when it is needed again.",
        "sudo swapoff -a && sudo swapon -a  (needs as much free memory)",
    )


def check_hugepages(readings: Readings) -> Finding | None:
    """Note where the kernel gives no huge pages."""
    setting = readings.memory.transparent_hugepages
    if setting != "never":
        return None
    return Finding(
        "note",
        "Transparent huge pages are off: on the CPU, large weights cost more address translation.",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )


def check_disks(readings: Readings) -> Finding | None:
    """Warn where the fullest file system has little room."""
    if not readings.disks:
        return None
    disk = min(readings.disks, key=lambda disk: disk.free_bytes)
    told = f"{disk.path} ({disk.use}) has {_gb(disk.free_bytes)} free."
    if disk.free_bytes >= _LEAST_FREE_BYTES:
        return Finding("ok", told)
    move = f", or set {disk.move_with} to a folder on another disk" if disk.move_with else ""
    return Finding("warning", told, f"Free some space{move}.")


def _memory_to_use(readings: Readings) -> tuple[str, int | None]:
    watched = readings.watched
    if watched is None:
        return "The main memory", readings.memory.available_bytes
    if watched.memory_bytes is None or watched.memory_used_bytes is None:
        return watched.name, None
    return watched.name, watched.memory_bytes - watched.memory_used_bytes


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 10**9:.1f} GB"


# A measurement uses all cores: what keeps a tenth of them busy costs it about as much, ten times the precision that
# params.yaml asks for by default.
_BUSY_SHARE = 0.1


def check_load(readings: Readings) -> Finding | None:
    """Warn where other work runs now; note where it did in the last minute."""
    processor = readings.processor
    busy = processor.busy_percent
    if busy is not None and busy > 100 * _BUSY_SHARE:
        return Finding(
            "warning",
            f"Other programs keep {busy:.0f}% of the CPUs busy.",
            "End them, or wait; `top` shows which they are.",
        )
    if processor.load_average > processor.usable_cores * _BUSY_SHARE:
        return Finding(
            "note",
            f"The load average of the last minute is {processor.load_average:.2f}; the CPUs are idle now.",
            "If something runs every few minutes, stop it while measuring.",
        )
    return Finding("ok", f"The CPUs are idle (load average {processor.load_average:.2f}).")


def check_governor(readings: Readings) -> Finding | None:
    """Warn where a core's clock follows its load. Nothing to say where the kernel sets no clocks."""
    governors = readings.processor.governors
    if not governors:
        return None
    if governors == ("performance",):
        return Finding("ok", "The CPU governor is performance.")
    return Finding(
        "warning",
        f"The CPU governor is {' and '.join(governors)}: clocks follow the load, and short iterations begin slow.",
        "sudo cpupower frequency-set -g performance",
    )


def check_boost(readings: Readings) -> Finding | None:
    """Note where clocks go above the nominal one as heat and neighbouring cores allow."""
    processor = readings.processor
    if processor.boost is None:
        return None
    if not processor.boost:
        return Finding("ok", "Turbo is off: clocks do not depend on the temperature.")
    return Finding(
        "note",
        "Turbo is on: clocks fall as the machine warms up. Leave it on for numbers as in daily use; "
        "switch it off to compare small differences.",
        processor.boost_off,
    )


def check_smt(readings: Readings) -> Finding | None:
    """Note where two logical CPUs share a core."""
    if not readings.processor.smt:
        return None
    return Finding(
        "note",
        "Two logical CPUs share a core (SMT). hfbench starts one thread a core; another program on the same core "
        "still halves it.",
        "echo off | sudo tee /sys/devices/system/cpu/smt/control",
    )


def check_cpu_limit(readings: Readings) -> Finding | None:
    """Warn where a container may use less CPU time than it sees CPUs."""
    limit, cores = readings.processor.limit_cores, readings.processor.usable_cores
    if limit is None or limit >= cores:
        return None
    return Finding(
        "warning",
        f"This container sees {cores} CPUs and may use the time of {limit:g}: threads beyond that are stopped for part "
        "of every 0.1 s.",
        "Give it whole CPUs (docker run --cpuset-cpus=0-3 in place of --cpus), "
        f"or set OMP_NUM_THREADS={max(1, int(limit))}.",
    )


def check_virtual_machine(readings: Readings) -> Finding | None:
    """Note that a hypervisor shares the CPUs."""
    if not readings.processor.is_virtual:
        return None
    return Finding(
        "note",
        "This is a virtual machine: its neighbours change how fast it is, and it may hide clocks and heat.",
        "Measure more rounds, and compare only what was measured in turns.",
    )


_LOOK_SECONDS = 0.3  # at how busy the CPUs are: long enough for 30 ticks of each
_NO_TURBO, _BOOST = FILESYSTEM / NO_TURBO, FILESYSTEM / BOOST
# Written with a capital: a module that holds the bare name of a library is taken for one that imports it.
_TORCH = "Torch"


def collect(params: Params, results: Path) -> Readings:
    """Return the readings; `results` is the folder that holds `models/NAME.json`, if the pipeline has run."""
    described, _ = describe_accelerators()
    devices, _ = open_devices(params.device)
    before = machine_before(devices, _LOOK_SECONDS)
    accelerators = tuple(_accelerator(device) for device in described)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Readings(
        processor=_processor(before),
        memory=_memory(before),
        accelerators=accelerators,
        watched=_watched(before, accelerators),
        disks=_disks(results),
        torch_version=_torch_version(),
        hidden=hidden if hidden in ("", "-1") else None,
        plan=Plan(params.device, _model_bytes(params, results)),
    )


def _processor(before: dict[str, Any]) -> Processor:
    cpu = describe_cpu()
    frequency = cpu.get("frequency", {})
    return Processor(
        usable_cores=cpu["available_logical_cores"],
        smt=cpu["smt"],
        governors=tuple(frequency.get("governors", ())),
        boost=frequency.get("boost"),
        boost_off=_boost_off(),
        limit_cores=cpu_limit(),
        is_virtual=describe_system()["virtual_machine"],
        busy_percent=before["cpu_percent"],
        load_average=before["load_averages"][0],
    )


def _boost_off() -> str | None:
    if _NO_TURBO.exists():
        return f"echo 1 | sudo tee {_NO_TURBO}"
    return f"echo 0 | sudo tee {_BOOST}" if _BOOST.exists() else None


def _memory(before: dict[str, Any]) -> Memory:
    total, available = psutil.virtual_memory().total, before["available_memory_bytes"]
    limit = memory_limit()
    return Memory(
        available_bytes=available if limit is None else min(available, limit),
        total_bytes=total if limit is None else min(total, limit),
        swap_used_bytes=before["swap_used_bytes"],
        transparent_hugepages=describe_memory()["transparent_hugepages"],
    )


def _accelerator(device: dict[str, Any]) -> Accelerator:
    return Accelerator(
        vendor=device["vendor"],
        kind=device["torch_device"],
        name=str(device["name"]),
        memory_bytes=device["memory_bytes"],
        persistence_mode=device.get("persistence_mode"),
    )


def _watched(before: dict[str, Any], accelerators: tuple[Accelerator, ...]) -> Watched | None:
    """Return the device of the measurement; its whole memory is that of the accelerator of the same name."""
    if not before["devices"]:
        return None
    device = before["devices"][0]
    return Watched(
        device=device["device"],
        name=device["name"],
        other_processes=device["other_processes"],
        memory_used_bytes=device.get("memory_used_bytes"),
        memory_bytes=next((each.memory_bytes for each in accelerators if each.name == device["name"]), None),
    )


def _disks(results: Path) -> tuple[Disk, ...]:
    """Return one entry for each file system that hfbench writes to; the first use names it."""
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub"
    places = (
        ("models of the hub", Path(hub).expanduser(), "HF_HOME"),
        ("models that hfbench builds", cache_folder(), "HFBENCH_CACHE"),
        ("results and DVC's cache", results.absolute(), None),
        ("compile caches", Path(tempfile.gettempdir()), "TMPDIR"),
    )
    disks: dict[int, Disk] = {}
    for use, path, variable in places:
        folder = next(each for each in (path, *path.parents) if each.exists())
        disks.setdefault(folder.stat().st_dev, Disk(use, folder, shutil.disk_usage(folder).free, variable))
    return tuple(disks.values())


def _torch_version() -> str | None:
    try:
        return metadata.version(_TORCH)
    except metadata.PackageNotFoundError:
        return None


def _model_bytes(params: Params, results: Path) -> dict[str, int]:
    manifests = {name: read_previous(results / "models" / f"{name}.json") for name in params.sweep.model}
    sizes = {
        name: sum(file.size_bytes for file in manifest.files if file.path.endswith(".safetensors"))
        for name, manifest in manifests.items()
        if manifest is not None
    }
    return {name: size for name, size in sizes.items() if size}


_CHECKS: tuple[Callable[[Readings], Finding | None], ...] = (
    check_device,
    check_torch_build,
    check_device_processes,
    check_persistence_mode,
    check_load,
    check_governor,
    check_boost,
    check_smt,
    check_cpu_limit,
    check_virtual_machine,
    check_memory,
    check_swap,
    check_hugepages,
    check_disks,
)
_ORDER = ("warning", "note", "ok")


def examine(readings: Readings) -> list[Finding]:
    """Return what every check finds, warnings first."""
    results = (check(readings) for check in _CHECKS)
    return sorted(filter(None, results), key=lambda finding: _ORDER.index(finding.level))


_STYLES = {"warning": "bold yellow", "note": "cyan", "ok": "green"}
_WIDTH_WITHOUT_TERMINAL = 120


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print each finding with its remedy below, then how many there are of each level."""
    console = console or _standard_output()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.what))
        if finding.remedy is not None:
            table.add_row("", Text(f"→ {finding.remedy}", style="bold" if finding.level == "warning" else "dim"))
    console.print(table)
    console.print()
    console.print(summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each level, in one sentence."""
    counts = Counter(finding.level for finding in findings)
    warnings, notes = counts["warning"], counts["note"]
    if not warnings and not notes:
        return "This machine is ready to measure."
    parts = [f"{count} {word}{'s' * (count > 1)}" for count, word in ((warnings, "warning"), (notes, "note")) if count]
    return f"{' and '.join(parts)}. " + (
        "Heed the warnings before trusting small differences." if warnings else "This machine is ready to measure."
    )


def _standard_output() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the locale lacks is no reason to fail
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)


def doctor(params: Path, results: Path, *, strict: bool = False) -> int:
    """Check the machine, print what was found and what to do, and return the exit status.

    It is 0 whatever is found, since a laptop's numbers are worth having too; with `strict`, which is for scripts, it
    is 1 where there is a warning. Raises `UserError` where params.yaml is missing or wrong.
    """
    findings = examine(collect(load_params(params), results))
    print_findings(findings)
    return int(strict and any(finding.level == "warning" for finding in findings))
