"""NVIDIA GPUs, which are not here: NVML's functions are replaced by written readings.

The readings have the form that NVML's reference gives them; none was taken from a real device. The names of the
functions, constants and errors are the real ones of `pynvml`.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from hfbench.monitoring import amd
from hfbench.monitoring.devices import VENDORS, every_accelerator, measured_accelerators, open_devices, take_device
from hfbench.monitoring.monitor import Monitor, machine_before
from hfbench.monitoring.nvidia import THROTTLE_REASONS

UUIDS = {"gpu0": "GPU-0011aabb-1111", "gpu1": "GPU-22cc33dd-2222"}
NVIDIA = {"nvidia": VENDORS["nvidia"]}


def _process(pid: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=1)


READINGS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": lambda index: f"gpu{index}",
    "nvmlDeviceGetName": "NVIDIA H200",
    "nvmlDeviceGetUUID": UUIDS.__getitem__,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=150754820096, free=1, used=3_000_000_000),
    # What stands still.
    "nvmlSystemGetDriverVersion": "580.95.05",
    "nvmlSystemGetCudaDriverVersion_v2": 13000,
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
    # What moves.
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=61),
    "nvmlDeviceGetPowerUsage": 412_345,
    "nvmlDeviceGetTotalEnergyConsumption": 987_654_321,
    "nvmlDeviceGetClockInfo": lambda _, kind: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201}[kind],
    "nvmlDeviceGetTemperature": 54,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4,
    "nvmlDeviceGetComputeRunningProcesses": [],
}


FakeNvml = Callable[..., None]


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Have NVML's functions answer with READINGS, and return what changes some of them.

    A function or an iterator gives each answer, an error is raised.
    """

    def fake(**readings: Any) -> None:
        for name, reading in readings.items():

            def answer(*arguments: Any, reading: Any = reading) -> Any:
                value = next(reading) if isinstance(reading, Iterator) else reading
                if isinstance(value, Exception):
                    raise value
                return value(*arguments) if callable(value) else value

            monkeypatch.setattr(pynvml, name, answer)

    fake(**READINGS)
    return fake


def test_nvidia_gpu() -> None:
    (device,), notes = every_accelerator(NVIDIA)
    assert notes == []
    assert device == {
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
        "persistence_mode": True,
        "compute_mode": "exclusive_process",
        "max_clocks_mhz": {"sm": 1980, "memory": 3201},
        "application_clocks_mhz": {"sm": None, "memory": None},
        "clock_offsets_mhz": {"sm": 0, "memory": 0},
        "max_pcie_generation": 5,
        "max_pcie_width": 16,
    }


def test_reading_that_fails_is_none_and_noted(nvml: FakeNvml) -> None:
    nvml(
        nvmlDeviceGetEccMode=pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT),
        # A laptop has no limit to be set, and moves the enforced one by itself.
        nvmlDeviceGetPowerManagementLimit=pynvml.NVMLError_NotSupported(),
    )
    (device,), notes = every_accelerator(NVIDIA)
    assert (device["name"], device["ecc"]) == ("NVIDIA H200", None)
    assert (device["power_limit_watts"], device["enforced_power_limit_watts"]) == (None, None)
    assert notes == ["nvidia: nvmlDeviceGetEccMode: Timeout"]


def test_lost_gpu_hides_no_other(nvml: FakeNvml) -> None:
    lost = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    nvml(nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=iter([lost, "gpu1"]))
    devices, notes = every_accelerator(NVIDIA)
    assert len(devices) == 1
    assert notes == ["nvidia: nvmlDeviceGetHandleByIndex: GPU is lost"]


MIG: dict[str, Any] = {
    "nvmlDeviceGetMigMode": [1, 1],
    "nvmlDeviceGetMigDeviceHandleByIndex": lambda _, index: f"part{index}",
    "nvmlDeviceGetName": lambda handle: "NVIDIA H200" if handle == "gpu0" else "NVIDIA H200 MIG 1g.18gb",
    "nvmlDeviceGetUUID": {**UUIDS, "part0": "MIG-77ee", "part1": "MIG-88ff"}.__getitem__,
    "nvmlDeviceGetHandleByUUID": {"MIG-77ee": "part0", "MIG-88ff": "part1"}.__getitem__,
}


def test_parts_of_a_divided_gpu_stand_in_its_place(nvml: FakeNvml) -> None:
    nvml(**MIG)
    devices, _ = every_accelerator(NVIDIA)
    assert [(each["name"], each["mig"]) for each in devices] == [("NVIDIA H200 MIG 1g.18gb", True)] * 2


CUDA_BUILD = {"cuda": "13.0"}


def test_a_number_does_not_tell_which_part_of_a_divided_gpu_is_meant(nvml: FakeNvml) -> None:
    nvml(**MIG)
    choices: list[dict[str, str]] = [{}, {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "GPU-0011"}]
    for visible in choices:
        devices, unavailable = open_devices("cuda", visible)
        assert devices == []
        assert "divided (MIG)" in unavailable["nvidia"]
        assert len(measured_accelerators("cuda", CUDA_BUILD, visible)[0]) == 2, "either may be it"
    (device,), _ = open_devices("cuda:0", {"CUDA_VISIBLE_DEVICES": "MIG-88ff"})
    assert (device.name, device.identity) == ("NVIDIA H200 MIG 1g.18gb", "MIG-88ff")


