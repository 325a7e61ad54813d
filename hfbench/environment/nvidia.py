"""NVIDIA GPUs, as the driver's management library (NVML) describes them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

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
