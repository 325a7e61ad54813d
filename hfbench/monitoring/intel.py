"""Intel GPUs (XPU), described and read through the files of the Linux drivers i915 and xe."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfbench.core.system import FILESYSTEM, read_integer, read_text
from hfbench.monitoring.gauges import Gauge, Value, WatchedDevice, file_gauge, sensors, silent_gauge, visible_device

_VENDOR_ID = "0x8086"
# Without the compute runtime torch sees no GPU. Its file is named for its version, as libze_intel_gpu.so.1.6.33944.
_RUNTIME = "libze_intel_gpu.so.1"
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "usr/local/lib")
_UNTOLD = "the driver has no such file for this GPU"


def describe(notes: list[str], root: Path = FILESYSTEM) -> dict[str, dict[str, Any]]:  # noqa: ARG001 (as all vendors)
    """Return what each GPU with a render node is, by its node, in their order; see `Vendor`.

    The memory of a GPU that uses the machine's is None.
    """
    libraries = [path for folder in _LIBRARY_FOLDERS if (path := root / folder / _RUNTIME).exists()]
    versions = [Path(os.path.realpath(library)).name.partition(".so.")[2] for library in libraries]
    return {_identity(folder): _describe(folder, versions[0]) for folder in _gpus(root)} if versions else {}


# Level Zero numbers tiles unless told otherwise (its specification, Device Hierarchy).
_HIERARCHY, _COMPOSITE = "ZE_FLAT_DEVICE_HIERARCHY", "COMPOSITE"


def _identity(folder: Path) -> str:
    return f"intel-{folder.parent.name}"


def _describe(folder: Path, runtime: str) -> dict[str, Any]:
    tiles = [read_integer(file) for file in sorted(folder.glob("tile*/physical_vram_size_bytes"))]
    return {
        "vendor": "intel",
        "torch_device": "xpu",
        "name": _name(folder),
        "memory_bytes": sum(size for size in tiles if size) or None,
        "driver_version": runtime,
        "kernel_driver": Path(os.path.realpath(folder / "driver")).name,
        # Of i915, and of xe, where each tile has one: the first is the compute engine's.
        "max_clock_mhz": _first(folder, "drm/card[0-9]*/gt_RP0_freq_mhz", "tile*/gt*/freq0/rp0_freq"),
        "clock_limit_mhz": _first(folder, "drm/card[0-9]*/gt_max_freq_mhz", "tile*/gt*/freq0/max_freq"),
    }


def _first(folder: Path, *patterns: str) -> int | None:
    files = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
    return next((reading for file in files if (reading := read_integer(file)) is not None), None)


def _gpus(root: Path) -> list[Path]:
    """Return the folder of each GPU with a render node, in the order of the nodes."""
    nodes = sorted((root / "sys/class/drm").glob("renderD*"), key=lambda node: (len(node.name), node.name))
    return [node / "device" for node in nodes if read_text(node / "device/vendor") == _VENDOR_ID]


def _name(folder: Path) -> str:
    return f"Intel GPU {read_text(folder / 'device')} revision {read_text(folder / 'revision')}"


def identify(index: int, variables: Mapping[str, str], root: Path) -> str | None:
    """Return the node of the GPU that torch numbers `index`, or None without such a GPU.

    Raises `LookupError` where it cannot be told which GPU that is.
    """
    folder = _find(index, variables, root)
    return None if folder is None else _identity(folder)


def open_device(index: int, variables: Mapping[str, str], root: Path) -> WatchedDevice | None:
    """Return what `identify` finds, ready to be read. Raises as that does."""
    folder = _find(index, variables, root)
    if folder is None:
        return None
    limits = _throttle_files(folder)
    reasons = {name: 1 << bit for bit, name in enumerate(limits)}
    gauges = _gauges(folder, limits, reasons)
    # The drivers keep no list of processes.
    return WatchedDevice(f"xpu:{index}", _name(folder), _identity(folder), gauges, lambda: None, reasons)


def _find(index: int, variables: Mapping[str, str], root: Path) -> Path | None:
    folders = _gpus(root)
    wanted = visible_device(index, variables.get("ZE_AFFINITY_MASK"))
    if not folders or wanted is None:
        return None
    if len({read_text(folder / "device") for folder in folders}) > 1:
        raise LookupError("this machine has Intel GPUs of several kinds, whose order the driver's files do not tell")
    if variables.get(_HIERARCHY) != _COMPOSITE and any(len(list(folder.glob("tile[0-9]*"))) > 1 for folder in folders):
        raise LookupError(
            f"each tile of these GPUs is a device of its own, and {_HIERARCHY}={_COMPOSITE} would make each GPU one"
        )
    number = int(wanted.partition(".")[0])  # 0.1 is the second tile of the first GPU
    return folders[number] if number < len(folders) else None


def _gauges(folder: Path, limits: dict[str, str], reasons: dict[str, int]) -> list[Gauge]:
    """Return the gauges of a GPU: energy and temperature are the card's, or else the package's.

    Linux describes the files in Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon; those of throttling are
    in drivers/gpu/drm/xe/xe_gt_throttle.c and i915/gt/intel_gt_sysfs_pm.c.
    """

    def throttle_mask() -> Sequence[Value]:
        return [sum(reasons[reason] for reason, file in limits.items() if read_integer(file)) if limits else None]

    hwmon = sensors(folder)
    clocks = [folder / "tile0/gt0/freq0/act_freq", *sorted(folder.glob("drm/card*/gt_act_freq_mhz"))]
    unknown = ("utilisation_percent", "memory_utilisation_percent", "memory_used_bytes", "memory_clock_mhz")
    return [
        silent_gauge(*unknown, otherwise="Intel's drivers tell it to profilers only, not in their files"),
        silent_gauge("power_watts", otherwise="the driver has an energy counter instead"),
        file_gauge("energy_joules", [hwmon / "energy1_input", hwmon / "energy2_input"], 1e-6, _UNTOLD),
        file_gauge("clock_mhz", clocks, 1, _UNTOLD),
        file_gauge("temperature_celsius", [hwmon / "temp1_input", hwmon / "temp2_input"], 1e-3, _UNTOLD),
        Gauge(("throttle_mask",), throttle_mask, _UNTOLD),
    ]


def _throttle_files(folder: Path) -> dict[str, str]:
    """Return the file of each reason for which the GPU may be slowed, in the order of their names."""
    files = [*folder.glob("tile0/gt0/freq0/throttle/reason_*"), *folder.glob("drm/card*/gt/gt0/throttle_reason_*")]
    by_reason = {file.name.partition("reason_")[2]: str(file) for file in files}
    by_reason.pop("status", None)  # i915 names the sum of all like a reason
    return dict(sorted(by_reason.items()))
