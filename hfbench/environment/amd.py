"""AMD GPUs that ROCm can compute on, as the Linux driver describes them in /sys."""

from pathlib import Path
from typing import Any

from hfbench.environment.readings import FILESYSTEM, read_integer, read_text

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
