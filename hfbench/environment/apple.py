"""The GPU of Apple's own chips."""

import platform
import subprocess
from typing import Any


class AppleProbe:
    """Describes the one GPU of a Mac with Apple silicon, which shares the machine's memory."""

    vendor = "apple"

    def describe(self, notes: list[str]) -> list[dict[str, Any]]:
        """See `Probe`."""
        if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
            return []
        memory = _sysctl("hw.memsize")
        if memory is None:
            notes.append("apple: sysctl hw.memsize could not be read")
        return [
            {
                "vendor": self.vendor,
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
