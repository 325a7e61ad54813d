"""The processor: its model, cores, caches, instruction sets and frequency policy."""

import platform
import re
from pathlib import Path
from typing import Any

from hfbench.environment.readings import FILESYSTEM, read_cpuinfo, read_integer, read_text
from hfbench.environment.topology import available_cpus, cores_by_max_frequency, describe_topology

_CPUS = "sys/devices/system/cpu"
# Instruction sets that libraries choose their code by (x86, Arm), as Linux spells them.
_INSTRUCTION_SET = re.compile(
    r"sse4_[12]|avx\w*|amx\w*|fma4?|f16c|gfni|vaes|vpclmulqdq|asimd\w*|sve\w*|sme(?!p)\w*|bf16|i8mm|fphp"
)
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
        available = available_cpus()
    cpuinfo = read_cpuinfo(root)
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    return {
        "brand": cpuinfo.get("model name") or _arm_name(cpuinfo) or cpuinfo.get("cpu") or cpuinfo.get("uarch"),
        "microcode": cpuinfo.get("microcode"),
        **describe_topology(available, root),
        "instruction_sets": sorted(flag for flag in set(flags) if _INSTRUCTION_SET.fullmatch(flag)),
        "frequency": {
            "available_cores_by_max_mhz": cores_by_max_frequency(available, root),
            **_frequency_policy(available, root),
        },
    }


def _arm_name(cpuinfo: dict[str, str]) -> str | None:
    implementer, part = cpuinfo.get("CPU implementer"), cpuinfo.get("CPU part")
    if not implementer or not part:
        return None
    revision = f"r{cpuinfo.get('CPU variant', '?').removeprefix('0x')}p{cpuinfo.get('CPU revision', '?')}"
    return f"{_ARM_CORES.get((implementer, part), f'Arm core {part} of implementer {implementer}')} {revision}"


def _frequency_policy(cpus: frozenset[int], root: Path) -> dict[str, Any]:
    """Return the settings that choose the clock; no reading of the clock itself, which never stands still."""

    def chosen(name: str) -> list[str]:
        readings = {read_text(root / _CPUS / f"cpu{cpu}/cpufreq/{name}") for cpu in cpus}
        return sorted(reading for reading in readings if reading)

    boost = read_integer(root / _CPUS / "cpufreq/boost")
    no_turbo = read_integer(root / _CPUS / "intel_pstate/no_turbo")
    return {
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
    sizes = {level: info.get(f"{level}_cache_size") for level in ("l1_data", "l1_instruction", "l2", "l3")}
    return {
        "brand": info.get("brand_raw"),
        "microcode": None,
        "physical_cores": physical,
        "logical_cores": logical,
        "available_logical_cores": logical,
        "smt": None if physical is None or logical is None else physical < logical,
        "caches": [{"level": level, "size": size} for level, size in sizes.items() if size],
        "instruction_sets": sorted(flag for flag in info.get("flags", []) if _INSTRUCTION_SET.fullmatch(flag)),
    }
