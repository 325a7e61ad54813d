"""The GPU of a Mac with Apple silicon, described by macOS's own commands; nothing tells how it is used."""

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfbench.core.system import FILESYSTEM
from hfbench.monitoring.gauges import WatchedDevice

_IDENTITY = "apple"


def describe(notes: list[str], root: Path = FILESYSTEM) -> dict[str, dict[str, Any]]:  # noqa: ARG001 (as all vendors)
    """Return what the one GPU is, which shares the machine's memory; see `Vendor`."""
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return {}
    memory = _sysctl("hw.memsize")
    if memory is None:
        notes.append("apple: sysctl hw.memsize could not be read")
    gpu = {
        "vendor": "apple",
        "torch_device": "mps",
        "name": _sysctl("machdep.cpu.brand_string"),
        "memory_bytes": None if memory is None else int(memory),
        "driver_version": platform.mac_ver()[0],  # the driver is a part of macOS
    }
    return {_IDENTITY: gpu}


def identify(index: int, variables: Mapping[str, str], root: Path) -> str | None:  # noqa: ARG001
    """Return what the one GPU is called, or None for a second."""
    return _IDENTITY if index == 0 and describe([]) else None


def open_device(index: int, variables: Mapping[str, str], root: Path) -> WatchedDevice | None:  # noqa: ARG001
    """Raise `LookupError`: there is nothing to read."""
    raise LookupError("macOS tells power, clocks and use of its GPU to root only")


def _sysctl(name: str) -> str | None:
    try:
        output = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.strip() or None
