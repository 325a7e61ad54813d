"""The command `hfbench doctor`: is this machine fit to measure what params.yaml asks for?"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfbench.doctor.readings import Readings, collect
from hfbench.params.schema import load_params
from hfbench.report.pages import standard_output

Level = Literal["ok", "note", "warning"]
_LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Finding:
    """One result: `what` in a sentence, `remedy` as a command or an instruction, if there is one.

    A warning is likely to change what is measured, or stops it; a note is worth knowing when numbers are read.
    """

    level: Level
    what: str
    remedy: str | None = None


_ok, _note, _warning = (partial(Finding, level) for level in _LEVELS)


def check_device(readings: Readings) -> Iterator[Finding]:
    """Warn where params.yaml asks for a device that is not here."""
    kind = readings.device.partition(":")[0]
    present = [each["name"] for each in readings.present if each["torch_device"] == kind]
    if kind in ("auto", "cpu"):
        name = readings.accelerators[0]["name"] if readings.accelerators else "the CPU"
        yield _ok(f"device: {readings.device} means {name} here.")
    elif readings.accelerators:
        yield _ok(f"device: {readings.device} is {readings.accelerators[0]['name']}.")
    elif kind == "cuda" and present and _is_hidden(readings):
        yield _warning(
            f"CUDA_VISIBLE_DEVICES is {readings.variables['CUDA_VISIBLE_DEVICES']!r} and hides the {kind} devices that "
            "params.yaml asks for.",
            "unset CUDA_VISIBLE_DEVICES",
        )
    else:
        found = f"{len(present)} {kind} device{'s' * (len(present) > 1)}" if present else f"no {kind} device"
        yield _warning(
            f"params.yaml asks for device {readings.device}, and {found} was found: every point would be recorded as "
            "unsupported.",
            "Set `device: auto` in params.yaml, or look whether the driver works (nvidia-smi, rocm-smi, xpu-smi).",
        )


def _is_hidden(readings: Readings) -> bool:
    return readings.variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def check_torch(readings: Readings) -> Iterator[Finding]:
    """Warn where torch, which is asked itself, cannot use the accelerator that is here."""
    if readings.passed_over is not None:
        yield _warning(readings.passed_over)
    elif readings.device != "cpu" and readings.torch.devices:
        yield _ok(f"torch {readings.torch.version} can use {' and '.join(dict.fromkeys(readings.torch.devices))}.")
    elif readings.device != "cpu" and (readings.accelerators or (readings.present and not _is_hidden(readings))):
        says = f": {readings.torch.refusal.rstrip('.')}" if readings.torch.refusal else ""
        yield _warning(
            f"torch {readings.torch.version} cannot use {readings.present[0]['name']}{says}.",
            "Mend its driver, or install the build of torch for it: pytorch.org says how, under Get Started.",
        )


def check_dtypes(readings: Readings) -> Iterator[Finding]:
    """Warn where params.yaml asks for a dtype that the CPU only emulates, with what float32 was measured to give."""
    if readings.device != "cpu" and (readings.accelerators or readings.device != "auto"):
        return
    rates = readings.ceilings.get("matmul_flops_per_second", {})
    for dtype in [each for each in readings.dtypes if each in readings.cpu["emulated_dtypes"]]:
        told = f"This CPU has no instructions for {dtype} products, and torch emulates them"
        remedy = "Set sweep.dtype to [float32], or add it: it takes twice the memory, and is not emulated."
        if dtype not in rates:
            yield _warning(f"{told}.", f"{remedy} `dvc repro ceilings` measures how fast both are.")
        elif dtype in readings.ceilings["slower_than_float32"]:
            both = f"the fastest reach {rates[dtype] / 1e9:.3g} GFLOP/s, and {rates['float32'] / 1e9:.3g} in float32"
            yield _warning(f"{told}: {both}.", remedy)
        else:
            yield _ok(f"{told}, measured to be as fast as float32.")


def check_accelerator(readings: Readings) -> Iterator[Finding]:
    """Warn where others compute on the device, and where NVIDIA's driver lets go of the GPU between two processes."""
    watched = readings.watched
    count = watched["other_processes"] if watched else None
    if watched and count == 0:
        yield _ok(f"No other process computes on {watched['name']}.")
    elif watched and count:
        yield _warning(
            f"{count} other process{'es' * (count > 1)} hold{'s' * (count == 1)} memory on {watched['name']} "
            "and may compute on it.",
            f"End {'them' if count > 1 else 'it'}; `nvidia-smi` (or `rocm-smi --showpids`) shows which.",
        )
    modes = {gpu.get("persistence_mode") for gpu in readings.accelerators if readings.device != "cpu"}
    if False in modes:
        yield _warning(
            "Persistence mode is off: the driver starts the GPU anew for each process, which takes seconds a point "
            "and forgets clocks that were set.",
            "sudo nvidia-smi -pm 1",
        )
    elif True in modes:
        yield _ok("Persistence mode is on.")


