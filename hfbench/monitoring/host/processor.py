"""What the processor tells of itself on Linux: clocks, temperature, throttling, energy."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hfbench.monitoring.gauges import Gauge, Value
from hfbench.monitoring.kernel_files import ROOT, existing, read_integer, read_text

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
