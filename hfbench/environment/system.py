"""The operating system: its name and versions, the kernel's settings, and the limits of the container."""

import os
import platform
import re
from pathlib import Path
from typing import Any

from hfbench.environment.containers import cpu_limit, memory_limit
from hfbench.environment.readings import FILESYSTEM, read_cpuinfo, read_text

# Parameters of the kernel's command line that change how fast a program runs; the rest names disks and consoles.
# Source: Documentation/admin-guide/kernel-parameters.txt of Linux.
_KERNEL_PARAMETER = re.compile(
    r"mitigations|spectre_v2|spec_store_bypass_disable|retbleed|pti|nopti|nosmt|isolcpus|nohz_full|preempt|idle"
    r"|intel_pstate|amd_pstate|intel_idle\.max_cstate|processor\.max_cstate|cpuidle\.off|hugepages|hugepagesz"
    r"|default_hugepagesz|transparent_hugepage|numa_balancing|iommu|intel_iommu|amd_iommu"
)


def describe_system(root: Path = FILESYSTEM) -> dict[str, Any]:
    """Return names, versions and limits; the memory limit is in bytes, the CPU limit in cores."""
    return {
        "os": platform.system(),
        "distribution": _distribution(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": _libc(),
        "virtual_machine": _virtual_machine(root),
        "kernel_parameters": _kernel_parameters(root),
        "memory_limit_bytes": memory_limit(root),
        "cpu_limit_cores": cpu_limit(root),
    }


def _distribution() -> str | None:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if platform.system() == "Windows":
        return f"Windows {platform.version()}"
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return " ".join(part for part in (release["NAME"], release.get("VERSION_ID", "")) if part)


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):  # no glibc
        return None


def _virtual_machine(root: Path) -> bool | None:
    """Return whether the CPU says that it is virtual; None where it cannot say (only x86 has the flag)."""
    flags = read_cpuinfo(root).get("flags")
    return "hypervisor" in flags.split() if flags else None


def _kernel_parameters(root: Path) -> list[str]:
    words = (read_text(root / "proc/cmdline") or "").partition(" -- ")[0].split()
    return sorted({word for word in words if _KERNEL_PARAMETER.fullmatch(word.partition("=")[0])})