# A measurement uses all cores: what keeps a tenth of them busy costs it about as much, ten times the precision that
# params.yaml asks for by default.
_BUSY_SHARE = 0.1


def check_load(readings: Readings) -> Iterator[Finding]:
    """Warn where other work runs now; note where it did in the last minute."""
    busy_percent, load_average = readings.now["cpu_percent"], readings.now["load_averages"][0]
    if busy_percent is not None and busy_percent > 100 * _BUSY_SHARE:
        yield _warning(
            f"Other programs keep {busy_percent:.0f}% of the CPUs busy.",
            "End them, or wait; `top` shows which they are.",
        )
    elif load_average > readings.cpu["available_logical_cores"] * _BUSY_SHARE:
        yield _note(
            f"The load average of the last minute is {load_average:.2f}; the CPUs are idle now.",
            "If something runs every few minutes, stop it while measuring.",
        )
    else:
        yield _ok(f"The CPUs are idle (load average {load_average:.2f}).")


_NO_TURBO = "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
_NO_BOOST = "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"


def check_clocks(readings: Readings) -> Iterator[Finding]:
    """Warn where a core's clock follows its load; note where it goes above the nominal one as heat and others allow."""
    frequency = readings.cpu.get("frequency", {})
    governors, boost = frequency.get("governors"), frequency.get("boost")  # nothing where the kernel sets no clocks
    if governors == ["performance"]:
        yield _ok("The CPU governor is performance.")
    elif governors:
        yield _warning(
            f"The CPU governor is {' and '.join(governors)}: clocks follow the load, and short iterations begin slow.",
            "sudo cpupower frequency-set -g performance",
        )
    if boost:
        yield _note(
            "Turbo is on: clocks fall as the machine warms up. Leave it on for numbers as in daily use; "
            "switch it off to compare small differences.",
            _NO_TURBO if any(driver.startswith("intel_") for driver in frequency["drivers"]) else _NO_BOOST,
        )
    elif boost is not None:
        yield _ok("Turbo is off: clocks do not depend on the temperature.")


def check_sharing(readings: Readings) -> Iterator[Finding]:
    """Note where two logical CPUs share a core, a hypervisor all of them, or a container may use less."""
    if readings.cpu["smt"]:
        yield _note(
            "Two logical CPUs share a core (SMT). hfbench starts one thread a core; another program on the same core "
            "still halves it.",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        )
    limit, cores = readings.system["cpu_limit_cores"], readings.cpu["available_logical_cores"]
    if limit is not None and limit < cores:
        yield _note(
            f"This container sees {cores} CPUs and may use the time of {limit:g}: hfbench starts no more threads than "
            f"{max(1, int(limit))}, and whatever else runs in it takes from the same time.",
            "Give it whole CPUs (docker run --cpuset-cpus=0-3 in place of --cpus).",
        )
    if readings.system["virtual_machine"]:
        yield _note(
            "This is a virtual machine: its neighbours change how fast it is, and it may hide clocks and heat.",
            "Measure more rounds, and compare only what was measured in turns.",
        )


# Of the weights' size. Loaded in float32, files of bfloat16 take twice their size; loaded as they are, the cache of
# keys and values and the activations of a benchmark are well within as much again.
_MEMORY_FACTOR = 2.0
# Of the main memory. Less than this was written out long ago and is not missed.
_SWAP_SHARE = 0.01
# Compile caches, records and tables of a sweep stay well below; a model comes on top.
_LEAST_FREE_BYTES = 5 * 10**9


