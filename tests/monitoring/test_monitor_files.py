"""What Linux tells in files: the processor, AMD and Intel GPUs, and container limits, none of which are here.

The trees are written after the kernel's documentation of each file; none was copied from a real machine. AMD's library
is stood in for by a module with the two functions that are used.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pynvml
import pytest

from hfbench.monitoring.choose import open_devices
from hfbench.monitoring.gauges import Columns
from hfbench.monitoring.host import processor_gauges, quota_gauge
from tests.conftest import WriteTree

CPUS = "sys/devices/system/cpu"
NODES = "sys/class/kfd/kfd/topology/nodes"
AMD_DEVICE = "sys/class/drm/renderD128/device"
AMD_FILES: dict[str, str | int] = {
    f"{NODES}/0/properties": "simd_count 0\ncpu_cores_count 64",  # the CPU is a node too
    f"{NODES}/1/properties": "simd_count 1216\ndrm_render_minor 128",
    f"{NODES}/1/gpu_id": 51110,
    f"{AMD_DEVICE}/product_name": "AMD Instinct MI300X",
    f"{AMD_DEVICE}/gpu_busy_percent": 93,
    f"{AMD_DEVICE}/mem_busy_percent": 40,
    f"{AMD_DEVICE}/mem_info_vram_used": 5_000_000_000,
    f"{AMD_DEVICE}/hwmon/hwmon4/power1_input": 512_000_000,
    f"{AMD_DEVICE}/hwmon/hwmon4/freq1_input": 2_100_000_000,
    f"{AMD_DEVICE}/hwmon/hwmon4/freq2_input": 1_300_000_000,
    f"{AMD_DEVICE}/hwmon/hwmon4/temp2_input": 61_000,
    "sys/class/kfd/kfd/proc/4711/vram_51110": 4_000_000_000,
    "sys/class/kfd/kfd/proc/4712/vram_51110": 0,
}
XE = "sys/class/drm/renderD128/device"
XE_FILES: dict[str, str | int] = {
    f"{XE}/vendor": "0x8086",
    f"{XE}/device": "0xe20b",
    f"{XE}/hwmon/hwmon2/energy1_input": 123_456_789,
    f"{XE}/hwmon/hwmon2/temp2_input": 48_000,
    f"{XE}/tile0/gt0/freq0/act_freq": 2850,
    f"{XE}/tile0/gt0/freq0/throttle/status": 1,
    f"{XE}/tile0/gt0/freq0/throttle/reason_pl1": 1,
    f"{XE}/tile0/gt0/freq0/throttle/reason_thermal": 0,
    f"{XE}/tile0/gt0/freq0/throttle/reason_pl2": 0,
}


@pytest.fixture(autouse=True)
def _without_vendors_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep out what a machine with a real GPU would answer."""
    missing = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setattr(pynvml, "nvmlInit", Mock(side_effect=missing))
    monkeypatch.setitem(sys.modules, "amdsmi", None)


def _sampled(columns: Columns) -> tuple[dict[str, Any], dict[str, str]]:
    columns.sample()
    return {name: values[-1] for name, values in columns.told().items()}, columns.unavailable()


def test_processor(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            **{f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": 3_000_000 + cpu * 200_000 for cpu in range(3)},
            f"{CPUS}/cpu0/thermal_throttle/core_throttle_count": 3,
            f"{CPUS}/cpu0/thermal_throttle/package_throttle_count": 4,
            "sys/class/hwmon/hwmon0/name": "nvme",
            "sys/class/hwmon/hwmon0/temp1_input": 90_000,
            "sys/class/hwmon/hwmon1/name": "coretemp",
            "sys/class/hwmon/hwmon1/temp1_input": 71_000,
            "sys/class/hwmon/hwmon2/name": "coretemp",
            "sys/class/hwmon/hwmon2/temp1_input": 67_500,
        }
    )
    told, unavailable = _sampled(Columns(processor_gauges([0, 1], root)))  # CPU 2 is not the worker's
    assert told == {
        "cpu_clock_mhz": 3100.0,
        "cpu_highest_clock_mhz": 3200.0,
        "cpu_temperature_celsius": 71.0,
        "cpu_throttle_count": 7,
    }
    assert set(unavailable) == {"cpu_energy_joules"}


