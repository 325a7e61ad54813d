"""The time for which a container's CPU limit held its processes back."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import psutil

from hfbench.monitoring.gauges import Gauge, Value

ROOT = Path("/")
_BYTES = 4096  # a file of /sys holds one page at most; of /proc/self/cgroup it is enough


def read_text(path: str | Path) -> str | None:
    """Return the beginning of a file, stripped, or None where it is missing, unreadable or empty."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, _BYTES).decode(errors="replace").strip() or None
    except OSError:  # a driver may refuse while its device sleeps
        return None
    finally:
        os.close(descriptor)


def read_integer(path: str | Path) -> int | None:
    """Return the integer that a file holds, or None."""
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None


def existing(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return those of the paths that are there, as strings."""
    return tuple(str(path) for path in paths if path.exists())


def file_gauge(name: str, paths: Iterable[Path], scale: float, otherwise: str) -> Gauge:
    """Return a gauge of the first of the files that is there: the integer in it, times `scale`."""
    found = existing(paths)[:1]

    def read() -> Sequence[Value]:
        value = read_integer(found[0]) if found else None
        return [None if value is None else round(value * scale, 6)]

    return Gauge((name,), read, otherwise)


_CPUS = "sys/devices/system/cpu"
# On a large machine the clocks of all cores would take longer to read than the rest together.
_MOST_CLOCKS = 16
# The drivers whose first temperature is that of the whole processor (Documentation/hwmon of Linux).
_TEMPERATURE_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_THERMAL_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc_thermal")


def processor_gauges(cpus: Iterable[int], root: Path = ROOT) -> list[Gauge]:
    """Return the gauges of the processor; `cpus` are the logical CPUs that the worker may run on."""
    chosen = _spread(sorted(cpus))
    return [_clocks(chosen, root), _temperature(root), _throttle_count(chosen, root), _energy(root)]


def _spread(cpus: list[int]) -> list[int]:
    """Return at most `_MOST_CLOCKS` of the CPUs, evenly over the list."""
    step = -(-len(cpus) // _MOST_CLOCKS) or 1
    return cpus[::step]


def _clocks(cpus: list[int], root: Path) -> Gauge:
    """Return the gauge of the cores' clocks: the mean, and the highest, which is that of the busiest core."""
    files = existing(root / _CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in cpus)

    def read() -> Sequence[Value]:
        megahertz = [value / 1000 for file in files if (value := read_integer(file)) is not None]
        return [round(sum(megahertz) / len(megahertz), 1), max(megahertz)] if megahertz else [None, None]

    otherwise = "the kernel has no cpufreq here, as in most virtual machines"
    return Gauge(("cpu_clock_mhz", "cpu_highest_clock_mhz"), read, otherwise)


def _temperature(root: Path) -> Gauge:
    """Return the gauge of the hottest processor's temperature."""
    monitors = (root / "sys/class/hwmon").glob("hwmon*")
    zones = (root / "sys/class/thermal").glob("thermal_zone*")
    sensors = [folder / "temp1_input" for folder in monitors if read_text(folder / "name") in _TEMPERATURE_DRIVERS]
    sensors = sensors or [zone / "temp" for zone in zones if read_text(zone / "type") in _THERMAL_ZONES]
    files = existing(sensors)

    def read() -> Sequence[Value]:
        readings = [value / 1000 for file in files if (value := read_integer(file)) is not None]
        return [max(readings, default=None)]

    return Gauge(("cpu_temperature_celsius",), read, "no sensor of the processor in /sys/class/hwmon or thermal")


def _throttle_count(cpus: list[int], root: Path) -> Gauge:
    """Return the gauge of how often, since the machine started, cores and packages were slowed because of heat."""
    folders = [root / _CPUS / f"cpu{cpu}/thermal_throttle" for cpu in cpus]
    kinds = ("core_throttle_count", "package_throttle_count")
    files = existing(folder / kind for folder in folders for kind in kinds)

    def read() -> Sequence[Value]:
        counts = [value for file in files if (value := read_integer(file)) is not None]
        return [sum(counts) if counts else None]

    return Gauge(("cpu_throttle_count",), read, "no thermal_throttle in /sys; only Intel's processors have it")


def _energy(root: Path) -> Gauge:
    """Return the gauge of the energy that the processors took since the first reading (RAPL, all packages)."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [zone for zone in zones if (read_text(zone / "name") or "").startswith("package")]
    counters = [_EnergyCounter(zone) for zone in packages]

    def read() -> Sequence[Value]:
        microjoules = [value for counter in counters if (value := counter.read()) is not None]
        return [round(sum(microjoules) / 1e6, 6) if counters and len(microjoules) == len(counters) else None]

    otherwise = "the energy counters of the processor (RAPL) are missing, or open to root only"
    return Gauge(("cpu_energy_joules",), read, otherwise)


class _EnergyCounter:
    """One package's energy in microjoules since the first reading; the hardware's counter starts again when full."""

    def __init__(self, zone: Path) -> None:
        self._file = str(zone / "energy_uj")
        self._full = read_integer(zone / "max_energy_range_uj") or 0
        self._last = read_integer(self._file)
        self._total = 0

    def read(self) -> int | None:
        reading = read_integer(self._file)
        if reading is None or self._last is None:
            return None
        step = reading - self._last
        self._last = reading
        self._total += step if step >= 0 else step + self._full
        return self._total


_GROUPS = "sys/fs/cgroup"
# Versions 2 and 1 of control groups (Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst of Linux).
_SECONDS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}


def quota_gauge(root: Path = ROOT) -> Gauge:
    """Return the gauge of the seconds, summed over this process's control groups; it only grows."""
    files = existing(dict.fromkeys(_files(root)))

    def read() -> Sequence[Value]:
        seconds = [value for file in files if (value := _throttled_seconds(read_text(file) or "")) is not None]
        return [round(sum(seconds), 6) if seconds else None]

    return Gauge(("quota_throttled_seconds",), read, "the control group of this process has no CPU controller")


def _files(root: Path) -> list[Path]:
    """Return where `cpu.stat` may lie: in the process's own group and in each above it."""
    files: list[Path] = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount = root / _GROUPS
        elif "cpu" in controllers.split(","):
            mount = root / _GROUPS / "cpu"
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", "..")]
        files += [mount.joinpath(*parts[:depth]) / "cpu.stat" for depth in range(len(parts), -1, -1)]
    return files


def _throttled_seconds(text: str) -> float | None:
    pairs = (line.split() for line in text.splitlines())
    values = [int(pair[1]) * _SECONDS[pair[0]] for pair in pairs if len(pair) == 2 and pair[0] in _SECONDS]
    return sum(values) if values else None


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
        worker = self._processes.get(self.pid)
        try:
            return None if worker is None else int(worker.memory_info().rss)
        except psutil.Error:
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
            try:
                self._processes[pid] = psutil.Process(pid)
            except psutil.Error:
                continue


def count_others(
    listed: Collection[int], ours: Collection[int], is_here: Callable[[int], bool] = psutil.pid_exists
) -> int | None:
    """Return how many of the process ids that a driver listed are not `ours`, or None where that cannot be told.

    In a container some drivers list the ids of the host: then none is ours, and some are of no process here.
    """
    others = set(listed) - set(ours)
    is_same_namespace = len(others) < len(set(listed)) or all(is_here(pid) for pid in others)
    return len(others) if is_same_namespace else None


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (names are all that is needed, at a third of the cost)
    except OSError:
        return _children_elsewhere(pid)
    lists = (read_text(f"/proc/{pid}/task/{thread}/children") for thread in threads)
    return [int(child) for line in lists if line for child in line.split()]


def _children_elsewhere(pid: int) -> list[int]:
    if Path("/proc/self/task").exists():
        return []  # on Linux: the process has ended
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []
