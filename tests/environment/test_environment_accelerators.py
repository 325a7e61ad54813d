"""AMD, Intel and Apple GPUs, which are not here: files as the drivers' documentation gives them stand for /sys."""

from pathlib import Path
from typing import Any

import pytest

from hfbench.environment.accelerators import describe_accelerators
from hfbench.environment.vendors import AmdProbe, AppleProbe, IntelProbe
from tests.conftest import WriteTree


def test_notes_hold_no_places() -> None:
    class Broken:
        vendor = "sample"

        def describe(self, notes: list[str]) -> list[dict[str, Any]]:
            raise OSError(2, "No such file", "/home/someone/driver") from ValueError(f"at {id(notes):#x}")

    assert describe_accelerators([Broken()]) == ([], ["sample: FileNotFoundError: [Errno 2] No such file: '…'"])


def amd_files() -> dict[str, str | int]:
    """A server with two CPUs, an Instinct card and a Radeon without product name."""
    nodes = "sys/class/kfd/kfd/topology/nodes"
    instinct, radeon = "sys/class/drm/renderD128/device", "sys/class/drm/renderD129/device"
    return {
        "dev/kfd": "",
        "sys/module/amdgpu/version": "6.12.12",
        f"{nodes}/0/properties": "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0",
        f"{nodes}/10/properties": "simd_count 192\nsimd_per_cu 2\ngfx_target_version 110000\ndevice_id 29772\n"
        "drm_render_minor 129\nmax_engine_clk_fcompute 2482\nunique_id 222",
        f"{nodes}/2/properties": "simd_count 416\nsimd_per_cu 4\ngfx_target_version 90010\ndevice_id 29708\n"
        "drm_render_minor 128\nmax_engine_clk_fcompute 1700\nunique_id 111",
        f"{instinct}/product_name": "AMD Instinct MI210",
        f"{instinct}/mem_info_vram_total": 68702699520,
        f"{instinct}/vbios_version": "113-D67301-063",
        f"{instinct}/hwmon/hwmon7/power1_cap": 300000000,
        f"{instinct}/hwmon/hwmon7/power1_cap_default": 300000000,
        f"{instinct}/hwmon/hwmon7/power1_average": 41000000,
        f"{instinct}/power_dpm_force_performance_level": "auto",
        f"{instinct}/serial_number": "PCB000",
        f"{radeon}/mem_info_vram_total": 25753026560,
    }


def test_amd_gpus_in_the_order_of_their_nodes(write_tree: WriteTree) -> None:
    devices, notes = describe_accelerators([AmdProbe(write_tree(amd_files()))])
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
    assert [(device["name"], device["compute_units"]) for device in devices[1:]] == [("AMD GPU 0x744c (gfx1100)", 96)]


def test_amd_gpu_without_its_pci_entry_is_noted(write_tree: WriteTree) -> None:
    files = {name: content for name, content in amd_files().items() if "renderD129" not in name}
    devices, notes = describe_accelerators([AmdProbe(write_tree(files))])
    assert [device["memory_bytes"] for device in devices] == [68702699520, None]
    assert len(notes) == 1


def test_intel_gpu(write_tree: WriteTree) -> None:
    device = "sys/class/drm/renderD129/device"
    root = write_tree(
        {
            "usr/lib/x86_64-linux-gnu/libze_intel_gpu.so.1.6.33944": "",
            "sys/class/drm/renderD128/device/vendor": "0x10de",
            f"{device}/vendor": "0x8086",
            f"{device}/device": "0xe20b",
            f"{device}/revision": "0x00",
            f"{device}/tile0/physical_vram_size_bytes": 12884901888,
            f"{device}/tile0/gt0/freq0/rp0_freq": 2850,
            f"{device}/tile0/gt0/freq0/max_freq": 2400,
            f"{device}/tile0/gt0/freq0/cur_freq": 1200,
            f"{device}/tile0/gt1/freq0/rp0_freq": 1500,
            "sys/bus/pci/drivers/xe/module": "",
        }
    )
    libraries = root / "usr/lib/x86_64-linux-gnu"
    assert describe_accelerators([IntelProbe(root)]) == ([], []), "no compute runtime, no device"
    (libraries / "libze_intel_gpu.so.1").symlink_to("libze_intel_gpu.so.1.6.33944")
    (root / device / "driver").symlink_to(root / "sys/bus/pci/drivers/xe")
    assert describe_accelerators([IntelProbe(root)]) == (
        [
            {
                "vendor": "intel",
                "torch_device": "xpu",
                "name": "Intel GPU 0xe20b revision 0x00",
                "memory_bytes": 12884901888,
                "driver_version": "1.6.33944",
                "kernel_driver": "xe",
                "max_clock_mhz": 2850,
                "clock_limit_mhz": 2400,
            }
        ],
        [],
    )


def test_apple_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that answers as macOS's sysctl does stands in for it."""
    sysctl = tmp_path / "sysctl"
    sysctl.write_text('#!/bin/sh\ncase $2 in hw.memsize) echo 25769803776;; *) echo "Apple M4 Pro";; esac\n')
    sysctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert describe_accelerators([AppleProbe()]) == ([], [])
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))
    (device,), notes = describe_accelerators([AppleProbe()])
    assert device == {
        "vendor": "apple",
        "torch_device": "mps",
        "name": "Apple M4 Pro",
        "memory_bytes": 25769803776,
        "driver_version": "15.5",
    }
    assert notes == []
