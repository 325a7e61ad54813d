"""Intel GPUs (XPU), read through the files of the Linux drivers i915 and xe."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hfbench.monitoring.gauges import Gauge, Surroundings, Value, visible_device
from hfbench.monitoring.host import file_gauge, read_integer, read_text

_VENDOR_ID = "0x8086"
_UNTOLD = "the driver has no such file for this GPU"
_NOT_IN_FILES = "Intel's drivers tell it to profilers only, not in their files"


def open_intel(index: int, surroundings: Surroundings) -> "IntelMonitor | None":
    """Return the monitor of the GPU that torch numbers `index`, or None without such a GPU.

    Raises `LookupError` where it cannot be told which GPU that is.
    """
    drm = surroundings.root / "sys/class/drm"
    nodes = sorted(drm.glob("renderD*"), key=lambda node: (len(node.name), node.name))
    devices = [node / "device" for node in nodes if read_text(node / "device/vendor") == _VENDOR_ID]
    wanted = visible_device(index, surroundings.variables.get("ZE_AFFINITY_MASK"))
    if not devices or wanted is None:
        return None
    if len({read_text(device / "device") for device in devices}) > 1:
        raise LookupError("this machine has Intel GPUs of several kinds, whose order the driver's files do not tell")
    number = int(wanted.partition(".")[0])  # 0.1 is the second tile of the first GPU
    return IntelMonitor(devices[number], f"xpu:{index}") if number < len(devices) else None


class IntelMonitor:
    """One GPU. Linux describes the files in Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon.

    Those of throttling are in drivers/gpu/drm/xe/xe_gt_throttle.c and i915/gt/intel_gt_sysfs_pm.c.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self.device = device
        self.name = f"Intel GPU {read_text(folder / 'device')}"
        self._limits = _throttle_files(folder)
        self.throttle_reasons: Mapping[str, int] = {name: 1 << bit for bit, name in enumerate(self._limits)}

    def gauges(self) -> Sequence[Gauge]:
        """See `DeviceMonitor`. Energy and temperature are the card's, or else the package's."""
        folder = self._folder
        hwmon = next(iter(sorted((folder / "hwmon").glob("hwmon*"))), folder / "hwmon")
        clocks = [folder / "tile0/gt0/freq0/act_freq", *sorted(folder.glob("drm/card*/gt_act_freq_mhz"))]
        unknown = ("utilisation_percent", "memory_utilisation_percent", "memory_used_bytes", "memory_clock_mhz")
        return [
            Gauge(unknown, lambda: [None] * len(unknown), _NOT_IN_FILES),
            Gauge(("power_watts",), lambda: [None], "the driver has an energy counter instead"),
            file_gauge("energy_joules", [hwmon / "energy1_input", hwmon / "energy2_input"], 1e-6, _UNTOLD),
            file_gauge("clock_mhz", clocks, 1, _UNTOLD),
            file_gauge("temperature_celsius", [hwmon / "temp1_input", hwmon / "temp2_input"], 1e-3, _UNTOLD),
            Gauge(("throttle_mask",), self._throttle_mask, _UNTOLD),
        ]

    def processes(self) -> None:
        """See `DeviceMonitor`: the drivers keep no list."""
        return

    def _throttle_mask(self) -> Sequence[Value]:
        if not self._limits:
            return [None]
        bits = self.throttle_reasons
        return [sum(bits[reason] for reason, file in self._limits.items() if read_integer(file))]


def _throttle_files(folder: Path) -> dict[str, str]:
    """Return the file of each reason for which the GPU may be slowed, in the order of their names."""
    files = [*folder.glob("tile0/gt0/freq0/throttle/reason_*"), *folder.glob("drm/card*/gt/gt0/throttle_reason_*")]
    by_reason = {file.name.partition("reason_")[2]: str(file) for file in files}
    by_reason.pop("status", None)  # i915 names the sum of all like a reason
    return dict(sorted(by_reason.items()))
