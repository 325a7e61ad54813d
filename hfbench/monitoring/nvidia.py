"""NVIDIA GPUs, described and read through the driver's management library (NVML)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfbench.core.system import FILESYSTEM
from hfbench.monitoring.gauges import Gauge, Value, WatchedDevice, visible_device

_COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
# nvml.h, nvmlClocksEventReasons and the throttle reasons that it grew out of.
THROTTLE_REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clock_setting": 0x100,
    "board_limit": 0x200,
    "reliability": 0x400,
}
_UNTOLD = "NVML gave no value"


def _library() -> Any:
    """Return `pynvml`, initialised until the process ends, or None without a driver. Raises NVMLError for a broken one.

    The first call may wake the driver, which takes seconds.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    return pynvml


def describe(notes: list[str], root: Path = FILESYSTEM) -> dict[str, dict[str, Any]]:  # noqa: ARG001 (as all vendors)
    """Return what each GPU is and how it is set, by its UUID, in the order of the bus; see `Vendor`.

    A GPU that is divided (MIG) is not to be had whole: its parts stand in its place, each with its own memory. Clocks
    are in MHz, power in watts; a setting that the GPU does not have is None. Raises NVMLError for a driver that is
    broken.
    """
    nvml = _library()
    if nvml is None:
        return {}
    reader = _Reader(nvml, notes)
    version = reader.call("nvmlSystemGetCudaDriverVersion_v2")
    driver = {
        "driver_version": reader.call("nvmlSystemGetDriverVersion"),
        "cuda_driver_version": version and f"{version // 1000}.{version % 1000 // 10}",
    }
    found: dict[str, dict[str, Any]] = {}
    for gpu in reader.gpus():
        whole = {**_identity(reader, gpu), **driver, **_settings(reader, gpu)}
        parts = reader.mig_devices(gpu) if whole["mig"] else []
        for part in parts or [gpu]:
            own = {"name": reader.read("Name", part), "memory_bytes": _memory_bytes(reader, part)}
            found[reader.read("UUID", part) or f"nvidia-{len(found)}"] = {**whole, **own}
    return found


class _Reader:
    """Reads one value at a time: None for what a GPU does not have, a note for what fails otherwise."""

    def __init__(self, nvml: Any, notes: list[str]) -> None:
        self.nvml = nvml
        self._notes = notes

    def call(self, function: str, *arguments: Any) -> Any:
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

    def read(self, what: str, device: Any, *arguments: Any) -> Any:
        """Return what `nvmlDeviceGet…` tells of a device, or None."""
        return self.call(f"nvmlDeviceGet{what}", device, *arguments)

    def gpus(self) -> list[Any]:
        """Return the handles of all GPUs that can be reached."""
        count = self.call("nvmlDeviceGetCount") or 0
        handles = (self.call("nvmlDeviceGetHandleByIndex", index) for index in range(count))
        return [handle for handle in handles if handle is not None]

    def mig_devices(self, gpu: Any) -> list[Any]:
        """Return the handles of the parts of a GPU that is divided."""
        handles = (
            self.read("MigDeviceHandleByIndex", gpu, index) for index in range(self.read("MaxMigDeviceCount", gpu) or 0)
        )
        return [handle for handle in handles if handle is not None]


def _identity(reader: _Reader, gpu: Any) -> dict[str, Any]:
    capability = reader.read("CudaComputeCapability", gpu)
    return {
        "vendor": "nvidia",
        "torch_device": "cuda",
        "compute_capability": capability and f"{capability[0]}.{capability[1]}",
        "cores": reader.read("NumGpuCores", gpu),
        "vbios_version": reader.read("VbiosVersion", gpu),
    }


def _settings(reader: _Reader, gpu: Any) -> dict[str, Any]:
    """Return what an administrator can set and what the board allows."""
    read, clocks = reader.read, {"sm": reader.nvml.NVML_CLOCK_SM, "memory": reader.nvml.NVML_CLOCK_MEM}
    mode, limit = read("ComputeMode", gpu), read("PowerManagementLimit", gpu)
    return {
        "power_limit_watts": _thousandth(limit),
        # Where nobody can set a limit (laptops), the driver moves the enforced one by itself.
        "enforced_power_limit_watts": None if limit is None else _thousandth(read("EnforcedPowerLimit", gpu)),
        "default_power_limit_watts": _thousandth(read("PowerManagementDefaultLimit", gpu)),
        "ecc": _switch(read("EccMode", gpu)),
        "mig": _switch(read("MigMode", gpu)),
        "persistence_mode": _switch([read("PersistenceMode", gpu)]),
        "compute_mode": _COMPUTE_MODES.get(mode, mode),
        "max_clocks_mhz": {name: read("MaxClockInfo", gpu, clock) for name, clock in clocks.items()},
        "application_clocks_mhz": {name: read("ApplicationsClock", gpu, clock) for name, clock in clocks.items()},
        "clock_offsets_mhz": {"sm": read("GpcClkVfOffset", gpu), "memory": read("MemClkVfOffset", gpu)},
        "max_pcie_generation": read("MaxPcieLinkGeneration", gpu),
        "max_pcie_width": read("MaxPcieLinkWidth", gpu),
    }


