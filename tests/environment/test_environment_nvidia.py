"""NVIDIA GPUs, which are not here: NVML's functions are replaced by written readings.

The readings have the form that NVML's documentation gives them; none was taken from a real device. The names of the
functions and errors are the real ones of `pynvml`.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from hfbench.environment import vendors
from hfbench.environment.accelerators import describe_accelerators
from hfbench.environment.vendors import AmdProbe

READINGS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlShutdown": None,
    "nvmlSystemGetDriverVersion": "580.95.05",
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": "gpu",
    "nvmlDeviceGetName": "NVIDIA H200",
    "nvmlDeviceGetUUID": "GPU-0011aabb-1111-2222-3333-444455556666",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=150754820096, free=1, used=2),
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetNumGpuCores": 16896,
    "nvmlDeviceGetVbiosVersion": "96.00.D0.00.02",
    "nvmlDeviceGetPowerManagementLimit": 600000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700000,
    "nvmlDeviceGetEnforcedPowerLimit": 600000,
    "nvmlDeviceGetEccMode": [1, 0],
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetMaxMigDeviceCount": 2,
    "nvmlDeviceGetMigDeviceHandleByIndex": pynvml.NVMLError_NotFound(),
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetComputeMode": 3,
    "nvmlDeviceGetMaxClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201}[kind],
    "nvmlDeviceGetApplicationsClock": pynvml.NVMLError_NotSupported(),
    "nvmlDeviceGetGpcClkVfOffset": 0,
    "nvmlDeviceGetMemClkVfOffset": 0,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
}


def fake_nvml(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Make NVML's functions answer with READINGS; a function computes its answer, an exception is raised."""
    for name, reading in {**READINGS, **changes}.items():

        def answer(*arguments: Any, reading: Any = reading) -> Any:
            if isinstance(reading, Exception):
                raise reading
            return reading(*arguments) if callable(reading) else reading

        monkeypatch.setattr(pynvml, name, answer)


def test_nvidia_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch)
    devices, notes = describe_accelerators([vendors.NvidiaProbe()])
    assert notes == []
    assert devices == [
        {
            "vendor": "nvidia",
            "torch_device": "cuda",
            "name": "NVIDIA H200",
            "memory_bytes": 150754820096,
            "compute_capability": "9.0",
            "cores": 16896,
            "vbios_version": "96.00.D0.00.02",
            "driver_version": "580.95.05",
            "cuda_driver_version": "13.0",
            "power_limit_watts": 600.0,
            "enforced_power_limit_watts": 600.0,
            "default_power_limit_watts": 700.0,
            "ecc": True,
            "mig": False,
            "mig_devices": [],
            "persistence_mode": True,
            "compute_mode": "exclusive_process",
            "max_clocks_mhz": {"sm": 1980, "memory": 3201},
            "application_clocks_mhz": {"sm": None, "memory": None},
            "clock_offsets_mhz": {"sm": 0, "memory": 0},
            "max_pcie_generation": 5,
            "max_pcie_width": 16,
        }
    ]


def test_reading_that_fails_is_none_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch, nvmlDeviceGetEccMode=pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT))
    (device,), notes = describe_accelerators([vendors.NvidiaProbe()])
    assert (device["name"], device["ecc"]) == ("NVIDIA H200", None)
    assert notes == ["nvidia: nvmlDeviceGetEccMode: Timeout"]


def test_lost_gpu_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(index: int) -> str:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return "gpu"

    fake_nvml(monkeypatch, nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=handle)
    devices, notes = describe_accelerators([vendors.NvidiaProbe()])
    assert len(devices) == 1
    assert notes == ["nvidia: nvmlDeviceGetHandleByIndex: GPU is lost"]


def test_limit_that_a_laptop_moves_by_itself_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch, nvmlDeviceGetPowerManagementLimit=pynvml.NVMLError_NotSupported())
    (device,), _ = describe_accelerators([vendors.NvidiaProbe()])
    assert (device["power_limit_watts"], device["enforced_power_limit_watts"]) == (None, None)


def test_mig_devices_are_listed_in_their_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def mig(_: str, index: int) -> str:
        if index:
            raise pynvml.NVMLError_NotFound()
        return "slice"

    fake_nvml(
        monkeypatch,
        nvmlDeviceGetMigMode=[1, 1],
        nvmlDeviceGetMigDeviceHandleByIndex=mig,
        nvmlDeviceGetName=lambda handle: {"gpu": "NVIDIA H200", "slice": "NVIDIA H200 MIG 1g.18gb"}[handle],
    )
    (device,), _ = describe_accelerators([vendors.NvidiaProbe()])
    assert device["mig"] is True
    assert device["mig_devices"] == [{"name": "NVIDIA H200 MIG 1g.18gb", "memory_bytes": 150754820096}]


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_machine_without_nvidia_driver(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    fake_nvml(monkeypatch, nvmlInit=pynvml.NVMLError(error))
    assert describe_accelerators([vendors.NvidiaProbe()]) == ([], [])


def test_broken_driver_is_noted_and_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml(monkeypatch, nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    devices, notes = describe_accelerators([vendors.NvidiaProbe(), AmdProbe(tmp_path)])
    assert devices == []
    assert notes == ["nvidia: NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch."]
    assert vendors.name_visible_devices("GPU-0011") == "GPU-0011"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0,1", "0,1"),
        ("", ""),
        ("GPU-0011aabb-1111-2222-3333-444455556666", "NVIDIA H200"),
        ("GPU-0011aabb, 2", "NVIDIA H200,2"),
        ("GPU-ffff", "GPU-ffff"),
    ],
)
def test_visible_devices_are_named_without_their_uuid(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    fake_nvml(monkeypatch)
    assert vendors.name_visible_devices(value) == expected