def test_what_chooses_among_equal_gpus_and_what_becomes_of_a_neighbour_changes_nothing(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetCount=2)
    alone, _ = measured_accelerators("auto", CUDA_BUILD, {})
    assert [(each["name"], each["count"]) for each in alone] == [("NVIDIA H200", 2)]
    for device, visible in (("cuda", "1"), ("cuda:0", "GPU-22cc33dd-2222"), ("cuda:1", "0,1"), ("auto", "1,0")):
        assert measured_accelerators(device, CUDA_BUILD, {"CUDA_VISIBLE_DEVICES": visible}) == (alone, [])
    limits = {"gpu0": 600000, "gpu1": 300000}
    nvml(nvmlDeviceGetPowerManagementLimit=limits.__getitem__, nvmlDeviceGetMigMode=lambda gpu: [gpu == "gpu1", 0])
    assert measured_accelerators("cuda:0", CUDA_BUILD, {}) == (alone, [])
    nvml(nvmlDeviceGetMigMode=[0, 0])
    assert measured_accelerators("cuda:0", CUDA_BUILD, {"CUDA_VISIBLE_DEVICES": "1"})[0] != alone


def test_the_cpu_depends_on_no_gpu_and_a_torch_of_another_build_has_none() -> None:
    assert measured_accelerators("cpu", CUDA_BUILD, {}) == ([], [])
    assert measured_accelerators("auto", {}, {}) == ([], [])
    assert measured_accelerators("cuda", {"hip": "7.2"}, {}, NVIDIA) == ([], [])
    assert measured_accelerators("cuda:1", CUDA_BUILD, {}) == ([], [])
    assert measured_accelerators("auto", CUDA_BUILD, {"CUDA_VISIBLE_DEVICES": ""}) == ([], [])


def test_who_measures_beside_another_has_another_gpu_of_the_kind(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetCount=iter([2, 2, 2, 2, 2, 2, 2, 2]), nvmlDeviceGetHandleByIndex=lambda index: f"gpu{index}")
    with take_device("cuda", "the first") as first, take_device("cuda", "the second") as second:
        assert {first.device, second.device} == {"cuda:0", "cuda:1"}
        assert {each.watched[0].identity for each in (first, second)} == set(UUIDS.values())
        assert first.waited_seconds == second.waited_seconds == 0


def test_ranks_hold_the_first_gpus_of_the_kind_together(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetCount=iter([2] * 4), nvmlDeviceGetHandleByIndex=lambda index: f"gpu{index}")
    with take_device("cuda", "both", first=2) as taken:
        assert taken.device == "cuda"
        assert [each.device for each in taken.watched] == ["cuda:0", "cuda:1"]


def _record(device: str = "cuda:0", samples: int = 1, visible: str | None = None) -> dict[str, Any]:
    """What a record holds of the device after some samples, with this process as the worker."""
    devices, unavailable = open_devices(device, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert unavailable == {}
    monitor = Monitor(os.getpid(), 60, time.perf_counter(), devices)
    for _ in range(samples):
        monitor.sample(time.perf_counter())
    (content,) = monitor.summary()["devices"]
    assert isinstance(content, dict)
    return content


def test_readings_have_the_units_of_their_names() -> None:
    record = _record()
    assert (record["device"], record["name"]) == ("cuda:0", "NVIDIA H200")
    assert record["unavailable"] == {}
    assert record["series"] == {
        "utilisation_percent": [97],
        "memory_utilisation_percent": [61],
        "memory_used_bytes": [3_000_000_000],
        "power_watts": [412.345],
        "energy_joules": [987_654.321],
        "clock_mhz": [1980],
        "memory_clock_mhz": [3201],
        "temperature_celsius": [54],
        "throttle_mask": [4],
        "other_processes": [0],
    }


def test_throttle_reasons_are_decoded_to_names_by_the_bits_of_the_library(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetCurrentClocksEventReasons=iter([0x1, 0x4, 0x4 | 0x40, 0x0]))
    record = _record(samples=4)
    assert record["throttled_samples"] == {"gpu_idle": 1, "sw_power_cap": 2, "hw_thermal_slowdown": 1}
    assert record["series"]["throttle_mask"] == [1, 4, 68, 0]
    for name, bit in THROTTLE_REASONS.items():
        constant = "nvmlClocksThrottleReason" + "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, constant) == bit


def test_driver_before_535_knows_the_reasons_under_their_old_name(nvml: FakeNvml) -> None:
    missing = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    nvml(nvmlDeviceGetCurrentClocksEventReasons=missing, nvmlDeviceGetCurrentClocksThrottleReasons=0x20)
    assert _record()["throttled_samples"] == {"sw_thermal_slowdown": 1}


def test_reading_that_fails_once_is_a_gap_and_one_that_is_not_supported_has_a_reason(nvml: FakeNvml) -> None:
    nvml(
        nvmlDeviceGetPowerUsage=iter([400_000, pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT), 401_000]),
        nvmlDeviceGetTotalEnergyConsumption=pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
    )
    record = _record(samples=3)
    assert record["series"]["power_watts"] == [400, None, 401]
    assert record["unavailable"] == {"energy_joules": "NVMLError_NotSupported: Not Supported"}
    assert record["series"]["clock_mhz"] == [1980] * 3


