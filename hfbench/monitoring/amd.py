"""AMD GPUs, read through the files of the Linux driver; the energy comes from AMD's library where it is installed."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfbench.monitoring.gauges import Gauge, Surroundings, Value, visible_device
from hfbench.monitoring.host import file_gauge, read_integer, read_text

_NODES = "sys/class/kfd/kfd/topology/nodes"
_PROCESSES = "sys/class/kfd/kfd/proc"
_UNTOLD = "the amdgpu driver has no such file for this GPU"


def open_amd(index: int, surroundings: Surroundings) -> "AmdMonitor | None":
    """Return the monitor of the GPU that torch numbers `index`, or None without the compute driver or such a GPU.

    Raises `LookupError` where a variable names GPUs by their UUID.
    """
    root, variables = surroundings.root, surroundings.variables
    nodes = [folder for folder in (root / _NODES).glob("*") if folder.name.isdigit()]
    gpus = [node for node in sorted(nodes, key=lambda node: int(node.name)) if _properties(node).get("simd_count")]
    number = index
    # ROCr hides devices first, and HIP numbers the rest.
    hip = variables.get("HIP_VISIBLE_DEVICES", variables.get("CUDA_VISIBLE_DEVICES"))
    for visible in (hip, variables.get("ROCR_VISIBLE_DEVICES")):
        wanted = visible_device(number, visible)
        if wanted is None:
            return None
        if not wanted.isdigit():
            raise LookupError(f"a variable names the GPU {wanted}; the driver's files know numbers only")
        number = int(wanted)
    return AmdMonitor(gpus[number], f"cuda:{index}", root) if number < len(gpus) else None


class AmdMonitor:
    """One GPU. The files are documented in Documentation/gpu/amdgpu/thermal.rst of Linux."""

    throttle_reasons: Mapping[str, int] = {}

    def __init__(self, node: Path, device: str, root: Path) -> None:
        self._root = root
        self._folder = root / f"sys/class/drm/renderD{_properties(node).get('drm_render_minor')}/device"
        self._gpu_id = read_text(node / "gpu_id")
        self.device = device
        self.name = read_text(self._folder / "product_name") or f"AMD GPU {read_text(self._folder / 'device')}"

    def gauges(self) -> Sequence[Gauge]:
        """See `DeviceMonitor`. The temperature is that of the hottest place (junction) where the GPU tells it."""
        folder = self._folder
        hwmon = next(iter(sorted((folder / "hwmon").glob("hwmon*"))), folder / "hwmon")
        return [
            file_gauge("utilisation_percent", [folder / "gpu_busy_percent"], 1, _UNTOLD),
            file_gauge("memory_utilisation_percent", [folder / "mem_busy_percent"], 1, _UNTOLD),
            file_gauge("memory_used_bytes", [folder / "mem_info_vram_used"], 1, _UNTOLD),
            file_gauge("power_watts", [hwmon / "power1_average", hwmon / "power1_input"], 1e-6, _UNTOLD),
            _energy(folder),
            file_gauge("clock_mhz", [hwmon / "freq1_input"], 1e-6, _UNTOLD),
            file_gauge("memory_clock_mhz", [hwmon / "freq2_input"], 1e-6, _UNTOLD),
            file_gauge("temperature_celsius", [hwmon / "temp2_input", hwmon / "temp1_input"], 1e-3, _UNTOLD),
            # amdsmi_get_violation_status waits 0.1 s between two readings of its own.
            Gauge(("throttle_mask",), lambda: [None], "AMD's library takes 0.1 s to tell it, too long for a sample"),
        ]

    def processes(self) -> Collection[int] | None:
        """See `DeviceMonitor`. A process that only opened the driver, and took no memory, does not count."""
        folder = self._root / _PROCESSES
        if self._gpu_id is None or not folder.is_dir():
            return None
        pids = [entry.name for entry in folder.iterdir() if entry.name.isdigit()]
        return [int(pid) for pid in pids if read_integer(folder / pid / f"vram_{self._gpu_id}")]


def _properties(node: Path) -> dict[str, int]:
    pairs = (line.split() for line in (read_text(node / "properties") or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _energy(folder: Path) -> Gauge:
    """Return the gauge of the energy counter, which only AMD's library reads (it comes with ROCm)."""
    try:
        import amdsmi
    except ImportError:
        return Gauge(("energy_joules",), lambda: [None], "AMD's library (amdsmi) is not installed")
    try:
        amdsmi.amdsmi_init()
        place = folder.resolve().name.lower()  # the PCI address, as 0000:c1:00.0
        handles = amdsmi.amdsmi_get_processor_handles()
        handle = next(each for each in handles if str(amdsmi.amdsmi_get_gpu_device_bdf(each)).lower() == place)
    except Exception as error:  # the library may be of another version than the driver
        return Gauge(("energy_joules",), lambda: [None], f"amdsmi: {type(error).__name__}: {error}")

    def read() -> Sequence[Value]:
        counter: dict[str, Any] = amdsmi.amdsmi_get_energy_count(handle)
        ticks = counter["energy_accumulator"] if "energy_accumulator" in counter else counter["power"]  # older ones
        return [round(ticks * counter["counter_resolution"] / 1e6, 6)]  # the resolution is in microjoules

    return Gauge(("energy_joules",), read, "amdsmi gave no value")
