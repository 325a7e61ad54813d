"""The GPU of Apple's own chips."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hfbench.core.system import FILESYSTEM, read_integer, read_text

_COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}


class NvidiaProbe:
    """Describes each GPU that the driver sees, in the order of their places on the bus."""

    vendor = "nvidia"

    def describe(self, notes: list[str]) -> list[dict[str, Any]]:
        """See `Probe`. A setting that the GPU does not have is None."""
        with _nvml() as nvml:
            if nvml is None:
                return []
            reader = _Reader(nvml, notes)
            version = reader.read("nvmlSystemGetCudaDriverVersion_v2")
            driver = {
                "driver_version": reader.read("nvmlSystemGetDriverVersion"),
                "cuda_driver_version": version and f"{version // 1000}.{version % 1000 // 10}",
            }
            return [{**self._identity(reader, gpu), **driver, **_settings(reader, gpu)} for gpu in _handles(reader)]

    def _identity(self, reader: "_Reader", gpu: Any) -> dict[str, Any]:
        capability = reader.read("nvmlDeviceGetCudaComputeCapability", gpu)
        return {
            "vendor": self.vendor,
            "torch_device": "cuda",
            "name": reader.read("nvmlDeviceGetName", gpu),
            "memory_bytes": _memory_bytes(reader, gpu),
            "compute_capability": capability and f"{capability[0]}.{capability[1]}",
            "cores": reader.read("nvmlDeviceGetNumGpuCores", gpu),
            "vbios_version": reader.read("nvmlDeviceGetVbiosVersion", gpu),
        }


def name_visible_devices(value: str) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES with the UUID of each device here replaced by its name.

    A UUID differs between equal machines; the name still tells the GPUs of a mixed machine apart.
    """
    if not any(item.strip().startswith(("GPU-", "MIG-")) for item in value.split(",")):
        return value
    names: dict[str, str] = {}
    with suppress(Exception), _nvml() as nvml:  # a broken driver is told of by the probe
        if nvml is not None:
            names = _names_by_uuid(_Reader(nvml, []))
    # CUDA takes any unambiguous beginning of a UUID.
    items = [item.strip() for item in value.split(",")]
    return ",".join(
        next((name for uuid, name in names.items() if item and uuid.startswith(item)), item) for item in items
    )


@contextmanager
def _nvml() -> Iterator[Any]:
    """Yield the initialised `pynvml` module, or None without an NVIDIA driver. Raises NVMLError for a broken one."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


class _Reader:
    """Reads one value at a time: None for what a GPU does not have, a note for what fails otherwise."""

    def __init__(self, nvml: Any, notes: list[str]) -> None:
        self.nvml = nvml
        self._notes = notes

    def read(self, function: str, *arguments: Any) -> Any:
        """Return what NVML's function returns, or None."""
        nvml = self.nvml
        absent = (
            nvml.NVMLError_NotSupported,
            nvml.NVMLError_FunctionNotFound,
            nvml.NVMLError_NoPermission,
            nvml.NVMLError_NotFound,
            nvml.NVMLError_Deprecated,
        )
        try:
            return getattr(nvml, function)(*arguments)
        except absent:
            return None
        except (nvml.NVMLError, AttributeError) as error:
            self._notes.append(f"nvidia: {function}: {error}")
            return None


def _settings(reader: _Reader, gpu: Any) -> dict[str, Any]:
    """Return what an administrator can set and what the board allows; clocks in MHz, power in watts."""
    clocks = {"sm": reader.nvml.NVML_CLOCK_SM, "memory": reader.nvml.NVML_CLOCK_MEM}
    mode = reader.read("nvmlDeviceGetComputeMode", gpu)
    return {
        **_power_limits(reader, gpu),
        "ecc": _switch(reader.read("nvmlDeviceGetEccMode", gpu)),
        "mig": _switch(reader.read("nvmlDeviceGetMigMode", gpu)),
        "mig_devices": [
            {"name": reader.read("nvmlDeviceGetName", device), "memory_bytes": _memory_bytes(reader, device)}
            for device in _mig_handles(reader, gpu)
        ],
        "persistence_mode": _switch([reader.read("nvmlDeviceGetPersistenceMode", gpu)]),
        "compute_mode": _COMPUTE_MODES.get(mode, mode),
        "max_clocks_mhz": {name: reader.read("nvmlDeviceGetMaxClockInfo", gpu, id) for name, id in clocks.items()},
        "application_clocks_mhz": {
            name: reader.read("nvmlDeviceGetApplicationsClock", gpu, id) for name, id in clocks.items()
        },
        "clock_offsets_mhz": {
            "sm": reader.read("nvmlDeviceGetGpcClkVfOffset", gpu),
            "memory": reader.read("nvmlDeviceGetMemClkVfOffset", gpu),
        },
        "max_pcie_generation": reader.read("nvmlDeviceGetMaxPcieLinkGeneration", gpu),
        "max_pcie_width": reader.read("nvmlDeviceGetMaxPcieLinkWidth", gpu),
    }


