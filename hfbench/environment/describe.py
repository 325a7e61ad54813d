"""The description of this machine that every measurement depends on."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfbench.core.record import SCHEMA_VERSION
from hfbench.core.system import FILESYSTEM, read_integer, read_text
from hfbench.environment.packages import describe_compiler, describe_packages
from hfbench.environment.processor import describe_cpu, read_cpuinfo
from hfbench.monitoring import amd, intel, nvidia
from hfbench.monitoring.host import control_groups
from hfbench.monitoring.nvidia import name_visible_devices

# Version 1 writes "unlimited" as the largest whole number of pages; no machine has an exbibyte.
_UNLIMITED_BYTES = 2**60


def memory_limit(root: Path = FILESYSTEM) -> int | None:
    """Return the least memory limit over the process's control groups in bytes, or None where there is none."""
    limits = [read_integer(folder / "memory.max") for folder in control_groups("", root)]  # "max" is no integer
    limits += [read_integer(folder / "memory.limit_in_bytes") for folder in control_groups("memory", root)]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES), default=None)


def cpu_limit(root: Path = FILESYSTEM) -> float | None:
    """Return the least CPU time limit over the process's control groups in cores, or None where there is none."""
    limits = [_quota(*(read_text(folder / "cpu.max") or "max").split()) for folder in control_groups("", root)]
    limits += [
        _quota(read_text(folder / "cpu.cfs_quota_us") or "-1", read_text(folder / "cpu.cfs_period_us") or "0")
        for folder in control_groups("cpu", root)
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _quota(quota: str, period: str = "100000") -> float | None:
    """Return microseconds of CPU time a period as cores; "max" and negative quotas are no limit."""
    unlimited = not quota.isdigit() or int(quota) == 0 or not period.isdigit() or int(period) == 0
    return None if unlimited else round(int(quota) / int(period), 3)


# Parameters of the kernel's command line that change how fast a program runs; the rest names disks and consoles.
# Source: Documentation/admin-guide/kernel-parameters.txt of Linux.
_KERNEL_PARAMETER = re.compile(
    r"mitigations|spectre_v2|spec_store_bypass_disable|retbleed|pti|nopti|nosmt|isolcpus|nohz_full|preempt|idle"
    r"|intel_pstate|amd_pstate|intel_idle\.max_cstate|processor\.max_cstate|cpuidle\.off|hugepages|hugepagesz"
    r"|default_hugepagesz|transparent_hugepage|numa_balancing|iommu|intel_iommu|amd_iommu"
)


def describe_system(root: Path = FILESYSTEM) -> dict[str, Any]:
    """Return names, versions and limits; the memory limit is in bytes, the CPU limit in cores."""
    flags = read_cpuinfo(root).get("flags")  # of x86, which alone says whether it is virtual
    parameters = (read_text(root / "proc/cmdline") or "").partition(" -- ")[0].split()
    return {
        "os": platform.system(),
        "distribution": _distribution(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "virtual_machine": "hypervisor" in flags.split() if flags else None,
        "kernel_parameters": sorted(
            {each for each in parameters if _KERNEL_PARAMETER.fullmatch(each.partition("=")[0])}
        ),
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


def describe_memory(root: Path = FILESYSTEM) -> dict[str, Any]:
    """Return sizes in whole GiB and policies.

    The sizes are rounded because the kernel and the firmware keep back a little more or less on equal machines.
    """
    import psutil

    return {
        "total_gib": round(psutil.virtual_memory().total / 2**30),
        "swap_gib": round(psutil.swap_memory().total / 2**30),
        "transparent_hugepages": _chosen(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        "transparent_hugepages_defrag": _chosen(root / "sys/kernel/mm/transparent_hugepage/defrag"),
        "numa_balancing": read_integer(root / "proc/sys/kernel/numa_balancing"),
        "numa_policy": _numa_policy(root),
    }


def _chosen(path: Path) -> str | None:
    """Return the chosen word of a file such as `always [madvise] never`, or None."""
    chosen = re.search(r"\[(\S+)\]", read_text(path) or "")
    return chosen[1] if chosen else None


def _numa_policy(root: Path) -> str | None:
    """Return the policy that numactl set for this process, such as `interleave:0-1`, or `default`; None if unknown."""
    words = (read_text(root / "proc/self/numa_maps") or "").split(maxsplit=2)  # of the first mapping
    return words[1] if len(words) > 1 else None


_RELEVANT = re.compile(
    r"(OMP|MKL|KMP|GOMP|OPENBLAS|BLIS|VECLIB|ONEDNN|DNNL|TBB|IPEX"  # CPU libraries
    r"|PYTORCH|ATEN|TRITON|FLASH_ATTENTION|FLASH_ATTN|XFORMERS|BNB|ACCELERATE|TRANSFORMERS|KERNELS"
    r"|CUDA|CUDNN|NCCL|HIP|ROCR|HSA|AMD|GPU|MIOPEN|ROCBLAS|HIPBLASLT|TENSILE|ZE|SYCL|ONEAPI|UR|IGC|XPU"
    r"|MALLOC|TCMALLOC|MIMALLOC)_\w+"
    r"|(TORCH|CUBLAS|INDUCTOR)\w*"
    r"|NVIDIA_TF32_OVERRIDE|GLIBC_TUNABLES|LD_PRELOAD|LD_BIND_NOW|CC|CXX"
    r"|USE_HUB_KERNELS|LOCAL_KERNELS|DISABLE_KERNEL_MAPPING|HF_DEACTIVATE_ASYNC_LOAD|HF_ENABLE_PARALLEL_LOADING"
    r"|HF_PARALLEL_LOADING_WORKERS"
    r"|PYTHONMALLOC|PYTHONOPTIMIZE|PYTHONDEVMODE|PYTHONTRACEMALLOC|PYTHON_GIL|PYTHON_JIT"
)
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL")
_LOCATION = re.compile(r"(?:^|_)(?:HOME|DIRS?|DIRECTORY|DIRECTORIES|PATHS?|FOLDER|ROOT|FILE)$")
# TORCHINDUCTOR_FX_GRAPH_CACHE=0 switches a cache off; TRANSFORMERS_CACHE=... says where one is.
_SWITCH = re.compile(r"\d*|true|false|on|off|yes|no", re.IGNORECASE)
# hfbench keeps every measurement off the network, and a launcher's run number is new at each start.
_WITHOUT_EFFECT = re.compile(r"TRANSFORMERS_OFFLINE|TORCHELASTIC_\w+")
_FOLDERS = re.compile(r"(^|[\s:;,='\"])(?:~[\w.-]*)?/(?:[^\s:;,='\"]*/)?")


def relevant_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter, sorted by name.

    None of them is a secret or only says where something is, a path in a value is cut to its last part, and a GPU is
    named without its UUID.
    """
    kept = {name: _FOLDERS.sub(r"\1", value) for name, value in sorted(variables.items()) if _is_kept(name, value)}
    if "CUDA_VISIBLE_DEVICES" in kept:
        kept["CUDA_VISIBLE_DEVICES"] = name_visible_devices(kept["CUDA_VISIBLE_DEVICES"])
    return kept


def _is_kept(name: str, value: str) -> bool:
    if not _RELEVANT.fullmatch(name) or _SECRET.search(name) or _WITHOUT_EFFECT.fullmatch(name):
        return False
    is_location = _LOCATION.search(name) or (name.endswith("_CACHE") and not _SWITCH.fullmatch(value))
    return not is_location


# A path or an address would differ between equal machines.
_PLACE = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])/[^\s'\":,]+")


def describe_apple(notes: list[str]) -> list[dict[str, Any]]:
    """Return what the one GPU of a Mac with Apple silicon is, which shares the machine's memory."""
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return []
    memory = _sysctl("hw.memsize")
    if memory is None:
        notes.append("apple: sysctl hw.memsize could not be read")
    return [
        {
            "vendor": "apple",
            "torch_device": "mps",
            "name": _sysctl("machdep.cpu.brand_string"),
            "memory_bytes": None if memory is None else int(memory),
            "driver_version": platform.mac_ver()[0],  # the driver is a part of macOS
        }
    ]


def _sysctl(name: str) -> str | None:
    try:
        output = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.strip() or None


Describe = Callable[[list[str]], list[dict[str, Any]]]
VENDORS: dict[str, Describe] = {
    "nvidia": nvidia.describe,
    "amd": amd.describe,
    "intel": intel.describe,
    "apple": describe_apple,
}


def describe_accelerators(vendors: Mapping[str, Describe] = VENDORS) -> tuple[list[dict[str, Any]], list[str]]:
    """Return every device found, and a note for each thing that could not be read. Raises nothing.

    Each vendor's function returns a dictionary for each device, in a stable order: vendor, torch_device, name,
    memory_bytes, … It has none where the vendor's driver or library is not here; what could not be read although it is
    here, the function adds to the list that it is given.
    """
    devices: list[dict[str, Any]] = []
    notes: list[str] = []
    for vendor, describe in vendors.items():
        try:
            devices += describe(notes)
        except Exception as error:  # a vendor's broken driver must not stop a measurement on the CPU
            notes.append(f"{vendor}: {type(error).__name__}: {error}")
    return devices, [_PLACE.sub("…", note) for note in notes]


def describe() -> dict[str, Any]:
    """Return what changes performance on this machine, and nothing that changes by itself.

    Every measurement depends on each byte of it: equal machines return equal content, in the same order. It holds no
    time, load, temperature, clock reading, host name, user, absolute path or serial number.
    """
    accelerators, notes = describe_accelerators()
    return {
        "schema_version": SCHEMA_VERSION,
        "system": describe_system(),
        "cpu": describe_cpu(),
        "memory": describe_memory(),
        "accelerators": accelerators,
        "accelerator_notes": notes,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
            "abi_flags": getattr(sys, "abiflags", ""),  # a debug build, or one without the global interpreter lock
        },
        "compiler": describe_compiler(os.environ),
        "packages": describe_packages(),
        "variables": relevant_variables(os.environ),
    }
