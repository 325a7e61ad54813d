"""NVIDIA GPUs, read through the driver's management library (NVML)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hfbench.monitoring.gauges import Gauge, Surroundings, Value, visible_device

# nvml.h, nvmlClocksEventReasons and the throttle reasons that it grew out of.
_THROTTLE_REASONS = {
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


def open_nvidia(index: int, surroundings: Surroundings) -> "NvidiaMonitor | None":
    """Return the monitor of the GPU that torch numbers `index`, or None without a driver or such a GPU.

    Raises `LookupError` where it cannot be told which GPU that is, and NVMLError for a driver that is broken.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()  # until the process ends: the first call may wake the driver, which takes seconds
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    handle = _find(pynvml, index, surroundings)
    return None if handle is None else NvidiaMonitor(pynvml, handle, f"cuda:{index}")


class NvidiaMonitor:
    """One GPU, or one part of a GPU that is divided (MIG), of which NVML tells less."""

    throttle_reasons: Mapping[str, int] = _THROTTLE_REASONS

    def __init__(self, nvml: Any, handle: Any, device: str) -> None:
        self._nvml = nvml
        self._handle = handle
        self.device = device
        self.name = str(nvml.nvmlDeviceGetName(handle))

    def gauges(self) -> Sequence[Gauge]:
        """See `DeviceMonitor`.

        From Ampere on (but for GA100) NVML's power is the mean over the last second; the energy counter has no such
        lag, and exists from Volta on (NVML's reference).
        """
        nvml = self._nvml
        return [
            Gauge(("utilisation_percent", "memory_utilisation_percent"), self._utilisation, _UNTOLD),
            self._gauge("memory_used_bytes", nvml.nvmlDeviceGetMemoryInfo, lambda memory: int(memory.used)),
            self._gauge("power_watts", nvml.nvmlDeviceGetPowerUsage, _thousandth),
            self._gauge("energy_joules", nvml.nvmlDeviceGetTotalEnergyConsumption, _thousandth),
            self._gauge("clock_mhz", nvml.nvmlDeviceGetClockInfo, int, nvml.NVML_CLOCK_SM),
            self._gauge("memory_clock_mhz", nvml.nvmlDeviceGetClockInfo, int, nvml.NVML_CLOCK_MEM),
            self._gauge("temperature_celsius", nvml.nvmlDeviceGetTemperature, int, nvml.NVML_TEMPERATURE_GPU),
            Gauge(("throttle_mask",), self._throttle_mask, _UNTOLD),
        ]

    def processes(self) -> list[int]:
        """See `DeviceMonitor`."""
        return [int(process.pid) for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)]

    def _gauge(self, name: str, function: Any, convert: Callable[[Any], Value], *arguments: Any) -> Gauge:
        return Gauge((name,), lambda: [convert(function(self._handle, *arguments))], _UNTOLD)

    def _utilisation(self) -> Sequence[Value]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        return [int(rates.gpu), int(rates.memory)]

    def _throttle_mask(self) -> Sequence[Value]:
        try:
            return [int(self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))]
        except self._nvml.NVMLError_FunctionNotFound:  # the name before driver 535
            return [int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))]


def _thousandth(value: int) -> float:
    return value / 1000


def _find(nvml: Any, index: int, surroundings: Surroundings) -> Any:
    wanted = visible_device(index, surroundings.variables.get("CUDA_VISIBLE_DEVICES"))
    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    if wanted is None:
        return None
    if wanted.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(wanted)
    if not wanted.isdigit():  # CUDA takes any unambiguous beginning of a UUID
        return next((handle for handle in handles if str(nvml.nvmlDeviceGetUUID(handle)).startswith(wanted)), None)
    is_in_order = surroundings.variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not is_in_order and len({str(nvml.nvmlDeviceGetName(handle)) for handle in handles}) > 1:
        raise LookupError(
            "this machine has GPUs of several kinds, which CUDA numbers by speed and NVML by their place; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID to number them alike"
        )
    return handles[int(wanted)] if int(wanted) < len(handles) else None
