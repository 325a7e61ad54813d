"""The CPUs and threads of a process, and the small files in which the Linux kernel describes itself."""

import os
from pathlib import Path

import psutil

FILESYSTEM = Path("/")
# A file of /sys holds one page at most. The kernel makes those of /proc as they are read: of a long one, such as
# cpuinfo, all but the beginning costs time.
_BYTES = 2**16


def usable_cpus() -> frozenset[int]:
    """Return the numbers of the logical CPUs that the scheduler may run this process, and so its children, on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def thread_variables() -> dict[str, str]:
    """Return OMP_NUM_THREADS for a process that computes: the ambient value, or the physical cores that it may use.

    Threads beyond the physical cores slow matrix products down. MKL_NUM_THREADS is the same number, whatever it was:
    MKL prefers it, and torch then uses the smaller of both (2.13).
    """
    logical = len(usable_cpus())
    threads = os.environ.get("OMP_NUM_THREADS") or str(min(logical, psutil.cpu_count(logical=False) or logical))
    # OpenMP takes a list, with a number for each level of nesting.
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads.split(",")[0]}


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