def _memory_bytes(reader: _Reader, device: Any) -> int | None:
    memory = reader.read("MemoryInfo", device)
    return None if memory is None else int(memory.total)


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _switch(states: list[int | None] | None) -> bool | None:
    """Return the state in force, which comes first; the one after the next reset may follow it."""
    return None if not states or states[0] is None else bool(states[0])


def identify(index: int, variables: Mapping[str, str], root: Path) -> str | None:  # noqa: ARG001 (as all vendors)
    """Return the UUID of the GPU, or of the part of a divided one (MIG), that torch numbers `index`.

    None where there is no driver, or not so many GPUs that CUDA_VISIBLE_DEVICES lets through. Raises `LookupError`
    where it cannot be told which GPU that is, and NVMLError for a driver that is broken.
    """
    nvml = _library()
    handle = None if nvml is None else _find(nvml, index, variables)
    return None if handle is None else str(nvml.nvmlDeviceGetUUID(handle))


def open_device(index: int, variables: Mapping[str, str], root: Path) -> WatchedDevice | None:  # noqa: ARG001
    """Return what `identify` finds, ready to be read. Raises as that does."""
    nvml = _library()
    handle = None if nvml is None else _find(nvml, index, variables)
    if handle is None:
        return None

    def processes() -> list[int]:
        return [int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]

    name, uuid = str(nvml.nvmlDeviceGetName(handle)), str(nvml.nvmlDeviceGetUUID(handle))
    return WatchedDevice(f"cuda:{index}", name, uuid, _gauges(nvml, handle), processes, THROTTLE_REASONS)


def _find(nvml: Any, index: int, variables: Mapping[str, str]) -> Any:
    wanted = visible_device(index, variables.get("CUDA_VISIBLE_DEVICES"))
    if wanted is None:
        return None
    if wanted.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(wanted)
    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    if wanted.startswith("GPU-"):  # CUDA takes any unambiguous beginning of a UUID
        found = next((handle for handle in handles if str(nvml.nvmlDeviceGetUUID(handle)).startswith(wanted)), None)
    elif not wanted.isdigit():
        raise LookupError(f"CUDA_VISIBLE_DEVICES names the device {wanted}; name it by its UUID (nvidia-smi -L)")
    else:
        is_in_order = variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if not is_in_order and len({str(nvml.nvmlDeviceGetName(handle)) for handle in handles}) > 1:
            raise LookupError(
                "this machine has GPUs of several kinds, which CUDA numbers by speed and NVML by their place; "
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID to number them alike"
            )
        found = handles[int(wanted)] if int(wanted) < len(handles) else None
    if found is not None and _is_divided(nvml, found):
        raise LookupError(
            f"the GPU {wanted} is divided (MIG), and a number does not tell which of its parts CUDA takes; "
            "set CUDA_VISIBLE_DEVICES to the UUID of one (nvidia-smi -L)"
        )
    return found


def _is_divided(nvml: Any, gpu: Any) -> bool:
    reader = _Reader(nvml, [])
    return bool(_switch(reader.read("MigMode", gpu)) and reader.mig_devices(gpu))


def _gauges(nvml: Any, handle: Any) -> list[Gauge]:
    """Return the gauges of a GPU, or of a part, of which NVML tells less.

    From Ampere on (but for GA100) NVML's power is the mean over the last second; the energy counter has no such lag,
    and exists from Volta on (NVML's reference).
    """

    def gauge(name: str, function: Any, convert: Callable[[Any], Value], *arguments: Any) -> Gauge:
        return Gauge((name,), lambda: [convert(function(handle, *arguments))], _UNTOLD)

    def utilisation() -> Sequence[Value]:
        rates = nvml.nvmlDeviceGetUtilizationRates(handle)
        return [int(rates.gpu), int(rates.memory)]

    def throttle_mask() -> Sequence[Value]:
        try:
            return [int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))]
        except nvml.NVMLError_FunctionNotFound:  # the name before driver 535
            return [int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))]

    return [
        Gauge(("utilisation_percent", "memory_utilisation_percent"), utilisation, _UNTOLD),
        gauge("memory_used_bytes", nvml.nvmlDeviceGetMemoryInfo, lambda memory: int(memory.used)),
        gauge("power_watts", nvml.nvmlDeviceGetPowerUsage, _thousandth),
        gauge("energy_joules", nvml.nvmlDeviceGetTotalEnergyConsumption, _thousandth),
        gauge("clock_mhz", nvml.nvmlDeviceGetClockInfo, int, nvml.NVML_CLOCK_SM),
        gauge("memory_clock_mhz", nvml.nvmlDeviceGetClockInfo, int, nvml.NVML_CLOCK_MEM),
        gauge("temperature_celsius", nvml.nvmlDeviceGetTemperature, int, nvml.NVML_TEMPERATURE_GPU),
        Gauge(("throttle_mask",), throttle_mask, _UNTOLD),
    ]
