"""Gauges: readings that give a value for each of their names, and what the monitor needs of a device of any vendor."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfbench.core.system import read_integer

Value = float | int | None


@dataclass(frozen=True)
class Gauge:
    """One reading, which gives a value for each of its names; the names carry the unit.

    `read` may raise, or give None, for what it cannot tell at that moment. `otherwise` says why, in words for a person,
    where it never told anything.
    """

    names: tuple[str, ...]
    read: Callable[[], Sequence[Value]]
    otherwise: str


def silent_gauge(*names: str, otherwise: str) -> Gauge:
    """Return a gauge of what is never told here."""
    return Gauge(names, lambda: [None] * len(names), otherwise)


def file_gauge(name: str, paths: Iterable[Path], scale: float, otherwise: str) -> Gauge:
    """Return a gauge of the first of the files that is there: the integer in it, times `scale`."""
    first = next((path for path in paths if path.exists()), None)
    return files_gauge((name,), [first] if first else [], lambda values: [round(values[0] * scale, 6)], otherwise)


def files_gauge(
    names: tuple[str, ...], paths: Iterable[Path], combine: Callable[[list[int]], Sequence[Value]], otherwise: str
) -> Gauge:
    """Return a gauge of what `combine` makes of the integers in those of the files that can be read at the moment."""
    files = [str(path) for path in paths if path.exists()]  # strings are opened faster than paths

    def read() -> Sequence[Value]:
        values = [value for file in files if (value := read_integer(file)) is not None]
        return combine(values) if values else [None] * len(names)

    return Gauge(names, read, otherwise)


class Columns:
    """A list of values for each name of some gauges, all of equal length; None where a reading failed."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = tuple(gauges)
        self._values: dict[str, list[Value]] = {name: [] for gauge in self._gauges for name in gauge.names}
        self._errors: dict[str, str] = {}

    def sample(self) -> None:
        """Read every gauge once. Raises nothing: one that fails leaves the others."""
        for gauge in self._gauges:
            try:
                values = gauge.read()
            except Exception as error:  # a vendor's library or a process that has just ended; the worker goes on
                values = [None] * len(gauge.names)
                self._errors.update(dict.fromkeys(gauge.names, f"{type(error).__name__}: {error}"))
            for name, value in zip(gauge.names, values, strict=True):
                self._values[name].append(value)

    def last(self) -> dict[str, Value]:
        """Return the latest value of each column."""
        return {name: values[-1] for name, values in self._values.items() if values}

    def content(self) -> dict[str, Any]:
        """Return the `series` of the columns that hold a value, and the reason why each other one is `unavailable`."""
        told = {name: values for name, values in self._values.items() if any(value is not None for value in values)}
        reasons = {name: gauge.otherwise for gauge in self._gauges for name in gauge.names} | self._errors
        return {"series": told, "unavailable": {name: why for name, why in reasons.items() if name not in told}}


@dataclass(frozen=True)
class WatchedDevice:
    """One accelerator, read from outside the process that uses it.

    Vendors use the same names for the same readings: utilisation_percent, memory_utilisation_percent,
    memory_used_bytes, power_watts, energy_joules (a counter), clock_mhz (of the compute units), memory_clock_mhz,
    temperature_celsius, throttle_mask.
    """

    device: str  # as torch calls it: cuda:0
    name: str
    identity: str  # what every process of the machine can call it: its UUID, or its driver's number of it
    gauges: Sequence[Gauge]
    # Returns the ids of the processes that use the device for computing, or None where that is not told.
    processes: Callable[[], Collection[int] | None]
    throttle_reasons: Mapping[str, int] = field(default_factory=dict)  # the bit of throttle_mask that each reason has


def visible_device(index: int, visible: str | None) -> str | None:
    """Return what the driver calls the device that torch numbers `index`: a number or a UUID, or None if hidden.

    `visible` is the value of a variable such as CUDA_VISIBLE_DEVICES. A list ends at its first invalid entry.
    """
    if visible is None:
        return str(index)
    items = [item.strip() for item in visible.split(",")]
    is_hidden = index >= len(items) or any(item in ("", "-1") for item in items[: index + 1])
    return None if is_hidden else items[index]


def sensors(folder: Path) -> Path:
    """Return the folder of the sensors (hwmon) of a PCI device."""
    return next(iter(sorted((folder / "hwmon").glob("hwmon*"))), folder / "hwmon")
