"""AMD GPUs, described and read through the files of the Linux driver.

They are documented in Documentation/gpu/amdgpu of Linux. AMD's library has no part in the description, which would
change with its installation while the GPU does not; it tells the energy where it is installed.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hfbench.core.system import FILESYSTEM, read_integer, read_text
from hfbench.monitoring.gauges import Gauge, Value, WatchedDevice, file_gauge, sensors, silent_gauge, visible_device

_NODES = "sys/class/kfd/kfd/topology/nodes"
_PROCESSES = "sys/class/kfd/kfd/proc"
_UNTOLD = "the amdgpu driver has no such file for this GPU"


class _Gpu:
    """A node of the compute driver (amdkfd), the folders of its PCI device and sensors, and what it is called."""

    def __init__(self, node: Path, root: Path) -> None:
        pairs = (line.split() for line in (read_text(node / "properties") or "").splitlines())
        self.properties = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
        self.node = node
        self.folder = root / f"sys/class/drm/renderD{self.properties.get('drm_render_minor')}/device"
        self.hwmon = sensors(self.folder)
        self.identity = f"amd-{node.name}"
        # The driver writes gfx90a in decimal, two digits a part: 90010.
        version = self.properties.get("gfx_target_version", 0)
        self.target = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
        number = self.properties.get("device_id", 0)
        self.name = read_text(self.folder / "product_name") or f"AMD GPU {number:#06x} ({self.target})"


def _gpus(root: Path) -> list[_Gpu]:
    """Return the GPUs in the order of the compute driver, which is also torch's; none where it is closed to us."""
    if not (root / "dev/kfd").exists():
        return []
    nodes = [folder for folder in (root / _NODES).glob("*") if folder.name.isdigit()]
    gpus = [_Gpu(node, root) for node in sorted(nodes, key=lambda node: int(node.name))]
    # A node without vector units is a CPU; one without readable properties is closed to this container.
    return [gpu for gpu in gpus if gpu.properties.get("simd_count")]


def describe(notes: list[str], root: Path = FILESYSTEM) -> dict[str, dict[str, Any]]:
    """Return what each GPU is, by its node; see `Vendor`."""
    devices = {gpu.identity: _describe(gpu, root) for gpu in _gpus(root)}
    notes += [f"amd: no PCI entry for {each['name']}" for each in devices.values() if each["memory_bytes"] is None]
    return devices


def _describe(gpu: _Gpu, root: Path) -> dict[str, Any]:
    folder, properties = gpu.folder, gpu.properties
    return {
        "vendor": "amd",
        "torch_device": "cuda",  # torch names ROCm's devices so
        "name": gpu.name,
        "memory_bytes": read_integer(folder / "mem_info_vram_total"),
        # Only the driver that comes apart from the kernel has a version of its own.
        "driver_version": read_text(root / "sys/module/amdgpu/version"),
        "architecture": gpu.target,
        "compute_units": properties["simd_count"] // properties.get("simd_per_cu", 1),
        "vbios_version": read_text(folder / "vbios_version"),
        "power_limit_watts": _watts(gpu.hwmon / "power1_cap"),
        "default_power_limit_watts": _watts(gpu.hwmon / "power1_cap_default"),
        "performance_level": read_text(folder / "power_dpm_force_performance_level"),
        "compute_partition": read_text(folder / "current_compute_partition"),
        "memory_partition": read_text(folder / "current_memory_partition"),
        "max_clock_mhz": properties.get("max_engine_clk_fcompute"),
    }


def _watts(file: Path) -> float | None:
    microwatts = read_integer(file)
    return None if microwatts is None else microwatts / 1_000_000


def identify(index: int, variables: Mapping[str, str], root: Path) -> str | None:
    """Return the node of the GPU that torch numbers `index`, or None without the compute driver or it.

    Raises `LookupError` where a variable names GPUs by their UUID.
    """
    gpu = _find(index, variables, root)
    return None if gpu is None else gpu.identity


def open_device(index: int, variables: Mapping[str, str], root: Path) -> WatchedDevice | None:
    """Return what `identify` finds, ready to be read. Raises as that does."""
    gpu = _find(index, variables, root)
    if gpu is None:
        return None
    processes = partial(_processes, gpu, root / _PROCESSES)
    return WatchedDevice(f"cuda:{index}", gpu.name, gpu.identity, _gauges(gpu), processes)


def _find(index: int, variables: Mapping[str, str], root: Path) -> _Gpu | None:
    gpus, number = _gpus(root), index
    # ROCr hides devices first, and HIP numbers the rest.
    hip = variables.get("HIP_VISIBLE_DEVICES", variables.get("CUDA_VISIBLE_DEVICES"))
    for visible in (hip, variables.get("ROCR_VISIBLE_DEVICES")) if gpus else ():
        wanted = visible_device(number, visible)
        if wanted is None:
            return None
        if not wanted.isdigit():
            raise LookupError(f"a variable names the GPU {wanted}; the driver's files know numbers only")
        number = int(wanted)
    return gpus[number] if number < len(gpus) else None


def _gauges(gpu: _Gpu) -> list[Gauge]:
    """Return the gauges of a GPU. The temperature is that of the hottest place (junction) where the GPU tells it."""
    folder, hwmon = gpu.folder, gpu.hwmon
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
        silent_gauge("throttle_mask", otherwise="AMD's library takes 0.1 s to tell it, too long for a sample"),
    ]


def _processes(gpu: _Gpu, folder: Path) -> Collection[int] | None:
    """Return the processes that hold memory on the GPU: one that only opened the driver does not count."""
    number = read_text(gpu.node / "gpu_id")
    if number is None or not folder.is_dir():
        return None
    return [int(entry.name) for entry in folder.glob("[0-9]*") if read_integer(entry / f"vram_{number}")]


def _energy(folder: Path) -> Gauge:
    """Return the gauge of the energy counter, which only AMD's library reads (it comes with ROCm)."""
    try:
        import amdsmi
    except ImportError:
        return silent_gauge("energy_joules", otherwise="AMD's library (amdsmi) is not installed")
    try:
        amdsmi.amdsmi_init()
        place = folder.resolve().name.lower()  # the PCI address, as 0000:c1:00.0
        handles = amdsmi.amdsmi_get_processor_handles()
        handle = next(each for each in handles if str(amdsmi.amdsmi_get_gpu_device_bdf(each)).lower() == place)
    except Exception as error:  # the library may be of another version than the driver
        return silent_gauge("energy_joules", otherwise=f"amdsmi: {type(error).__name__}: {error}")

    def read() -> Sequence[Value]:
        counter: dict[str, Any] = amdsmi.amdsmi_get_energy_count(handle)
        ticks = counter["energy_accumulator"] if "energy_accumulator" in counter else counter["power"]  # older ones
        return [round(ticks * counter["counter_resolution"] / 1e6, 6)]  # the resolution is in microjoules

    return Gauge(("energy_joules",), read, "amdsmi gave no value")
