"""How many sockets, NUMA nodes, cores and caches there are, and how many of them this process may use."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfbench.environment.readings import FILESYSTEM, read_cpu_list, read_integer, read_text

_CPUS = "sys/devices/system/cpu"


def available_cpus() -> frozenset[int]:
    """Return the logical CPUs that the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def describe_topology(available: frozenset[int], root: Path = FILESYSTEM) -> dict[str, Any]:
    """Return counts over all CPUs that are online and, named `available_…`, over those in `available`.

    Which CPUs these are is left out: a batch system hands out other numbers at each start.
    """
    online = (read_cpu_list(root / _CPUS / "online") or available) | available
    usable = online & available
    core_of = {cpu: _core(cpu, root) for cpu in online}
    socket_of = {cpu: read_text(root / _CPUS / f"cpu{cpu}/topology/physical_package_id") for cpu in online}
    nodes = [read_cpu_list(node / "cpulist") for node in (root / "sys/devices/system/node").glob("node[0-9]*")]
    representatives = sorted({core: cpu for cpu, core in core_of.items()}.values())
    return {
        "sockets": len(set(socket_of.values())),
        "numa_nodes": max(1, len(nodes)),
        "physical_cores": len(set(core_of.values())),
        "logical_cores": len(online),
        "available_sockets": len({socket_of[cpu] for cpu in usable}),
        "available_numa_nodes": max(1, sum(1 for node in nodes if node & usable)),
        "available_physical_cores": len({core_of[cpu] for cpu in usable}),
        "available_logical_cores": len(usable),
        "smt": len(set(core_of.values())) < len(online),
        "caches": _caches(representatives, root),
    }


def cores_by_max_frequency(available: Iterable[int], root: Path = FILESYSTEM) -> dict[str, int] | None:
    """Return how many of the CPUs have each hardware maximum, keyed by it in MHz, or None where it is not told.

    A processor of fast and slow cores has several. The limit in force (`scaling_max_freq`) is left out: the kernel
    lowers it by itself when the machine is hot.
    """
    maxima = [read_integer(root / _CPUS / f"cpu{cpu}/cpufreq/cpuinfo_max_freq") for cpu in available]
    counts = Counter(maximum // 1000 for maximum in maxima if maximum)
    return {str(megahertz): counts[megahertz] for megahertz in sorted(counts)} or None


def _core(cpu: int, root: Path) -> frozenset[int]:
    topology = root / _CPUS / f"cpu{cpu}/topology"
    siblings = read_cpu_list(topology / "core_cpus_list") or read_cpu_list(topology / "thread_siblings_list")
    return siblings or frozenset({cpu})


def _caches(cpus: list[int], root: Path) -> list[dict[str, Any]]:
    """Return each kind of cache with how many there are; `cpus` holds one CPU of each core."""
    instances: set[tuple[int, str, str, frozenset[int]]] = set()
    for cpu in cpus:
        for index in (root / _CPUS / f"cpu{cpu}/cache").glob("index[0-9]*"):
            kind, size = read_text(index / "type"), read_text(index / "size")
            level = read_integer(index / "level")
            if level and kind and size:
                shared = read_cpu_list(index / "shared_cpu_list") or frozenset({cpu})
                instances.add((level, kind.lower(), size, shared))
    counts = Counter((level, kind, size) for level, kind, size, _ in instances)
    return [
        {"level": level, "type": kind, "size": size, "count": counts[level, kind, size]}
        for level, kind, size in sorted(counts)
    ]
