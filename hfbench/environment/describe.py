"""The description of this machine that every measurement depends on, and the accelerator that torch cannot use."""

import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.record import SCHEMA_VERSION
from hfbench.core.system import (
    FILESYSTEM,
    control_groups,
    cpu_limit,
    is_computing_library,
    read_integer,
    read_text,
    readable_entries,
)
from hfbench.environment.packages import describe_compiler, describe_packages, torch_build, version_line
from hfbench.environment.processor import describe_cpu, read_cpuinfo
from hfbench.monitoring.devices import measured_accelerators
from hfbench.monitoring.gauges import visible_device

# Version 1 writes "unlimited" as the largest whole number of pages; no machine has an exbibyte.
_UNLIMITED_BYTES = 2**60


def memory_limit(root: Path = FILESYSTEM) -> int | None:
    """Return the least memory limit over the process's control groups in bytes, or None where there is none."""
    limits = [read_integer(folder / "memory.max") for folder in control_groups("", root)]  # "max" is no integer
    limits += [read_integer(folder / "memory.limit_in_bytes") for folder in control_groups("memory", root)]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES), default=None)


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
    r"|NVIDIA_TF32_OVERRIDE|GLIBC_TUNABLES|LD_PRELOAD|LD_LIBRARY_PATH|LD_BIND_NOW|CC|CXX"
    r"|USE_HUB_KERNELS|LOCAL_KERNELS|DISABLE_KERNEL_MAPPING|HF_DEACTIVATE_ASYNC_LOAD|HF_ENABLE_PARALLEL_LOADING"
    r"|HF_PARALLEL_LOADING_WORKERS"
    r"|PYTHONMALLOC|PYTHONOPTIMIZE|PYTHONDEVMODE|PYTHONTRACEMALLOC|PYTHON_GIL|PYTHON_JIT"
)
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL")
_LOCATION = re.compile(r"(?:^|_)(?:HOME|DIRS?|DIRECTORY|DIRECTORIES|PATHS?|FOLDER|ROOT|FILE)$")
# TORCHINDUCTOR_FX_GRAPH_CACHE=0 switches a cache off; TRANSFORMERS_CACHE=... says where one is.
_SWITCH = re.compile(r"\d*|true|false|on|off|yes|no", re.IGNORECASE)
_WITHOUT_EFFECT = re.compile(
    # hfbench keeps every measurement off the network, and a launcher's run number is new at each start.
    r"TRANSFORMERS_OFFLINE|TORCHELASTIC_\w+"
    # What they choose is described itself, as the device that is measured on, or not used.
    r"|CUDA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK"
    r"|CUDA_DEVICE_ORDER"
    # What is only written to a log. Those that write at each operation are kept from the worker.
    r"|\w+_(VERBOSITY|VERBOSE|LOGS?|LOG_LEVEL|LOGLEVEL|LOG_FILE|LOG_DEST|LOG_MASK|LOGINFO|LOGDEST|LOG_OUT)(_\w+)?"
    r"|TORCH_LOGS\w*|TORCH_CPP_LOG_LEVEL|TORCH_SHOW_CPP_STACKTRACES|TORCH_TRACE|NCCL_DEBUG\w*"
    r"|OMP_DISPLAY_\w+|KMP_(SETTINGS|VERSION|WARNINGS)|MIOPEN_ENABLE_LOGGING\w*|ACCELERATE_LOG_LEVEL"
    r"|TRANSFORMERS_NO_ADVISORY_WARNINGS|MKL_VERBOSE_OUTPUT_FILE"
)
_FOLDERS = re.compile(r"(^|[\s:;,='\"])(?:~[\w.-]*)?/(?:[^\s:;,='\"]*/)?")


def relevant_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that can change a measurement, sorted by name.

    None of them is a secret, only says where something is, chooses a device or makes a log; a path in a value is cut to
    its last part.
    """
    return {name: _FOLDERS.sub(r"\1", value) for name, value in sorted(variables.items()) if _is_kept(name, value)}


def _is_kept(name: str, value: str) -> bool:
    if not _RELEVANT.fullmatch(name) or _SECRET.search(name) or _WITHOUT_EFFECT.fullmatch(name):
        return False
    is_location = _LOCATION.search(name) or (name.endswith("_CACHE") and not _SWITCH.fullmatch(value))
    return not is_location or name == _LIBRARY_PATH


_LIBRARY_PATH = "LD_LIBRARY_PATH"
# Names the assembler of CUDA programs in place of the one that comes with triton.
_PTXAS = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH")


def describe_chosen_files(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return what variables put in the place of libraries and programs that come with the packages.

    `libraries` are those in the folders of LD_LIBRARY_PATH that could be loaded, in the order in which the loader would
    find them, each with its size in bytes; `ptxas` is the last line of each named assembler's version.
    """
    folders = [Path(folder) for folder in variables.get(_LIBRARY_PATH, "").split(":") if folder]
    libraries = {
        file.name: file.stat().st_size
        for folder in reversed(folders)
        for file in readable_entries(folder)
        if is_computing_library(file.name) and file.is_file()
    }
    return {
        "libraries": dict(sorted(libraries.items())),
        "ptxas": {name: version_line([variables[name]], last=True) for name in _PTXAS if variables.get(name)},
    }


