"""The accelerators of this machine, over all vendors."""

import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from hfbench.monitoring import amd, intel, nvidia

Describe = Callable[[list[str]], list[dict[str, Any]]]
# A path or an address would differ between equal machines.
_PLACE = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])/[^\s'\":,]+")


def describe_apple(notes: list[str]) -> list[dict[str, Any]]:
    """Return what the one GPU of a Mac with Apple silicon is, which shares the machine's memory."""
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return []
    memory = _sysctl("hw.memsize")
    if memory is None:
        notes.append("apple: sysctl hw.memsize could not be read")
    return [
        {
            "vendor": "apple",
            "torch_device": "mps",
            "name": _sysctl("machdep.cpu.brand_string"),
            "memory_bytes": None if memory is None else int(memory),
            "driver_version": platform.mac_ver()[0],  # the driver is a part of macOS
        }
    ]


def _sysctl(name: str) -> str | None:
    try:
        output = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.strip() or None


VENDORS: dict[str, Describe] = {
    "nvidia": nvidia.describe,
    "amd": amd.describe,
    "intel": intel.describe,
    "apple": describe_apple,
}


def describe_accelerators(vendors: Mapping[str, Describe] = VENDORS) -> tuple[list[dict[str, Any]], list[str]]:
    """Return every device found, and a note for each thing that could not be read. Raises nothing.

    Each vendor's function returns a dictionary for each device, in a stable order: vendor, torch_device, name,
    memory_bytes, … It has none where the vendor's driver or library is not here; what could not be read although it is
    here, the function adds to the list that it is given.
    """
    devices: list[dict[str, Any]] = []
    notes: list[str] = []
    for vendor, describe in vendors.items():
        try:
            devices += describe(notes)
        except Exception as error:  # a vendor's broken driver must not stop a measurement on the CPU
            notes.append(f"{vendor}: {type(error).__name__}: {error}")
    return devices, [_PLACE.sub("…", note) for note in notes]