def test_worker_is_not_another_process(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetComputeRunningProcesses=[_process(os.getpid()), _process(os.getppid())])
    assert _record()["series"]["other_processes"] == [1]


def test_ids_of_a_containers_host_are_not_taken_for_other_processes(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetComputeRunningProcesses=[_process(2**22 + 5)])  # above the kernel's highest id
    record = _record()
    assert "other_processes" not in record["series"]
    assert "container" in record["unavailable"]["other_processes"]


def test_list_of_processes_is_not_asked_for_at_every_sample(nvml: FakeNvml) -> None:
    nvml(nvmlDeviceGetComputeRunningProcesses=iter([[_process(os.getppid())]]))  # a second question would fail
    assert _record(samples=3)["series"]["other_processes"] == [1, 1, 1]


def test_state_before_the_start(nvml: FakeNvml) -> None:
    others = [_process(os.getppid()), _process(2**22 + 5)]
    nvml(nvmlDeviceGetComputeRunningProcesses=others)
    (device,) = machine_before(open_devices("cuda:0", {})[0], window_seconds=0)["devices"]
    assert device["other_processes"] == 2  # there is no worker yet: whoever is there is another
    assert (device["utilisation_percent"], device["temperature_celsius"]) == (97, 54)


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cuda:0", None, "gpu0"),
        ("cuda:1", None, "gpu1"),
        ("cuda:0", "1", "gpu1"),
        ("cuda:1", "1,0,-1", "gpu0"),  # what stands after it does not matter
        ("cuda:0", "GPU-22cc", "gpu1"),
        ("cuda:0", "GPU-22cc33dd-2222,GPU-0011aabb-1111", "gpu1"),
    ],
)
def test_device_that_torch_sees_is_the_one_that_is_read(
    nvml: FakeNvml, device: str, visible: str | None, expected: str
) -> None:
    temperatures = {"gpu0": 40, "gpu1": 80}
    nvml(nvmlDeviceGetCount=2, nvmlDeviceGetTemperature=lambda handle, _: temperatures[handle])
    record = _record(device, visible=visible)
    assert record["series"]["temperature_celsius"] == [temperatures[expected]]


@pytest.mark.parametrize("visible", ["", "-1", "1,-1,0", "5"])
def test_device_that_is_hidden_or_missing_is_not_watched(nvml: FakeNvml, visible: str) -> None:
    nvml(nvmlDeviceGetCount=2)
    device = "cuda:2" if visible == "1,-1,0" else "cuda"
    devices, unavailable = open_devices(device, {"CUDA_VISIBLE_DEVICES": visible})
    assert devices == []
    assert list(unavailable) == [device]


def test_gpus_of_two_kinds_are_told_apart_only_in_the_order_of_the_bus(nvml: FakeNvml) -> None:
    names = {"gpu0": "NVIDIA T400", "gpu1": "NVIDIA H200"}
    nvml(nvmlDeviceGetCount=2, nvmlDeviceGetName=names.__getitem__)
    devices, unavailable = open_devices("cuda", {})
    assert devices == []
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in unavailable["nvidia"]
    (device,), _ = open_devices("cuda:1", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert device.name == "NVIDIA H200"


def test_part_of_a_divided_gpu_tells_less(nvml: FakeNvml) -> None:
    unsupported = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    nvml(
        **MIG,
        nvmlDeviceGetUtilizationRates=unsupported,
        nvmlDeviceGetPowerUsage=unsupported,
    )
    record = _record(visible="MIG-77ee")
    assert record["series"]["memory_used_bytes"] == [3_000_000_000]
    assert {"utilisation_percent", "memory_utilisation_percent", "power_watts"} == set(record["unavailable"])


def test_broken_driver_is_told_and_stops_nothing(nvml: FakeNvml, tmp_path: Path) -> None:
    nvml(nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    devices, unavailable = open_devices("cuda", {})
    assert devices == []
    assert "version mismatch" in unavailable["nvidia"]
    described, notes = every_accelerator(
        {**NVIDIA, "amd": replace(VENDORS["amd"], describe=partial(amd.describe, root=tmp_path))}
    )
    assert described == []
    assert notes == ["nvidia: NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch."]


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_machine_without_driver(nvml: FakeNvml, error: int) -> None:
    nvml(nvmlInit=pynvml.NVMLError(error))
    assert open_devices("cuda", {})[0] == []
    assert open_devices("cpu", {}) == ([], {})
    assert every_accelerator(NVIDIA) == ([], [])
