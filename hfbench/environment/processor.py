"""The processor: its model, cores, caches, instruction sets and frequency policy."""

import platform
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfbench.core.system import CPUS, FILESYSTEM, read_integer, read_list, read_text, siblings, usable_cpus


def read_cpuinfo(root: Path = FILESYSTEM) -> dict[str, str]:
    """Return the entries of the first processor in /proc/cpuinfo; empty where there is no such file."""
    first = (read_text(root / "proc/cpuinfo") or "").partition("\n\n")[0]
    entries = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in entries}


def describe_topology(available: frozenset[int], root: Path = FILESYSTEM) -> dict[str, Any]:
    """Return counts over all CPUs that are online and, named `available_…`, over those in `available`.

    Which CPUs these are is left out: a batch system hands out other numbers at each start.
    """
    online = (read_list(root / CPUS / "online") or available) | available
    core_of = {cpu: siblings(cpu, root) for cpu in online}
    socket_of = {cpu: read_text(root / CPUS / f"cpu{cpu}/topology/physical_package_id") for cpu in online}
    nodes = [read_list(node / "cpulist") for node in (root / "sys/devices/system/node").glob("node[0-9]*")]
    representatives = sorted({core: cpu for cpu, core in core_of.items()}.values())

    def counts(cpus: frozenset[int]) -> dict[str, int]:
        return {
            "sockets": len({socket_of[cpu] for cpu in cpus}),
            "numa_nodes": max(1, sum(1 for node in nodes if node & cpus)),
            "physical_cores": len({core_of[cpu] for cpu in cpus}),
            "logical_cores": len(cpus),
        }

    return {
        **counts(online),
        "numa_nodes": max(1, len(nodes)),  # those without a CPU too
        **{f"available_{name}": count for name, count in counts(online & available).items()},
        "smt": len(representatives) < len(online),
        "caches": _caches(representatives, root),
    }


def _caches(cpus: list[int], root: Path) -> list[dict[str, Any]]:
    """Return each kind of cache with how many there are; `cpus` holds one CPU of each core."""
    instances: set[tuple[int, str, str, frozenset[int]]] = set()
    for cpu in cpus:
        for index in (root / CPUS / f"cpu{cpu}/cache").glob("index[0-9]*"):
            level, kind, size = read_integer(index / "level"), read_text(index / "type"), read_text(index / "size")
            if level and kind and size:
                shared = read_list(index / "shared_cpu_list") or frozenset({cpu})
                instances.add((level, kind.lower(), size, shared))
    counts = Counter(instance[:3] for instance in instances)
    return [
        {"level": level, "type": kind, "size": size, "count": count}
        for (level, kind, size), count in sorted(counts.items())
    ]


# Instruction sets that libraries choose their code by (x86, Arm), as Linux spells them.
_INSTRUCTION_SET = re.compile(
    r"sse4_[12]|avx\w*|amx\w*|fma4?|f16c|gfni|vaes|vpclmulqdq|asimd\w*|sve\w*|sme(?!p)\w*|bf16|i8mm|fphp"
)
# Of each dtype, the instruction sets that have products of it (x86, Arm). Without one of them torch converts to float32
# and back. Sources: Intel Architecture Instruction Set Extensions Programming Reference; Arm Architecture Reference
# Manual, A-profile, FEAT_BF16 and FEAT_FP16; Linux spells them so in arch/x86/include/asm/cpufeatures.h and
# arch/arm64/kernel/cpuinfo.c.
_PRODUCTS_OF = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16", "svebf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# What tells that the instruction sets of a processor are known.
_BASELINES = {"avx", "avx2", "sse4_1", "sse4_2", "asimd"}


def emulated_dtypes(instruction_sets: Iterable[str]) -> list[str]:
    """Return the dtypes that a processor has no products of, so that torch emulates them by those of float32.

    None is known of a processor that does not tell its instruction sets, or is neither of x86 nor of Arm.
    """
    known = set(instruction_sets)
    return [dtype for dtype, sets in _PRODUCTS_OF.items() if known & _BASELINES and not known & sets]