def test_clocks_of_a_large_machine_are_sampled_over_all_of_it(write_tree: WriteTree) -> None:
    root = write_tree({f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq": cpu * 1000 for cpu in range(128)})
    told, _ = _sampled(Columns(processor_gauges(range(128), root)))
    assert told["cpu_highest_clock_mhz"] == 120  # every eighth: 0, 8, … 120
    assert told["cpu_clock_mhz"] == 60


def test_energy_goes_on_where_the_counter_starts_again(write_tree: WriteTree) -> None:
    files: dict[str, str | int] = {}
    for package, energy in (("0", 9_000_000), ("1", 1_000_000)):
        zone = f"sys/class/powercap/intel-rapl:{package}"
        files |= {f"{zone}/name": f"package-{package}", f"{zone}/energy_uj": energy}
        files |= {f"{zone}/max_energy_range_uj": 10_000_000}
    files |= {"sys/class/powercap/intel-rapl:0:0/name": "dram", "sys/class/powercap/intel-rapl:0:0/energy_uj": 77}
    root = write_tree(files)
    columns = Columns(processor_gauges([0], root))
    columns.sample()
    # The first package's counter passes 10 J and stands at 2 J: 3 J more. The second took 1 J.
    write_tree({"sys/class/powercap/intel-rapl:0/energy_uj": 2_000_000})
    write_tree({"sys/class/powercap/intel-rapl:1/energy_uj": 2_000_000})
    columns.sample()
    assert columns.told()["cpu_energy_joules"] == [0, 4]


def test_machine_that_tells_nothing_says_why(tmp_path: Path) -> None:
    told, unavailable = _sampled(Columns([*processor_gauges([0], tmp_path), quota_gauge(tmp_path)]))
    assert told == {}
    assert len(unavailable) == 6
    assert "virtual machines" in unavailable["cpu_clock_mhz"]


@pytest.mark.parametrize(
    ("groups", "files", "seconds"),
    [
        (
            "0::/user.slice/run.scope",  # the limit may stand at any level
            {"user.slice/run.scope": "nr_throttled 0\nthrottled_usec 0", "user.slice": "throttled_usec 1500000"},
            1.5,
        ),
        ("0::/", {"": "nr_periods 9\nnr_throttled 3\nthrottled_usec 250000"}, 0.25),
        ("4:memory:/x\n1:cpu,cpuacct:/docker/77", {"cpu": "nr_throttled 2\nthrottled_time 2000000000"}, 2.0),
    ],
)
def test_time_held_back_by_a_container(
    write_tree: WriteTree, groups: str, files: dict[str, str], seconds: float
) -> None:
    stats = {f"sys/fs/cgroup/{group}/cpu.stat": text for group, text in files.items()}
    told, _ = _sampled(Columns([quota_gauge(write_tree({"proc/self/cgroup": groups, **stats}))]))
    assert told == {"quota_throttled_seconds": seconds}


def test_amd_gpu(write_tree: WriteTree) -> None:
    (monitor,), unavailable = open_devices("cuda", {}, write_tree(AMD_FILES))
    told, untold = _sampled(Columns(monitor.gauges()))
    assert (monitor.device, monitor.name, unavailable) == ("cuda:0", "AMD Instinct MI300X", {})
    assert told == {
        "utilisation_percent": 93,
        "memory_utilisation_percent": 40,
        "memory_used_bytes": 5_000_000_000,
        "power_watts": 512,
        "clock_mhz": 2100,
        "memory_clock_mhz": 1300,
        "temperature_celsius": 61,
    }
    assert set(untold) == {"energy_joules", "throttle_mask"}
    assert monitor.processes() == [4711]  # the other one holds no memory on it


def test_amd_gpu_that_is_hidden_or_named_by_its_uuid(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            **AMD_FILES,
            f"{NODES}/2/properties": "simd_count 1216\ndrm_render_minor 136",
            "sys/class/drm/renderD136/device/product_name": "the second",
        }
    )
    assert open_devices("cuda", {"HIP_VISIBLE_DEVICES": "1"}, root)[0][0].name == "the second"
    assert open_devices("cuda", {"ROCR_VISIBLE_DEVICES": "1,0", "HIP_VISIBLE_DEVICES": "0"}, root)[0][0].name == (
        "the second"
    )
    assert open_devices("cuda", {"HIP_VISIBLE_DEVICES": "-1"}, root)[0] == []
    monitors, unavailable = open_devices("cuda", {"ROCR_VISIBLE_DEVICES": "GPU-77ee"}, root)
    assert monitors == []
    assert "GPU-77ee" in unavailable["amd"]


@pytest.mark.parametrize("name", ["energy_accumulator", "power"])
def test_amd_energy_comes_from_amds_library(write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    root = write_tree({**AMD_FILES, "sys/devices/0000:C1:00.0/product_name": "AMD Instinct MI300X"})
    folder = root / AMD_DEVICE
    folder.rename(folder.with_name("taken"))
    folder.symlink_to(root / "sys/devices/0000:C1:00.0")
    library = SimpleNamespace(
        amdsmi_init=lambda: None,
        amdsmi_get_processor_handles=lambda: ["other", "gpu"],
        amdsmi_get_gpu_device_bdf=lambda handle: {"other": "0000:41:00.0", "gpu": "0000:c1:00.0"}[handle],
        amdsmi_get_energy_count=lambda handle: {name: 2_000_000, "counter_resolution": {"gpu": 15.25}[handle]},
    )
    monkeypatch.setitem(sys.modules, "amdsmi", library)
    (monitor,), _ = open_devices("cuda", {}, root)
    assert _sampled(Columns(monitor.gauges()))[0]["energy_joules"] == 30.5


def test_intel_gpu_of_the_driver_xe(write_tree: WriteTree) -> None:
    (monitor,), unavailable = open_devices("xpu", {}, write_tree(XE_FILES))
    told, untold = _sampled(Columns(monitor.gauges()))
    assert (monitor.device, monitor.name, unavailable) == ("xpu:0", "Intel GPU 0xe20b", {})
    assert told == {
        "energy_joules": 123.456789,
        "clock_mhz": 2850,
        "temperature_celsius": 48,
        "throttle_mask": monitor.throttle_reasons["pl1"],
    }
    assert set(monitor.throttle_reasons) == {"pl1", "pl2", "thermal"}
    assert {"utilisation_percent", "power_watts", "memory_used_bytes"} <= set(untold)
    assert monitor.processes() is None


def test_intel_gpu_of_the_driver_i915(write_tree: WriteTree) -> None:
    root = write_tree(
        {
            f"{XE}/vendor": "0x8086",
            f"{XE}/device": "0x56a0",
            f"{XE}/drm/card0/gt_act_freq_mhz": 2400,
            f"{XE}/drm/card0/gt/gt0/throttle_reason_status": 1,
            f"{XE}/drm/card0/gt/gt0/throttle_reason_thermal": 1,
        }
    )
    (monitor,), _ = open_devices("xpu", {}, root)
    told, _ = _sampled(Columns(monitor.gauges()))
    assert told == {"clock_mhz": 2400, "throttle_mask": 1}
    assert monitor.throttle_reasons == {"thermal": 1}


def test_machine_without_accelerator(tmp_path: Path) -> None:
    assert open_devices("auto", {}, tmp_path) == ([], {})
    assert open_devices("xpu", {}, tmp_path) == ([], {"xpu": "no driver for it tells of such a device"})
    assert "root" in open_devices("mps", {}, tmp_path)[1]["mps"]
