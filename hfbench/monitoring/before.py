"""The state of the machine before a worker starts: what would already be in a measurement's way."""

import os
import time
from collections.abc import Sequence
from typing import Any

import psutil

from hfbench.monitoring.devices.interface import DeviceMonitor
from hfbench.monitoring.gauges import Columns, Value
from hfbench.monitoring.host.machine import CpuUse, usable_cpus
from hfbench.monitoring.host.processes import count_others
from hfbench.monitoring.host.processor import processor_gauges
from hfbench.monitoring.kernel_files import read_text

# The kernel counts CPU time in ticks of 10 ms: four for each CPU.
WINDOW_SECONDS = 0.04


def machine_before(devices: Sequence[DeviceMonitor], window_seconds: float = WINDOW_SECONDS) -> dict[str, Any]:
    """Return the state of the machine and of each device, JSON-ready; None or absent is what is not told.

    `cpu_percent` and `steal_percent` are shares of all CPUs over `window_seconds`, in which this process sleeps. The
    load averages still hold what ran in the minutes before, be it the measurement before this one.
    """
    cpu = CpuUse()
    time.sleep(window_seconds)
    cpu_percent, steal_percent = cpu.read()
    processor = Columns(processor_gauges(usable_cpus()))
    processor.sample()
    return {
        "window_seconds": window_seconds,
        "cpu_percent": cpu_percent,
        "steal_percent": steal_percent,
        "load_averages": [round(load, 2) for load in os.getloadavg()],
        "running_threads": _running_threads(),
        "swap_used_bytes": int(psutil.swap_memory().used),
        "available_memory_bytes": int(psutil.virtual_memory().available),
        **{name: value for name, value in processor.last().items() if name.endswith(("_mhz", "_celsius"))},
        "devices": [_device(device) for device in devices],
    }


def _running_threads() -> int | None:
    """Return how many threads run or wait for a CPU, this one left out."""
    words = (read_text("/proc/loadavg") or "").split()
    return int(words[3].partition("/")[0]) - 1 if len(words) > 3 else None


def _device(device: DeviceMonitor) -> dict[str, Any]:
    columns = Columns(device.gauges())
    columns.sample()
    readings: dict[str, Value] = {name: value for name, value in columns.last().items() if value is not None}
    return {"device": device.device, "name": device.name, "other_processes": _other_processes(device), **readings}


def _other_processes(device: DeviceMonitor) -> int | None:
    """Return how many processes use the device; with no worker yet, all of them are others."""
    try:
        listed = device.processes()
    except Exception:  # a vendor's library
        return None
    return None if listed is None else count_others(listed, {os.getpid()}, lambda _: True)
