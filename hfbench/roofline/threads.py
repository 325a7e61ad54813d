"""How many threads a process that measures on the CPU computes with."""

import os

import psutil


def openmp_threads() -> str:
    """Return the value of OMP_NUM_THREADS for such a process: the ambient one, or the physical cores it may use."""
    return os.environ.get("OMP_NUM_THREADS") or str(_usable_cores())


def _usable_cores() -> int:
    """Return the physical cores that this process may use; threads beyond them slow matrix products down."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(affinity, psutil.cpu_count(logical=False) or affinity)
