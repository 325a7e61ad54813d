"""What a system tells of itself: the kernel's small files, packages, libraries that compute, cores and threads."""

import hashlib
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

FILESYSTEM = Path("/")
# A file of /sys holds one page at most. The kernel makes those of /proc as they are read: of a long one, such as
# cpuinfo, all but the beginning costs time.
_BYTES = 2**16


def read_text(path: Path | str) -> str | None:
    """Return the beginning of a file, stripped, or None where it is missing, unreadable or empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, _BYTES).decode(errors="replace").strip() or None
    except OSError:  # a folder, or a driver that refuses while its device sleeps
        return None
    finally:
        os.close(descriptor)


def read_integer(path: Path | str) -> int | None:
    """Return the integer that a file holds, or None."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def readable_entries(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; nothing where it is none, or may not be read, which loaders pass over."""
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


_METADATA = (".dist-info", ".egg-info")


def installed_packages() -> dict[str, str]:
    """Return the version of each package that Python finds, by its name as its folder spells it.

    The names of the folders tell it, in a hundredth of the time that reading their metadata takes; a checkout in
    development mode may have no version there, and has an empty one.
    """
    found: dict[str, str] = {}
    for folder in map(Path, dict.fromkeys(sys.path)):
        for entry in readable_entries(folder):
            if entry.suffix in _METADATA:
                name, _, version = entry.stem.partition("-")
                found.setdefault(name, version.partition("-")[0])
    return found


# What computes below torch: products and convolutions, threads, memory, devices. By the beginning of the names of their
# files, of Linux.
_COMPUTING = re.compile(
    r"lib(cublas|cudnn|cudart|cufft|curand|cusolver|cusparse|nvrtc|nvJitLink|nccl|cuda\.|cupti|nvinfer"
    r"|amdhip64|hiprtc|hipblas|rocblas|MIOpen|rccl|hsa-runtime64|sycl|ze_loader|ze_intel_gpu|dnnl|ccl\."
    r"|mkl|iomp5|gomp|omp\.|openblas|scipy_openblas|blis|tbb|jemalloc|tcmalloc|mimalloc)[^/]*\.so[^/]*"
)


def is_computing_library(name: str) -> bool:
    """Return whether a file of this name is a library that numbers depend on."""
    return _COMPUTING.fullmatch(name) is not None


@cache
def code_sha256(*rooms: str) -> str:
    """Return a digest of hfbench's own code in these rooms."""
    folder, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(path for room in rooms for path in (folder / room).rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


CPUS = "sys/devices/system/cpu"
_GROUPS = "sys/fs/cgroup"


def usable_cpus() -> frozenset[int]:
    """Return the numbers of the logical CPUs that the scheduler may run this process, and so its children, on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def read_list(path: Path) -> frozenset[int]:
    """Return the numbers in a list as the kernel writes it (`0-3,8`); empty where there is none."""
    numbers: set[int] = set()
    for span in (read_text(path) or "").split(","):
        first, _, last = span.strip().partition("-")
        if first.isdigit():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def siblings(cpu: int, root: Path = FILESYSTEM) -> frozenset[int]:
    """Return the numbers of the logical CPUs that share a physical core with this one, which is among them."""
    topology = root / CPUS / f"cpu{cpu}/topology"
    shared = read_list(topology / "core_cpus_list") or read_list(topology / "thread_siblings_list")
    return shared or frozenset({cpu})


def control_groups(controller: str, root: Path = FILESYSTEM) -> Iterator[Path]:
    """Yield the control group of this process and each above it; the controller "" stands for version 2.

    A container mounts its own group as the top, while /proc may count from the host's: the folders need not exist, and
    the mount itself is always among them.
    """
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mounts = [root / _GROUPS / name for name in ([controllers, controller] if controller else ["", "unified"])]
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for mount in dict.fromkeys(mount.resolve() for mount in mounts):  # `cpu` is a link to `cpu,cpuacct`
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


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


def usable_cores(root: Path = FILESYSTEM, cpus: frozenset[int] | None = None) -> int:
    """Return how many physical cores this process can keep busy, at least 1.

    They are those of the CPUs that it may run on (`cpus`), of which two may share one, and no more than the whole cores
    of its control groups' time limit: threads beyond either only wait for each other.
    """
    cpus = usable_cpus() if cpus is None else cpus
    if sys.platform == "linux":
        cores = len({siblings(cpu, root) for cpu in cpus})
    else:
        cores = min(len(cpus), psutil.cpu_count(logical=False) or len(cpus))
    limit = cpu_limit(root)
    return cores if limit is None else max(1, min(cores, math.floor(limit)))


def thread_variables() -> dict[str, str]:
    """Return OMP_NUM_THREADS for a process that computes: the ambient value, or the `usable_cores`.

    MKL_NUM_THREADS is the same number, whatever it was: MKL prefers it, and torch then uses the smaller of both (2.13).
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(usable_cores())
    # OpenMP takes a list, with a number for each level of nesting.
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads.split(",")[0]}
