"""What the machine and the worker do: clocks, heat and energy of the processor, its use, and the worker's processes."""

import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from hfbench.core.system import CPUS, FILESYSTEM, control_groups, read_integer, read_text, usable_cpus
from hfbench.monitoring.gauges import Gauge, Value, files_gauge

# On a large machine the clocks of all cores would take longer to read than the rest together.
_MOST_CLOCKS = 16
# The drivers whose first temperature is that of the whole processor (Documentation/hwmon of Linux).
_TEMPERATURE_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_THERMAL_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc_thermal")


def processor_gauges(cpus: Collection[int], root: Path = FILESYSTEM) -> list[Gauge]:
    """Return the gauges of the processor; `cpus` are the logical CPUs that the worker may run on.

    Clocks are the mean and the highest, which is that of the busiest core; the temperature is that of the hottest
    processor; the count is how often, since the machine started, cores and packages were slowed because of heat.
    """
    step = -(-len(cpus) // _MOST_CLOCKS) or 1
    folders = [root / CPUS / f"cpu{cpu}" for cpu in sorted(cpus)[::step]]  # evenly over the machine
    counts = ("core_throttle_count", "package_throttle_count")
    return [
        files_gauge(
            ("cpu_clock_mhz", "cpu_highest_clock_mhz"),
            [folder / "cpufreq/scaling_cur_freq" for folder in folders],
            lambda kilohertz: [round(sum(kilohertz) / len(kilohertz) / 1000, 1), max(kilohertz) / 1000],
            "the kernel has no cpufreq here, as in most virtual machines",
        ),
        files_gauge(
            ("cpu_temperature_celsius",),
            _thermometers(root),
            lambda thousandths: [max(thousandths) / 1000],
            "no sensor of the processor in /sys/class/hwmon or thermal",
        ),
        files_gauge(
            ("cpu_throttle_count",),
            [folder / "thermal_throttle" / name for folder in folders for name in counts],
            lambda values: [sum(values)],
            "no thermal_throttle in /sys; only Intel's processors have it",
        ),
        _energy(root),
    ]


def _thermometers(root: Path) -> list[Path]:
    monitors, zones = (root / "sys/class/hwmon").glob("hwmon*"), (root / "sys/class/thermal").glob("thermal_zone*")
    sensors = [folder / "temp1_input" for folder in monitors if read_text(folder / "name") in _TEMPERATURE_DRIVERS]
    return sensors or [zone / "temp" for zone in zones if read_text(zone / "type") in _THERMAL_ZONES]


def _energy(root: Path) -> Gauge:
    """Return the gauge of the energy that the processors took since the first reading (RAPL, all packages)."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [zone for zone in zones if (read_text(zone / "name") or "").startswith("package")]
    full = [read_integer(zone / "max_energy_range_uj") or 0 for zone in packages]
    counters = [str(zone / "energy_uj") for zone in packages]  # strings are opened faster than paths
    last = [read_integer(counter) for counter in counters]
    total = 0  # microjoules

    def read() -> Sequence[Value]:
        nonlocal last, total
        now = [read_integer(counter) for counter in counters]
        steps = [
            after - before + (most if after < before else 0)  # the hardware's counter starts again when it is full
            for before, after, most in zip(last, now, full, strict=True)
            if before is not None and after is not None
        ]
        if not packages or len(steps) < len(packages):
            return [None]
        last, total = now, total + sum(steps)
        return [round(total / 1e6, 6)]

    otherwise = "the energy counters of the processor (RAPL) are missing, or open to root only"
    return Gauge(("cpu_energy_joules",), read, otherwise)


# Versions 2 and 1 of control groups (Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst of Linux).
_SECONDS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
_THROTTLED = re.compile(rf"^({'|'.join(_SECONDS)}) (\d+)$", re.MULTILINE)


def quota_gauge(root: Path = FILESYSTEM) -> Gauge:
    """Return the gauge of the time for which a container's CPU limit held its processes back; it only grows.

    It is in seconds, summed over the control groups of this process.
    """
    folders = [*control_groups("", root), *control_groups("cpu", root)]
    files = [str(folder / "cpu.stat") for folder in folders if (folder / "cpu.stat").exists()]

    def read() -> Sequence[Value]:
        counters = [_THROTTLED.search(read_text(file) or "") for file in files]
        seconds = [int(counter[2]) * _SECONDS[counter[1]] for counter in counters if counter]
        return [round(sum(seconds), 6) if seconds else None]

    return Gauge(("quota_throttled_seconds",), read, "the control group of this process has no CPU controller")


class CpuUse:
    """How busy all CPUs of the machine were since the last reading."""

    def __init__(self) -> None:
        self._last = psutil.cpu_times()

    def read(self) -> Sequence[Value]:
        """Return the share in use and the share that a hypervisor gave to others (steal), 0 to 100 over all CPUs.

        None where no tick of the clock passed, or steal is not counted.
        """
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


def machine_gauges() -> list[Gauge]:
    """Return all gauges of the machine but the worker's."""
    return [
        Gauge(("cpu_percent", "steal_percent"), CpuUse().read, "the system tells no CPU times"),
        Gauge(("swap_used_bytes",), lambda: [psutil.swap_memory().used], "the system tells no use of swap"),
        quota_gauge(),
        *processor_gauges(usable_cpus()),
    ]


_SEARCH_SECONDS = 1.0  # between two looks for new children, which cost a file a thread
_ENDED = "the worker's process could not be read"


class ProcessTree:
    """The worker's process and its descendants, as far as they are known."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._processes: dict[int, psutil.Process] = {}
        self._searched_at = float("-inf")
        self._search()
        self._read_at, self._seconds = time.perf_counter(), self._cpu_seconds()

    def members(self) -> frozenset[int]:
        """Return the process ids; a child younger than a second may not be among them."""
        return frozenset(self._processes)

    def gauge(self) -> Gauge:
        """Return the gauge of the CPU time that the tree took, in cores, and of the worker's own resident set."""
        return Gauge(("worker_cpu_cores", "worker_rss_bytes"), self._read, _ENDED)

    def _read(self) -> Sequence[Value]:
        now = time.perf_counter()
        if now - self._searched_at >= _SEARCH_SECONDS:
            self._search()
        seconds = self._cpu_seconds()
        elapsed, taken = now - self._read_at, seconds - self._seconds
        self._read_at, self._seconds = now, seconds
        # A child that leaves the tree takes its time with it.
        cores = round(taken / elapsed, 3) if self.pid in self._processes and elapsed > 0 and taken >= 0 else None
        return [cores, self._rss_bytes()]

    def _cpu_seconds(self) -> float:
        """Return the CPU time of all members and of the children that each has waited for.

        A child that ends moves from the one to the other, so that the sum goes on without a step.
        """
        total = 0.0
        for pid, process in list(self._processes.items()):
            try:
                times = process.cpu_times()
            except psutil.Error:
                del self._processes[pid]
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def _rss_bytes(self) -> int | None:
        """Return the worker's own resident set: its children share pages with it, which a sum would count twice."""
        with suppress(psutil.Error):
            return int(self._processes[self.pid].memory_info().rss) if self.pid in self._processes else None
        return None

    def _search(self) -> None:
        self._searched_at = time.perf_counter()
        found, waiting = set[int](), [self.pid]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting += _children(pid)
        for pid in found - self._processes.keys():
            with suppress(psutil.Error):
                self._processes[pid] = psutil.Process(pid)


def count_others(listed: Collection[int], ours: Collection[int], is_here: Callable[[int], bool]) -> int | None:
    """Return how many of the process ids that a driver listed are not `ours`, or None where that cannot be told.

    In a container some drivers list the ids of the host: then none is ours, and some are of no process here.
    """
    others = set(listed) - set(ours)
    is_same_namespace = len(others) < len(set(listed)) or all(is_here(pid) for pid in others)
    return len(others) if is_same_namespace else None


def _children(pid: int) -> list[int]:
    try:
        if not Path("/proc/self/task").exists():  # a system without Linux's files
            return [child.pid for child in psutil.Process(pid).children()]
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (names are all that is needed, at a third of the cost)
    except (OSError, psutil.Error):
        return []
    lists = (read_text(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for line in lists if line for child in line.split()]