def _power_limits(reader: _Reader, gpu: Any) -> dict[str, float | None]:
    limit = reader.read("nvmlDeviceGetPowerManagementLimit", gpu)
    # Where nobody can set a limit (laptops), the driver moves the enforced one by itself.
    enforced = None if limit is None else reader.read("nvmlDeviceGetEnforcedPowerLimit", gpu)
    default = reader.read("nvmlDeviceGetPowerManagementDefaultLimit", gpu)
    milliwatts = {"power_limit": limit, "enforced_power_limit": enforced, "default_power_limit": default}
    return {f"{name}_watts": None if value is None else value / 1000 for name, value in milliwatts.items()}


def _switch(states: list[int | None] | None) -> bool | None:
    """Return the state in force, which comes first; the one after the next reset may follow it."""
    return None if not states or states[0] is None else bool(states[0])


def _memory_bytes(reader: _Reader, device: Any) -> int | None:
    memory = reader.read("nvmlDeviceGetMemoryInfo", device)
    return None if memory is None else int(memory.total)


def _names_by_uuid(reader: _Reader) -> dict[str, str]:
    devices = [device for gpu in _handles(reader) for device in (gpu, *_mig_handles(reader, gpu))]
    return {
        str(reader.read("nvmlDeviceGetUUID", each)): str(reader.read("nvmlDeviceGetName", each)) for each in devices
    }


def _handles(reader: _Reader) -> list[Any]:
    count = reader.read("nvmlDeviceGetCount") or 0
    handles = (reader.read("nvmlDeviceGetHandleByIndex", index) for index in range(count))
    return [handle for handle in handles if handle is not None]


def _mig_handles(reader: _Reader, gpu: Any) -> list[Any]:
    count = reader.read("nvmlDeviceGetMaxMigDeviceCount", gpu) or 0
    handles = (reader.read("nvmlDeviceGetMigDeviceHandleByIndex", gpu, index) for index in range(count))
    return [handle for handle in handles if handle is not None]


_NODES = "sys/class/kfd/kfd/topology/nodes"


class AmdProbe:
    """Describes each GPU of the compute driver (amdkfd), in its own order, which is also torch's.

    AMD's own library is not used: the description would change with its installation, and the GPU would not.
    The files are documented in Documentation/gpu/amdgpu of Linux.
    """

    vendor = "amd"

    def __init__(self, root: Path = FILESYSTEM) -> None:
        self._root = root

    def describe(self, notes: list[str]) -> list[dict[str, Any]]:
        """See `Probe`."""
        if not (self._root / "dev/kfd").exists():
            return []
        folders = [folder for folder in (self._root / _NODES).glob("*") if folder.name.isdigit()]
        nodes = [_properties(folder) for folder in sorted(folders, key=lambda folder: int(folder.name))]
        # A node without vector units is a CPU; one without readable properties is closed to this container.
        devices = [self._device(node) for node in nodes if node.get("simd_count")]
        notes += [f"amd: no PCI entry for {device['name']}" for device in devices if device["memory_bytes"] is None]
        return devices

    def _device(self, node: dict[str, int]) -> dict[str, Any]:
        device = self._root / f"sys/class/drm/renderD{node.get('drm_render_minor')}/device"
        target = _target(node.get("gfx_target_version", 0))
        model = read_text(device / "product_name") or f"AMD GPU {node.get('device_id', 0):#06x} ({target})"
        return {
            "vendor": self.vendor,
            "torch_device": "cuda",  # torch names ROCm's devices so
            "name": model,
            "memory_bytes": read_integer(device / "mem_info_vram_total"),
            # Only the driver that comes apart from the kernel has a version of its own.
            "driver_version": read_text(self._root / "sys/module/amdgpu/version"),
            "architecture": target,
            "compute_units": node["simd_count"] // node.get("simd_per_cu", 1),
            "vbios_version": read_text(device / "vbios_version"),
            "power_limit_watts": _watts(device, "power1_cap"),
            "default_power_limit_watts": _watts(device, "power1_cap_default"),
            "performance_level": read_text(device / "power_dpm_force_performance_level"),
            "compute_partition": read_text(device / "current_compute_partition"),
            "memory_partition": read_text(device / "current_memory_partition"),
            "max_clock_mhz": node.get("max_engine_clk_fcompute"),
        }


def _properties(folder: Path) -> dict[str, int]:
    pairs = (line.split() for line in (read_text(folder / "properties") or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _target(version: int) -> str:
    """Return a name such as gfx90a; the driver writes it in decimal, two digits a part: 90010."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _watts(device: Path, name: str) -> float | None:
    readings = [read_integer(folder / name) for folder in sorted((device / "hwmon").glob("hwmon*"))]
    microwatts = next((reading for reading in readings if reading is not None), None)
    return None if microwatts is None else microwatts / 1_000_000


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
