"""AMD and Intel GPUs, which are not here: files as the drivers' documentation gives them stand for /sys.

None was copied from a real machine. AMD's library is stood in for by a module with the functions that are used.
"""

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pynvml
import pytest

from hfbench.monitoring import amd, intel
from hfbench.monitoring.devices import VENDORS, every_accelerator, open_devices, vendors_of
from hfbench.monitoring.gauges import Columns
from tests.conftest import WriteTree
from tests.monitoring.test_monitor import sampled

NODES = "sys/class/kfd/kfd/topology/nodes"
INSTINCT, RADEON = "sys/class/drm/renderD128/device", "sys/class/drm/renderD129/device"
# A server with a CPU, an Instinct card and a Radeon without product name.
AMD_FILES: dict[str, str | int] = {
    "dev/kfd": "",
    "sys/module/amdgpu/version": "6.12.12",
    f"{NODES}/0/properties": "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0",
    f"{NODES}/10/properties": "simd_count 192\nsimd_per_cu 2\ngfx_target_version 110000\ndevice_id 29772\n"
    "drm_render_minor 129\nmax_engine_clk_fcompute 2482\nunique_id 222",
    f"{NODES}/2/properties": "simd_count 416\nsimd_per_cu 4\ngfx_target_version 90010\ndevice_id 29708\n"
    "drm_render_minor 128\nmax_engine_clk_fcompute 1700\nunique_id 111",
    f"{NODES}/2/gpu_id": 51110,
    f"{INSTINCT}/product_name": "AMD Instinct MI210",
    f"{INSTINCT}/serial_number": "PCB000",
    f"{INSTINCT}/vbios_version": "113-D67301-063",
    f"{INSTINCT}/power_dpm_force_performance_level": "auto",
    f"{INSTINCT}/mem_info_vram_total": 68702699520,
    f"{INSTINCT}/mem_info_vram_used": 5_000_000_000,
    f"{INSTINCT}/gpu_busy_percent": 93,
    f"{INSTINCT}/mem_busy_percent": 40,
    f"{INSTINCT}/hwmon/hwmon7/power1_cap": 300_000_000,
    f"{INSTINCT}/hwmon/hwmon7/power1_cap_default": 300_000_000,
    f"{INSTINCT}/hwmon/hwmon7/power1_input": 212_000_000,
    f"{INSTINCT}/hwmon/hwmon7/freq1_input": 1_650_000_000,
    f"{INSTINCT}/hwmon/hwmon7/freq2_input": 1_600_000_000,
    f"{INSTINCT}/hwmon/hwmon7/temp2_input": 61_000,
    f"{RADEON}/mem_info_vram_total": 25753026560,
    "sys/class/kfd/kfd/proc/4711/vram_51110": 4_000_000_000,
    "sys/class/kfd/kfd/proc/4712/vram_51110": 0,
}
RADEON_NAME = "AMD GPU 0x744c (gfx1100)"
ARC = "sys/class/drm/renderD129/device"
XE_FILES: dict[str, str | int] = {
    "usr/lib/x86_64-linux-gnu/libze_intel_gpu.so.1.6.33944": "",
    "sys/bus/pci/drivers/xe/module": "",
    "sys/class/drm/renderD128/device/vendor": "0x10de",
    f"{ARC}/vendor": "0x8086",
    f"{ARC}/device": "0xe20b",
    f"{ARC}/revision": "0x00",
    f"{ARC}/tile0/physical_vram_size_bytes": 12884901888,
    f"{ARC}/tile0/gt0/freq0/rp0_freq": 2850,
    f"{ARC}/tile0/gt0/freq0/max_freq": 2400,
    f"{ARC}/tile0/gt0/freq0/act_freq": 1200,
    f"{ARC}/tile0/gt0/freq0/throttle/status": 1,
    f"{ARC}/tile0/gt0/freq0/throttle/reason_pl1": 1,
    f"{ARC}/tile0/gt0/freq0/throttle/reason_thermal": 0,
    f"{ARC}/tile0/gt0/freq0/throttle/reason_pl2": 0,
    f"{ARC}/tile0/gt1/freq0/rp0_freq": 1500,
    f"{ARC}/hwmon/hwmon2/energy1_input": 123_456_789,
    f"{ARC}/hwmon/hwmon2/temp2_input": 48_000,
}


