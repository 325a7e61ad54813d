"""What the machine did before and while a record's samples were taken: a few values from the columns of its monitor."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from hfbench.tables.monitor_readings import (
    Column,
    clocks_changed,
    energy_per_token,
    increase,
    others_cpu_cores,
    readings_within,
    throttled,
)

CPU_HEAT = "cpu_heat"  # beside the reasons that a device's driver names


def machine_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a record's `monitoring` and `machine_before`; None where they tell nothing.

    All but those named `before` are of the time from the first sample's start to the last one's end. Where there are
    several devices, energy is the sum and the rest the worst of them; without one, energy and clock are the CPU's.
    After a context there is no energy of a token: filling the cache between two samples takes energy too.
    """
    before, span = content["machine_before"], _Span(content)
    devices = [_Readings(device, span) for device in span.monitoring.get("devices", ())]
    host = _Readings(span.monitoring.get("host", {}), span)
    counts = [device.get("other_processes") for device in before.get("devices", ())]
    busy = before.get("cpu_percent")
    clocked = [device.column("clock_mhz") for device in devices] or [host.column("cpu_highest_clock_mhz")]
    return {
        "energy_joules_per_token": None if span.has_context else _energy(host, devices, span),
        "throttle_reasons": _throttle_reasons(host, devices, span),
        "quota_throttled_share": _quota_share(host, span),
        "clock_mhz": _largest([_median(column[span.within]) for column in clocked]),
        "clock_spread": _largest([clocks_changed(column, span.within) for column in clocked]),
        "other_processes": _largest([*counts, *(_most(device.column("other_processes"), span) for device in devices)]),
        "others_cpu_share": _others_share(host, span),
        "cpu_share_before": None if busy is None else busy / 100,
        "swap_used_bytes": _largest([before.get("swap_used_bytes"), _most(host.column("swap_used_bytes"), span)]),
    }


class _Span:
    """The time in which samples were taken, and which of the monitor's readings fall into it."""

    def __init__(self, content: dict[str, Any]) -> None:
        samples = [iteration for iteration in content["iterations"] if iteration["phase"] == "sample"]
        self.monitoring = content["monitoring"]
        self.has_context = bool(content.get("configuration", {}).get("context_depth"))
        self.time_seconds: Sequence[float] = self.monitoring.get("time_seconds", ())
        self.start = samples[0]["start_seconds"] if samples else 0.0
        self.end = samples[-1]["start_seconds"] + samples[-1]["call_seconds"] if samples else 0.0
        self.tokens = sum(sum(iteration["new_tokens"]) for iteration in samples)
        self.within = readings_within(self.time_seconds, self.start, self.end) if samples else slice(0, 0)


class _Readings:
    """The columns of the host or of one device."""

    def __init__(self, content: dict[str, Any], span: _Span) -> None:
        self.content = content
        self._series = content.get("series", {})
        self._empty = [None] * len(span.time_seconds)

    def column(self, name: str) -> Column:
        """Return a column, all None where it was not to be had."""
        column: Column = self._series.get(name, self._empty)
        return column


def _energy(host: _Readings, devices: Sequence[_Readings], span: _Span) -> float | None:
    columns = [
        {"energy_joules": device.column("energy_joules"), "power_watts": device.column("power_watts")}
        for device in devices
    ] or [{"energy_joules": host.column("cpu_energy_joules")}]
    found = [energy_per_token(span.time_seconds, span.start, span.end, span.tokens, **column) for column in columns]
    known = [energy for energy in found if energy is not None]
    return sum(known) if len(known) == len(found) else None


def _throttle_reasons(host: _Readings, devices: Sequence[_Readings], span: _Span) -> list[str]:
    heat = increase(host.column("cpu_throttle_count"), span.within)
    reasons = [CPU_HEAT] if heat else []
    for device in devices:
        reasons += throttled(device.column("throttle_mask"), device.content.get("throttle_reasons", {}), span.within)
    return list(dict.fromkeys(reasons))


def _quota_share(host: _Readings, span: _Span) -> float | None:
    seconds = increase(host.column("quota_throttled_seconds"), span.within)
    return None if seconds is None or span.end <= span.start else seconds / (span.end - span.start)


def _others_share(host: _Readings, span: _Span) -> float | None:
    cores = host.content.get("logical_cores", 1)
    others = others_cpu_cores(host.column("cpu_percent"), host.column("worker_cpu_cores"), cores, span.within)
    return None if others is None else others / cores


def _most(column: Column, span: _Span) -> Any:
    return _largest(column[span.within])


def _median(values: Column) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _largest(values: Column) -> Any:
    return max((value for value in values if value is not None), default=None)