def check_memory(readings: Readings) -> Iterator[Finding]:
    """Compare the free memory with the largest model's need, as far as models are resolved."""
    if not readings.model_bytes:
        yield _note(
            "No model of the sweep is resolved yet, so that its need of memory is not known.",
            "dvc repro model, then hfbench doctor again",
        )
        return
    name, weights = max(readings.model_bytes.items(), key=lambda model: model[1])
    where, free = _free_memory(readings)
    if free is None:
        return
    told = f"{where} has {_gb(free)} free; the weights of {name} take {_gb(weights)}"
    if free < weights:
        yield _warning(f"{told}: it does not fit.", "Free memory, or measure a smaller model.")
    elif free < _MEMORY_FACTOR * weights:
        yield _note(
            f"{told}: in the files' dtype it fits; float32, a large batch or a long sequence may not.",
            "Points that do not fit are recorded as out_of_memory.",
        )
    else:
        yield _ok(f"{told}.")


def _free_memory(readings: Readings) -> tuple[str, float | None]:
    """Return where the weights go, and how much is free there; None where the device does not tell."""
    watched = readings.watched
    if watched is None:
        return "The main memory", min(readings.now["available_memory_bytes"], readings.memory_limit_bytes)
    name, used = watched["name"], watched.get("memory_used_bytes")
    whole = next((each["memory_bytes"] for each in readings.accelerators if each["name"] == name), None)
    return name, None if whole is None or used is None else whole - used


def check_paging(readings: Readings) -> Iterator[Finding]:
    """Warn where memory was written out to disk; note where the kernel gives no huge pages."""
    used = readings.now["swap_used_bytes"]
    if used > _SWAP_SHARE * min(readings.memory["total_gib"] * 2**30, readings.memory_limit_bytes):
        yield _warning(
            f"{_gb(used)} of swap are in use: what was written out to disk is slow when it is needed again.",
            "sudo swapoff -a && sudo swapon -a  (needs as much free memory)",
        )
    else:
        yield _ok("No swap is in use." if used == 0 else f"Little swap is in use ({_gb(used)}).")
    if readings.memory["transparent_hugepages"] == "never":
        yield _note(
            "Transparent huge pages are off: on the CPU, large weights cost more address translation.",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )


def check_disk(readings: Readings) -> Iterator[Finding]:
    """Warn where the fullest file system has little room."""
    disk = readings.fullest_disk
    told = f"{disk.path} ({disk.use}) has {_gb(disk.free_bytes)} free."
    move = f", or set {disk.move_with} to a folder on another disk" if disk.move_with else ""
    if disk.free_bytes >= _LEAST_FREE_BYTES:
        yield _ok(told)
    else:
        yield _warning(told, f"Free some space{move}.")


def _gb(size_bytes: float) -> str:
    return f"{size_bytes / 10**9:.1f} GB"


_CHECKS: tuple[Callable[[Readings], Iterator[Finding]], ...] = (
    check_device,
    check_torch,
    check_dtypes,
    check_accelerator,
    check_load,
    check_clocks,
    check_sharing,
    check_memory,
    check_paging,
    check_disk,
)


def examine(readings: Readings) -> list[Finding]:
    """Return what every check finds, warnings first."""
    findings = (finding for check in _CHECKS for finding in check(readings))
    return sorted(findings, key=lambda finding: _LEVELS.index(finding.level), reverse=True)


_READY = "This machine is ready to measure."
_STYLES = {"warning": "bold yellow", "note": "cyan", "ok": "green"}


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print each finding with its remedy below, then how many there are of each level, and what that means."""
    console = console or standard_output()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.what))
        if finding.remedy is not None:
            table.add_row("", Text(f"→ {finding.remedy}", style="bold" if finding.level == "warning" else "dim"))
    console.print(table)
    counts = Counter(finding.level for finding in findings)
    found = [f"{counts[level]} {level}{'s' * (counts[level] > 1)}" for level in ("warning", "note") if counts[level]]
    meaning = "Heed the warnings before trusting small differences." if counts["warning"] else _READY
    console.print()
    console.print(f"{' and '.join(found)}. {meaning}" if found else meaning)


def doctor(params: Path, results: Path, *, strict: bool = False) -> int:
    """Check the machine, print what was found and what to do, and return the exit status.

    It is 0 whatever is found, since a laptop's numbers are worth having too; with `strict`, which is for scripts, it
    is 1 where there is a warning. Raises `UserError` where params.yaml is missing or wrong.
    """
    findings = examine(collect(load_params(params), results))
    print_findings(findings)
    return int(strict and any(finding.level == "warning" for finding in findings))
