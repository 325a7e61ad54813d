"""The accelerator that `device: auto` would pass over because torch cannot use it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.system import FILESYSTEM, read_text
from hfbench.monitoring.gauges import visible_device

# The ids of https://pci-ids.ucw.cz: vendors, and the class of displays and of accelerators without one.
_NVIDIA, _AMD, _INTEL = "0x10de", "0x1002", "0x8086"
_DISPLAY_CLASS = "0x03"
_REMEDY = "or set `device: cpu` in params.yaml to measure the CPU"


def require_usable(
    device: str, environment: Mapping[str, Any], variables: Mapping[str, str] = os.environ, root: Path = FILESYSTEM
) -> None:
    """Raise `UserError` where `device: auto` would mean the CPU although this machine has an accelerator for torch.

    `environment` is what `describe` returns. What a variable hides is hidden on purpose, and a GPU of a vendor for
    which this torch is not built (a laptop's, say) is not for it; but a torch for the CPU alone beside an NVIDIA GPU is
    more often a mistake than meant.
    """
    if device != "auto" or environment["accelerators"]:
        return
    build, notes = environment["torch_build"], environment["accelerator_notes"]
    present = _present(root)
    reasons = {
        _NVIDIA: ("NVIDIA", ("cuda", None), ("CUDA_VISIBLE_DEVICES",), _nvidia_reason),
        _AMD: ("AMD", ("hip",), ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), _amd_reason),
        _INTEL: ("Intel", ("xpu",), ("ZE_AFFINITY_MASK",), _intel_reason),
    }
    for vendor, (name, builds, hiding, reason) in reasons.items():
        is_meant = any(each in build if each else not build for each in builds)
        is_hidden = any(visible_device(0, variables.get(variable)) is None for variable in hiding)
        if vendor in present and is_meant and not is_hidden:
            version = environment["packages"].get("torch", {}).get("version")
            why = reason(root) if build else f"torch {version} is built for the CPU alone"
            told = f" ({'; '.join(notes)})" if notes else ""
            raise UserError(
                f"device is auto, and torch cannot use the {name} GPU of this machine: {why}{told}. "
                f"{_mend(build)}, {_REMEDY}."
            )


def _mend(build: Mapping[str, str]) -> str:
    return "Mend that" if build else "Install the build of torch for it (pytorch.org says how, under Get Started)"


def _present(root: Path) -> set[str]:
    """Return the vendors of the displays and accelerators on the bus, whether or not they have a driver."""
    devices = (root / "sys/bus/pci/devices").glob("*")
    return {
        vendor
        for folder in devices
        if (read_text(folder / "class") or "").startswith(_DISPLAY_CLASS)
        and (vendor := read_text(folder / "vendor")) is not None
    }


def _nvidia_reason(root: Path) -> str:
    if read_text(root / "proc/driver/nvidia/version") is None:
        return "its driver is not loaded (`nvidia-smi` says more)"
    if not any((root / "dev").glob("nvidia[0-9]*")):
        return "/dev has no such device, as in a container that was started without --gpus all"
    return "its driver does not answer (`nvidia-smi` says more)"


def _amd_reason(root: Path) -> str:
    if read_text(root / "sys/module/amdgpu/initstate") is None:
        return "its driver, amdgpu, is not loaded"
    if not (root / "dev/kfd").exists():
        return "/dev/kfd is not there, as in a container that was started without --device=/dev/kfd"
    return "its driver does not answer (`rocminfo` says more; is this user in the group render?)"


def _intel_reason(root: Path) -> str:
    if not any((root / "dev/dri").glob("renderD*")):
        return "/dev/dri has no such device, as in a container that was started without --device=/dev/dri"
    return "its compute runtime (libze_intel_gpu) is not installed"