def describe(device: str) -> dict[str, Any]:
    """Return what changes a measurement on `device` of params.yaml, and nothing that changes by itself.

    Every measurement depends on each byte of it: equal machines return equal content, in the same order. It holds no
    time, load, temperature, clock reading, host name, user, absolute path or serial number; of accelerators the one
    that is measured on, and how many of its kind there are.
    """
    build = torch_build()
    accelerators, notes = measured_accelerators(device, build)
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
        "chosen_files": describe_chosen_files(os.environ),
        "torch_build": build,
        "packages": describe_packages(),
        "variables": relevant_variables(os.environ),
    }


# The ids of https://pci-ids.ucw.cz: vendors, and the class of displays and of accelerators without one.
_NVIDIA, _AMD, _INTEL = "0x10de", "0x1002", "0x8086"
_CLASSES = ("0x03", "0x12")  # displays, and processing accelerators
_REMEDY = "or set `device: cpu` in params.yaml to measure the CPU"


def require_usable(
    device: str, environment: Mapping[str, Any], variables: Mapping[str, str] = os.environ, root: Path = FILESYSTEM
) -> None:
    """Raise `UserError` where `device: auto` would mean the CPU although this machine has an accelerator for torch.

    `environment` is what `describe` returns. What a variable hides is hidden on purpose, and a GPU of a vendor for
    which this torch is not built (a laptop's, say) is not for it; but a torch for the CPU alone beside an NVIDIA GPU is
    more often a mistake than meant.
    """
    if device != "auto" or environment["accelerators"]:
        return
    build, notes = environment["torch_build"], environment["accelerator_notes"]
    present = _present(root)
    reasons = {
        _NVIDIA: ("NVIDIA", ("cuda", None), ("CUDA_VISIBLE_DEVICES",), _nvidia_reason),
        _AMD: ("AMD", ("hip",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), _amd_reason),
        _INTEL: ("Intel", ("xpu",), ("ZE_AFFINITY_MASK",), _intel_reason),
    }
    for vendor, (name, builds, hiding, reason) in reasons.items():
        is_meant = any(each in build if each else not build for each in builds)
        is_hidden = any(visible_device(0, variables.get(variable)) is None for variable in hiding)
        if vendor in present and is_meant and not is_hidden:
            version = environment["packages"].get("torch", {}).get("version")
            why = reason(root) if build else f"torch {version} is built for the CPU alone"
            told = f" ({'; '.join(notes)})" if notes else ""
            raise UserError(
                f"device is auto, and torch cannot use the {name} GPU of this machine: {why}{told}. "
                f"{_mend(build)}, {_REMEDY}."
            )


def _mend(build: Mapping[str, str]) -> str:
    return "Mend that" if build else "Install the build of torch for it (pytorch.org says how, under Get Started)"


def _present(root: Path) -> set[str]:
    """Return the vendors of the displays and accelerators on the bus, whether or not they have a driver."""
    devices = (root / "sys/bus/pci/devices").glob("*")
    return {
        vendor
        for folder in devices
        if (read_text(folder / "class") or "").startswith(_CLASSES)
        and (vendor := read_text(folder / "vendor")) is not None
    }


def _nvidia_reason(root: Path) -> str:
    if read_text(root / "proc/driver/nvidia/version") is None:
        return "its driver is not loaded (`nvidia-smi` says more)"
    if not any((root / "dev").glob("nvidia[0-9]*")):
        return "/dev has no such device, as in a container that was started without --gpus all"
    return "its driver does not answer (`nvidia-smi` says more)"


def _amd_reason(root: Path) -> str:
    if read_text(root / "sys/module/amdgpu/initstate") is None:
        return "its driver, amdgpu, is not loaded"
    if not (root / "dev/kfd").exists():
        return "/dev/kfd is not there, as in a container that was started without --device=/dev/kfd"
    return "its driver does not answer (`rocminfo` says more; is this user in the group render?)"


def _intel_reason(root: Path) -> str:
    if not any((root / "dev/dri").glob("renderD*")):
        return "/dev/dri has no such device, as in a container that was started without --device=/dev/dri"
    return "its compute runtime (libze_intel_gpu) is not installed"
