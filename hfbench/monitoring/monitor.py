"""The monitor: what the machine and its devices did while a worker ran, on the clock of the worker's iterations."""

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import psutil

from hfbench.core.system import read_text, usable_cpus
from hfbench.monitoring.gauges import Columns, Gauge, Value, WatchedDevice
from hfbench.monitoring.host import CpuUse, ProcessTree, count_others, machine_gauges, processor_gauges

# The kernel counts CPU time in ticks of 10 ms: four for each CPU.
WINDOW_SECONDS = 0.04


def machine_before(devices: Sequence[WatchedDevice], window_seconds: float = WINDOW_SECONDS) -> dict[str, Any]:
    """Return the state of the machine and of each device, JSON-ready; None or absent is what is not told.

    `cpu_percent` and `steal_percent` are shares of all CPUs over `window_seconds`, in which this process sleeps. The
    load averages still hold what ran in the minutes before, be it the measurement before this one.
    """
    cpu = CpuUse()
    time.sleep(window_seconds)
    cpu_percent, steal_percent = cpu.read()
    processor = Columns(processor_gauges(usable_cpus()))
    processor.sample()
    threads = re.search(r" (\d+)/", read_text("/proc/loadavg") or "")  # that run or wait for a CPU, of all
    return {
        "window_seconds": window_seconds,
        "cpu_percent": cpu_percent,
        "steal_percent": steal_percent,
        "load_averages": [round(load, 2) for load in os.getloadavg()],
        "running_threads": int(threads[1]) - 1 if threads else None,  # this one left out
        "swap_used_bytes": int(psutil.swap_memory().used),
        "available_memory_bytes": int(psutil.virtual_memory().available),
        **{name: value for name, value in processor.last().items() if name.endswith(("_mhz", "_celsius"))},
        "devices": [_device(device) for device in devices],
    }


def _device(device: WatchedDevice) -> dict[str, Any]:
    # There is no worker yet: whoever is there is another.
    columns = Columns([_other_processes(device, ours=tuple, is_here=lambda _: True), *device.gauges])
    columns.sample()
    readings = {name: value for name, value in columns.last().items() if value is not None}
    return {"device": device.device, "name": device.name, "other_processes": None, **readings}


_FIRST_STEPS = 8  # the share of the interval until the second reading of what is watched closely; doubles each time
_SHORTEST_SECONDS = 0.05  # between readings, of half a millisecond: a hundredth of one core
# Of a device in the shortest time of sampling: the ten that its energy takes (`hfbench.tables.facts`), and one at
# either end.
_READINGS = 12


class Monitor:
    """Samples on the thread of its caller, which asks when the next sample is due and sleeps until then.

    `interval_seconds` of 0 switches it off. What is watched for a short time is read more often: after `begin` the
    first readings come after an eighth, a quarter and half of the interval; and where there is a device, the interval
    is short enough for its energy to be known. `clock_zero` is the reading of `time.perf_counter` that all times of the
    record count from.
    """

    def __init__(
        self, worker_pid: int, interval_seconds: float, clock_zero: float, devices: Sequence[WatchedDevice]
    ) -> None:
        self._usual = self._interval = interval_seconds if interval_seconds > 0 else math.inf
        self._clock_zero = clock_zero
        self._started_at = time.perf_counter()
        self._due = self._started_at + self._interval
        self._step = self._interval
        self._times: list[float] = []
        self._costs: list[float] = []
        self._cpu_seconds = 0.0
        tree = ProcessTree(worker_pid)
        self._host = Columns([*machine_gauges(), tree.gauge()])
        self._devices = [
            (device, Columns([*device.gauges, _other_processes(device, tree.members)])) for device in devices
        ]

    def seconds_until_due(self, now: float) -> float:
        """Return how long after `now`, a reading of `time.perf_counter`, the next sample is due: 0 where it is late."""
        return max(0.0, self._due - now)

    def begin(self, now: float, least_seconds: float = math.inf) -> None:
        """Take a sample at the beginning, or the end, of what is to be watched closely; off, it takes none.

        What begins lasts `least_seconds` or longer.
        """
        if math.isfinite(self._usual):
            close = max(_SHORTEST_SECONDS, least_seconds / _READINGS) if self._devices else math.inf
            self._interval = min(self._usual, close)
            self._step = self._interval / _FIRST_STEPS
            self.sample(now)

    def sample(self, now: float) -> None:
        """Take one sample, under the time `now`. Those that were missed meanwhile are left out, not made up for."""
        cpu = time.thread_time()
        self._times.append(round(now - self._clock_zero, 6))
        self._host.sample()
        for _, columns in self._devices:
            columns.sample()
        if self._step < self._interval:
            self._due = now + self._step
            self._step = min(2 * self._step, self._interval)
        elif math.isfinite(self._interval) and now >= self._due:
            self._due += self._interval * (math.floor((now - self._due) / self._interval) + 1)
        self._costs.append(time.perf_counter() - now)
        self._cpu_seconds += time.thread_time() - cpu

    def summary(self) -> dict[str, Any]:
        """Return everything, JSON-ready: the time of each sample, and the readings in lists of that length.

        `own_seconds` is the time that sampling took in all, waiting for a CPU included, `own_cpu_seconds` what it
        took from the CPUs, `own_share` the latter over the time watched: what one core spent on it.
        """
        watched = time.perf_counter() - self._started_at
        return {
            "interval_seconds": self._usual if math.isfinite(self._usual) else 0,
            "samples": len(self._times),
            "own_seconds": round(sum(self._costs), 6),
            "own_median_seconds": round(median(self._costs), 6) if self._costs else None,
            "own_cpu_seconds": round(self._cpu_seconds, 6),
            "own_share": round(self._cpu_seconds / watched, 6),
            "time_seconds": self._times,
            "host": {"logical_cores": psutil.cpu_count() or 1, **self._host.content()},
            "devices": [_device_content(device, columns) for device, columns in self._devices],
        }


_LIST_SECONDS = 1.0  # between two lists of a device's processes, which cost more than the other readings together


def _other_processes(
    device: WatchedDevice, ours: Callable[[], Iterable[int]], is_here: Callable[[int], bool] = psutil.pid_exists
) -> Gauge:
    """Return the gauge of how many processes compute on a device that are not `ours`; see `count_others`."""
    listed_at, count = -math.inf, None

    def read() -> Sequence[Value]:
        nonlocal listed_at, count
        now = time.perf_counter()
        if now - listed_at >= _LIST_SECONDS:
            listed_at = now
            listed = device.processes()
            count = None if listed is None else count_others(listed, {os.getpid(), *ours()}, is_here)
        return [count]

    otherwise = "the driver keeps no list of processes, or lists the ids of another system's (a container's host)"
    return Gauge(("other_processes",), read, otherwise)


def _device_content(device: WatchedDevice, columns: Columns) -> dict[str, Any]:
    """Return a device's part of the summary; `throttled_samples` counts the samples in which each reason held."""
    content = columns.content()
    masks = [int(mask) for mask in content["series"].get("throttle_mask", []) if mask is not None]
    counts = {name: sum(1 for mask in masks if mask & bit) for name, bit in device.throttle_reasons.items()}
    return {
        "device": device.device,
        "name": device.name,
        "identity": device.identity,
        "throttled_samples": {name: count for name, count in counts.items() if count},
        "throttle_reasons": dict(device.throttle_reasons) if masks else {},
        **content,
    }
