"""The devices that a measurement is watched on."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from hfbench.monitoring.amd import open_amd
from hfbench.monitoring.gauges import DeviceMonitor, Surroundings
from hfbench.monitoring.host import ROOT
from hfbench.monitoring.intel import open_intel
from hfbench.monitoring.nvidia import open_nvidia

_Open = Callable[[int, Surroundings], DeviceMonitor | None]
# torch calls the devices of NVIDIA and of AMD's ROCm alike.
_VENDORS: dict[str, dict[str, _Open]] = {
    "cpu": {},
    "mps": {},
    "cuda": {"nvidia": open_nvidia, "amd": open_amd},
    "xpu": {"intel": open_intel},
    "auto": {"nvidia": open_nvidia, "amd": open_amd, "intel": open_intel},
}
_REASONS = {
    "cpu": {},
    "mps": {"mps": "macOS tells power, clocks and use of its GPU to root only"},
}


def open_devices(
    device: str, variables: Mapping[str, str] = os.environ, root: Path = ROOT
) -> tuple[list[DeviceMonitor], dict[str, str]]:
    """Return the monitors of the device that params.yaml names, and why there is none for what has none.

    `auto` is the first accelerator that there is; on a machine without one, both are empty. Raises nothing.
    """
    kind, _, number = device.partition(":")
    unavailable: dict[str, str] = dict(_REASONS.get(kind, {}))
    for vendor, open_device in _VENDORS[kind].items():
        try:
            monitor = open_device(int(number or 0), Surroundings(variables, root))
        except Exception as error:  # a vendor's broken driver must not stop a measurement
            unavailable[vendor] = f"{type(error).__name__}: {error}"
            continue
        if monitor is not None:
            return [monitor], {}
    if _VENDORS[kind] and kind != "auto" and not unavailable:
        unavailable[device] = "no driver for it tells of such a device"
    return [], unavailable
