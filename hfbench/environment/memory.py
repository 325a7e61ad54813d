"""The main memory: its size, its page policy and its NUMA policy."""

from pathlib import Path
from typing import Any

from hfbench.environment.readings import FILESYSTEM, read_choice, read_first_line, read_integer

_GIB = 2**30


def describe_memory(root: Path = FILESYSTEM) -> dict[str, Any]:
    """Return sizes in whole GiB and policies.

    The sizes are rounded because the kernel and the firmware keep back a little more or less on equal machines.
    """
    import psutil

    return {
        "total_gib": round(psutil.virtual_memory().total / _GIB),
        "swap_gib": round(psutil.swap_memory().total / _GIB),
        "transparent_hugepages": read_choice(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        "transparent_hugepages_defrag": read_choice(root / "sys/kernel/mm/transparent_hugepage/defrag"),
        "numa_balancing": read_integer(root / "proc/sys/kernel/numa_balancing"),
        "numa_policy": _numa_policy(root),
    }


def _numa_policy(root: Path) -> str | None:
    """Return the policy that numactl set for this process, such as `interleave:0-1`, or `default`; None if unknown."""
    words = (read_first_line(root / "proc/self/numa_maps") or "").split()
    return words[1] if len(words) > 1 else None
