"""What the monitor read while a point's rounds ran, a row for each reading."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hfbench.foundation.records import Record
from hfbench.reporting.numbers import MISSING, significant

# A name ends with its unit; what is counted from the machine's start is shown as its increase.
_UNITS = {
    "_bytes": ("MiB", 2**-20),
    "_percent": ("%", 1.0),
    "_celsius": ("°C", 1.0),
    "_mhz": ("MHz", 1.0),
    "_watts": ("W", 1.0),
    "_joules": ("J", 1.0),
    "_seconds": ("s", 1.0),
    "_cores": ("cores", 1.0),
}
_COUNTERS = ("_joules", "_seconds", "_count")
_UNSHOWN = ("throttle_mask",)  # bits, of which the warnings name the reasons


@dataclass(frozen=True)
class Reading:
    """A reading over all rounds, in the unit shown. For a counter, `values` are its increases in each round."""

    name: str
    unit: str
    values: tuple[float, ...]
    is_counter: bool

    @property
    def range(self) -> tuple[str, str, str]:
        """The least, the median and the most, as text."""
        return significant(min(self.values)), significant(median(self.values)), significant(max(self.values))


def readings(records: Sequence[Record]) -> list[Reading]:
    """Return what the host and each device read, the rounds after each other; nothing for what was never read."""
    series: dict[str, list[list[float]]] = {}
    for record in records:
        for name, values in _columns(record.monitoring):
            known = [value for value in values if value is not None]
            if known and not name.endswith(_UNSHOWN):
                series.setdefault(name, []).append(known)
    return [_reading(name, rounds) for name, rounds in series.items()]


def monitor_text(records: Sequence[Record]) -> str:
    """Return how often the monitor read and what it cost; empty where it was off."""
    watched = [record.monitoring for record in records if record.monitoring.get("samples")]
    if not watched:
        return ""
    counts = ", ".join(str(each["samples"]) for each in watched)
    cost = max(each.get("own_share", 0.0) for each in watched)
    return (
        f"{counts} readings, one each {significant(watched[0]['interval_seconds'])} s, "
        f"for at most {100 * cost:.2g}% of one core"
    )


def before_text(record: Record) -> str:
    """Return the state of the machine just before the worker started, empty where it is not known."""
    before = record.machine_before
    parts = []
    if before.get("cpu_percent") is not None:
        parts.append(f"CPUs {significant(before['cpu_percent'])}% busy")
    if before.get("load_averages"):
        parts.append(f"load {', '.join(f'{load:g}' for load in before['load_averages'])}")
    if before.get("swap_used_bytes"):
        parts.append(f"{significant(before['swap_used_bytes'] / 2**20)} MiB of swap in use")
    for device in before.get("devices", ()):
        others = device.get("other_processes")
        parts.append(f"{device.get('name', 'device')}: {MISSING if others is None else others} other processes")
    return ", ".join(parts)


def unavailable(record: Record) -> list[str]:
    """Return the names of the readings that this machine did not give."""
    host = record.monitoring.get("host", {}).get("unavailable", {})
    return [*host, *(record.monitoring.get("unavailable") or {})]


def _columns(monitoring: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[float | None]]]:
    yield from monitoring.get("host", {}).get("series", {}).items()
    for index, device in enumerate(monitoring.get("devices", ())):
        for name, values in device.get("series", {}).items():
            yield f"{device.get('device', index)} {name}", values


def _reading(name: str, rounds: list[list[float]]) -> Reading:
    unit, factor, label = "", 1.0, name
    for suffix, (shown, size) in _UNITS.items():
        if name.endswith(suffix):
            unit, factor, label = shown, size, name.removesuffix(suffix)
    is_counter = name.endswith(_COUNTERS)
    values = (
        [known[-1] - known[0] for known in rounds] if is_counter else [value for known in rounds for value in known]
    )
    return Reading(label.replace("_", " "), unit, tuple(value * factor for value in values), is_counter)
