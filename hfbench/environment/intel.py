"""Intel GPUs that torch can compute on, as the Linux drivers i915 and xe describe them in /sys."""

import os
from pathlib import Path
from typing import Any

from hfbench.environment.readings import FILESYSTEM, read_integer, read_text

_VENDOR_ID = "0x8086"
# Without the compute runtime torch sees no GPU. Its file is named for its version, as libze_intel_gpu.so.1.6.33944.
_RUNTIME = "libze_intel_gpu.so.1"
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "usr/local/lib")


class IntelProbe:
    """Describes each Intel GPU with a render node, in the order of the nodes."""

    vendor = "intel"

    def __init__(self, root: Path = FILESYSTEM) -> None:
        self._root = root

    def describe(self, notes: list[str]) -> list[dict[str, Any]]:  # noqa: ARG002 (the interface of all vendors)
        """See `Probe`. The memory of a GPU that uses the machine's is None."""
        runtime = self._runtime_version()
        if runtime is None:
            return []
        nodes = sorted((self._root / "sys/class/drm").glob("renderD*"), key=lambda node: (len(node.name), node.name))
        devices = [node / "device" for node in nodes if read_text(node / "device/vendor") == _VENDOR_ID]
        return [self._device(device, runtime) for device in devices]

    def _device(self, device: Path, runtime: str) -> dict[str, Any]:
        cards = sorted((device / "drm").glob("card[0-9]*"))
        tiles = [read_integer(file) for file in sorted(device.glob("tile*/physical_vram_size_bytes"))]
        return {
            "vendor": self.vendor,
            "torch_device": "xpu",
            "name": f"Intel GPU {read_text(device / 'device')} revision {read_text(device / 'revision')}",
            "memory_bytes": sum(size for size in tiles if size) or None,
            "driver_version": runtime,
            "kernel_driver": Path(os.path.realpath(device / "driver")).name,
            "max_clock_mhz": _first([*(card / "gt_RP0_freq_mhz" for card in cards), *_gt(device, "rp0_freq")]),
            "clock_limit_mhz": _first([*(card / "gt_max_freq_mhz" for card in cards), *_gt(device, "max_freq")]),
        }

    def _runtime_version(self) -> str | None:
        for folder in _LIBRARY_FOLDERS:
            library = self._root / folder / _RUNTIME
            if library.exists():
                return Path(os.path.realpath(library)).name.partition(".so.")[2]
        return None


def _gt(device: Path, name: str) -> list[Path]:
    """Return xe's clock files: one for each graphics tile; the first is the compute engine's."""
    return sorted(device.glob(f"tile*/gt*/freq0/{name}"))


def _first(paths: list[Path]) -> int | None:
    return next((reading for path in paths if (reading := read_integer(path)) is not None), None)