# Arm cores say no name in /proc/cpuinfo. Source: arch/arm64/include/asm/cputype.h of Linux.
_ARM_CORES = {
    ("0x41", "0xd0c"): "Arm Neoverse N1",
    ("0x41", "0xd40"): "Arm Neoverse V1",
    ("0x41", "0xd49"): "Arm Neoverse N2",
    ("0x41", "0xd4f"): "Arm Neoverse V2",
    ("0x41", "0xd83"): "Arm Neoverse V3AE",
    ("0x41", "0xd84"): "Arm Neoverse V3",
    ("0x41", "0xd8e"): "Arm Neoverse N3",
    ("0xc0", "0xac3"): "Ampere-1",
}


def describe_cpu(root: Path = FILESYSTEM, available: frozenset[int] | None = None) -> dict[str, Any]:
    """Return the processor's description; `available` defaults to the CPUs that this process may run on."""
    if platform.system() != "Linux":
        return _describe_elsewhere()
    if available is None:
        available = usable_cpus()
    cpuinfo = read_cpuinfo(root)
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    instruction_sets = sorted(flag for flag in set(flags) if _INSTRUCTION_SET.fullmatch(flag))
    return {
        "brand": cpuinfo.get("model name") or _arm_name(cpuinfo) or cpuinfo.get("cpu") or cpuinfo.get("uarch"),
        "microcode": cpuinfo.get("microcode"),
        **describe_topology(available, root),
        "instruction_sets": instruction_sets,
        "emulated_dtypes": emulated_dtypes(instruction_sets),
        "frequency": _frequency_policy(available, root),
    }


def _arm_name(cpuinfo: dict[str, str]) -> str | None:
    implementer, part = cpuinfo.get("CPU implementer"), cpuinfo.get("CPU part")
    if not implementer or not part:
        return None
    revision = f"r{cpuinfo.get('CPU variant', '?').removeprefix('0x')}p{cpuinfo.get('CPU revision', '?')}"
    return f"{_ARM_CORES.get((implementer, part), f'Arm core {part} of implementer {implementer}')} {revision}"


def _frequency_policy(cpus: frozenset[int], root: Path) -> dict[str, Any]:
    """Return what chooses the clock; no reading of the clock itself, which never stands still.

    `available_cores_by_max_mhz` says how many of the CPUs have each hardware maximum, of which a processor of fast and
    slow cores has several. The limit in force (`scaling_max_freq`) is left out: the kernel lowers it by itself when the
    machine is hot.
    """
    folders = [root / CPUS / f"cpu{cpu}/cpufreq" for cpu in cpus]
    maxima = [read_integer(folder / "cpuinfo_max_freq") for folder in folders]
    counts = Counter(maximum // 1000 for maximum in maxima if maximum)

    def chosen(name: str) -> list[str]:
        return sorted({reading for folder in folders if (reading := read_text(folder / name))})

    # A machine has one of the two at most.
    boost, no_turbo = read_integer(root / CPUS / "cpufreq/boost"), read_integer(root / CPUS / "intel_pstate/no_turbo")
    return {
        "available_cores_by_max_mhz": {str(mhz): counts[mhz] for mhz in sorted(counts)} or None,
        "drivers": chosen("scaling_driver"),
        "governors": chosen("scaling_governor"),
        "energy_preferences": chosen("energy_performance_preference"),
        "boost": bool(boost) if boost is not None else (None if no_turbo is None else not no_turbo),
        "platform_profile": read_text(root / "sys/firmware/acpi/platform_profile"),
    }


def _describe_elsewhere() -> dict[str, Any]:
    """Return what py-cpuinfo and psutil know on a system without Linux's files; the sizes are in bytes."""
    import cpuinfo
    import psutil

    info = cpuinfo.get_cpu_info()  # starts processes, which is why Linux does without it
    logical, physical = psutil.cpu_count(), psutil.cpu_count(logical=False)
    instruction_sets = sorted(flag for flag in info.get("flags", []) if _INSTRUCTION_SET.fullmatch(flag))
    sizes = {level: info.get(f"{level}_cache_size") for level in ("l1_data", "l1_instruction", "l2", "l3")}
    return {
        "brand": info.get("brand_raw"),
        "microcode": None,
        "physical_cores": physical,
        "logical_cores": logical,
        "available_logical_cores": logical,
        "smt": None if physical is None or logical is None else physical < logical,
        "caches": [{"level": level, "size": size} for level, size in sizes.items() if size],
        "instruction_sets": instruction_sets,
        "emulated_dtypes": emulated_dtypes(instruction_sets),
    }