@pytest.fixture(autouse=True)
def _without_vendors_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep out what a machine with a real GPU would answer."""
    missing = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setattr(pynvml, "nvmlInit", Mock(side_effect=missing))
    monkeypatch.setitem(sys.modules, "amdsmi", None)


def _described(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    describe = {"amd": partial(amd.describe, root=root), "intel": partial(intel.describe, root=root)}
    return every_accelerator({name: replace(VENDORS[name], describe=each) for name, each in describe.items()})


def test_amd_gpus_are_described_in_the_order_of_their_nodes(write_tree: WriteTree) -> None:
    root = write_tree(AMD_FILES)
    devices, notes = _described(root)
    assert notes == []
    assert devices[0] == {
        "vendor": "amd",
        "torch_device": "cuda",
        "name": "AMD Instinct MI210",
        "memory_bytes": 68702699520,
        "driver_version": "6.12.12",
        "architecture": "gfx90a",
        "compute_units": 104,
        "vbios_version": "113-D67301-063",
        "power_limit_watts": 300.0,
        "default_power_limit_watts": 300.0,
        "performance_level": "auto",
        "compute_partition": None,
        "memory_partition": None,
        "max_clock_mhz": 1700,
    }
    assert [(device["name"], device["compute_units"]) for device in devices[1:]] == [(RADEON_NAME, 96)]
    shutil.rmtree(root / RADEON)
    devices, notes = _described(root)
    assert [device["memory_bytes"] for device in devices] == [68702699520, None]
    assert notes == ["amd: no PCI entry for AMD GPU … (gfx1100)"]


def test_readings_of_an_amd_gpu(write_tree: WriteTree) -> None:
    (device,), unavailable = open_devices("cuda", {}, write_tree(AMD_FILES))
    told, untold = sampled(Columns(device.gauges))
    assert (device.device, device.name, unavailable) == ("cuda:0", "AMD Instinct MI210", {})
    assert told == {
        "utilisation_percent": 93,
        "memory_utilisation_percent": 40,
        "memory_used_bytes": 5_000_000_000,
        "power_watts": 212,
        "clock_mhz": 1650,
        "memory_clock_mhz": 1600,
        "temperature_celsius": 61,
    }
    assert set(untold) == {"energy_joules", "throttle_mask"}
    assert device.processes() == [4711]  # the other one holds no memory on it


def test_amd_gpu_that_is_hidden_or_closed_or_named_by_its_uuid(write_tree: WriteTree) -> None:
    root = write_tree(AMD_FILES)
    for variables in ({"HIP_VISIBLE_DEVICES": "1"}, {"ROCR_VISIBLE_DEVICES": "1,0", "HIP_VISIBLE_DEVICES": "0"}):
        assert open_devices("cuda:0", variables, root)[0][0].name == RADEON_NAME
    assert open_devices("cuda", {"HIP_VISIBLE_DEVICES": "-1"}, root)[0] == []
    devices, unavailable = open_devices("cuda", {"ROCR_VISIBLE_DEVICES": "GPU-77ee"}, root)
    assert devices == []
    assert "GPU-77ee" in unavailable["amd"]
    (root / "dev/kfd").unlink()  # a container that was given none
    assert _described(root) == ([], [])
    assert open_devices("cuda", {"ROCR_VISIBLE_DEVICES": "GPU-77ee"}, root)[0] == []


@pytest.mark.parametrize("name", ["energy_accumulator", "power"])
def test_amd_energy_comes_from_amds_library(write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    root = write_tree({**AMD_FILES, "sys/devices/0000:C1:00.0/product_name": "AMD Instinct MI210"})
    (root / INSTINCT).rename(root / "taken")
    (root / INSTINCT).symlink_to(root / "sys/devices/0000:C1:00.0")
    library = SimpleNamespace(
        amdsmi_init=lambda: None,
        amdsmi_get_processor_handles=lambda: ["other", "gpu"],
        amdsmi_get_gpu_device_bdf=lambda handle: {"other": "0000:41:00.0", "gpu": "0000:c1:00.0"}[handle],
        amdsmi_get_energy_count=lambda handle: {name: 2_000_000, "counter_resolution": {"gpu": 15.25}[handle]},
    )
    monkeypatch.setitem(sys.modules, "amdsmi", library)
    (device,), _ = open_devices("cuda", {}, root)
    assert sampled(Columns(device.gauges))[0]["energy_joules"] == 30.5


def test_intel_gpu_is_described_where_the_compute_runtime_is(write_tree: WriteTree) -> None:
    root = write_tree(XE_FILES)
    assert _described(root) == ([], []), "no compute runtime, no device"
    (root / "usr/lib/x86_64-linux-gnu/libze_intel_gpu.so.1").symlink_to("libze_intel_gpu.so.1.6.33944")
    (root / ARC / "driver").symlink_to(root / "sys/bus/pci/drivers/xe")
    described = {
        "vendor": "intel",
        "torch_device": "xpu",
        "name": "Intel GPU 0xe20b revision 0x00",
        "memory_bytes": 12884901888,
        "driver_version": "1.6.33944",
        "kernel_driver": "xe",
        "max_clock_mhz": 2850,
        "clock_limit_mhz": 2400,
    }
    assert _described(root) == ([described], [])


def test_readings_of_an_intel_gpu_of_the_driver_xe(write_tree: WriteTree) -> None:
    (device,), unavailable = open_devices("xpu", {}, write_tree(XE_FILES))
    told, untold = sampled(Columns(device.gauges))
    assert (device.device, device.name, unavailable) == ("xpu:0", "Intel GPU 0xe20b revision 0x00", {})
    assert told == {
        "energy_joules": 123.456789,
        "clock_mhz": 1200,
        "temperature_celsius": 48,
        "throttle_mask": device.throttle_reasons["pl1"],
    }
    assert set(device.throttle_reasons) == {"pl1", "pl2", "thermal"}
    assert {"utilisation_percent", "power_watts", "memory_used_bytes"} <= set(untold)
    assert device.processes() is None


def test_readings_of_an_intel_gpu_of_the_driver_i915(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            f"{ARC}/vendor": "0x8086",
            f"{ARC}/device": "0x56a0",
            f"{ARC}/drm/card0/gt_act_freq_mhz": 2400,
            f"{ARC}/drm/card0/gt/gt0/throttle_reason_status": 1,
            f"{ARC}/drm/card0/gt/gt0/throttle_reason_thermal": 1,
        }
    )
    (device,), _ = open_devices("xpu", {}, root)
    assert sampled(Columns(device.gauges))[0] == {"clock_mhz": 2400, "throttle_mask": 1}
    assert device.throttle_reasons == {"thermal": 1}


def test_gpus_whose_tiles_are_devices_are_told_apart_only_where_each_is_one(write_tree: WriteTree) -> None:
    """Level Zero numbers the tiles of a card unless it is told to number cards; these cards have two each."""
    tiles: dict[str, str | int] = {f"tile{number}/physical_vram_size_bytes": 2**36 for number in range(2)}
    card: dict[str, str | int] = {"vendor": "0x8086", "device": "0x0bd5", **tiles}
    cards = {
        f"sys/class/drm/renderD{number}/device/{file}": value for number in (128, 129) for file, value in card.items()
    }
    devices, unavailable = open_devices("xpu:1", {}, root := write_tree(cards))
    assert devices == []
    assert "ZE_FLAT_DEVICE_HIERARCHY=COMPOSITE would make each GPU one" in unavailable["intel"]
    (second,), _ = open_devices("xpu:1", {"ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}, root)
    assert second.identity == "intel-renderD129"


def test_a_device_is_one_of_a_vendor_that_torch_uses(write_tree: WriteTree) -> None:
    root = write_tree(AMD_FILES)
    assert open_devices("cuda", {}, root, vendors_of([{"vendor": "nvidia"}]))[0] == []
    assert len(open_devices("cuda", {}, root, vendors_of([{"vendor": "amd"}]))[0]) == 1
    assert len(open_devices("cuda", {}, root, vendors_of([]))[0]) == 1


def test_machine_without_accelerator(tmp_path: Path) -> None:
    assert open_devices("cpu", {}, tmp_path) == ([], {})
    assert open_devices("xpu", {}, tmp_path) == ([], {"xpu": "no driver for it tells of such a device"})
    assert "root" in open_devices("mps", {}, tmp_path)[1]["apple"]
    assert _described(tmp_path) == ([], [])
