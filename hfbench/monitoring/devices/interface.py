"""What the monitor needs of a device, whoever made it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hfbench.monitoring.gauges import Gauge


class DeviceMonitor(Protocol):
    """One accelerator, read from outside the process that uses it.

    Vendors use the same names for the same readings: utilisation_percent, memory_utilisation_percent,
    memory_used_bytes, power_watts, energy_joules (a counter), clock_mhz (of the compute units), memory_clock_mhz,
    temperature_celsius, throttle_mask.
    """

    device: str  # as torch calls it: cuda:0
    name: str
    throttle_reasons: Mapping[str, int]  # the bit of throttle_mask that each reason has

    def gauges(self) -> Sequence[Gauge]:
        """Return the device's gauges."""

    def processes(self) -> Collection[int] | None:
        """Return the ids of the processes that use the device for computing, or None where that is not told."""


@dataclass(frozen=True)
class Surroundings:
    """Where a vendor's devices are looked for: the environment variables, and the root of the file system."""

    variables: Mapping[str, str]
    root: Path


def visible_device(index: int, visible: str | None) -> str | None:
    """Return what the driver calls the device that torch numbers `index`: a number or a UUID, or None if hidden.

    `visible` is the value of a variable such as CUDA_VISIBLE_DEVICES. A list ends at its first invalid entry.
    """
    if visible is None:
        return str(index)
    items = [item.strip() for item in visible.split(",")]
    is_hidden = index >= len(items) or any(item in ("", "-1") for item in items[: index + 1])
    return None if is_hidden else items[index]
