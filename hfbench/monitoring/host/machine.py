"""The gauges of the machine itself: how busy its CPUs are, and whether memory was written out to disk."""

import os
from collections.abc import Sequence

import psutil

from hfbench.monitoring.gauges import Gauge, Value
from hfbench.monitoring.host.processor import processor_gauges
from hfbench.monitoring.host.quota import quota_gauge


def machine_gauges() -> list[Gauge]:
    """Return all gauges of the machine but the worker's."""
    return [
        CpuUse().gauge(),
        Gauge(("swap_used_bytes",), _swap_used, "the system tells no use of swap"),
        quota_gauge(),
        *processor_gauges(usable_cpus()),
    ]


def usable_cpus() -> list[int]:
    """Return the numbers of the logical CPUs that this process, and so the worker, may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class CpuUse:
    """How busy all CPUs of the machine were since the last reading."""

    def __init__(self) -> None:
        self._last = psutil.cpu_times()

    def gauge(self) -> Gauge:
        """Return the gauge of the share in use, and of the share that a hypervisor gave to others (steal)."""
        return Gauge(("cpu_percent", "steal_percent"), self.read, "the system tells no CPU times")

    def read(self) -> Sequence[Value]:
        """Return both, 0 to 100 over all CPUs; None where no tick of the clock passed, or steal is not counted."""
        times = psutil.cpu_times()
        passed = {name: getattr(times, name) - getattr(self._last, name) for name in times._fields}
        self._last = times
        # The kernel counts a guest's time within the user's.
        total = sum(passed.values()) - passed.get("guest", 0) - passed.get("guest_nice", 0)
        if total <= 0:
            return [None, None]
        busy = total - passed["idle"] - passed.get("iowait", 0) - passed.get("steal", 0)
        steal = passed.get("steal")
        return [round(100 * busy / total, 2), None if steal is None else round(100 * steal / total, 2)]


def _swap_used() -> Sequence[Value]:
    return [int(psutil.swap_memory().used)]
