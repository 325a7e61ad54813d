"""Reads from the machine what the checks look at, in well under a second and without torch."""

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from hfbench.doctor.readings import Accelerator, Disk, Memory, Plan, Processor, Readings, Watched
from hfbench.environment.accelerators import describe_accelerators
from hfbench.environment.containers import cpu_limit, memory_limit
from hfbench.environment.cpu import describe_cpu
from hfbench.environment.memory import describe_memory
from hfbench.environment.system import describe_system
from hfbench.foundation.params import Params
from hfbench.manifests import read_previous
from hfbench.models.cache import cache_folder
from hfbench.monitoring.before import machine_before
from hfbench.monitoring.devices.choose import open_devices

_LOOK_SECONDS = 0.3  # at how busy the CPUs are: long enough for 30 ticks of each
_NO_TURBO = Path("/sys/devices/system/cpu/intel_pstate/no_turbo")
_BOOST = Path("/sys/devices/system/cpu/cpufreq/boost")
# Written with a capital: a module that holds the bare name of a library is taken for one that imports it.
_TORCH = "Torch"


def collect(params: Params, results: Path) -> Readings:
    """Return the readings; `results` is the folder that holds `models/NAME.json`, if the pipeline has run."""
    described, _ = describe_accelerators()
    devices, _ = open_devices(params.device)
    before = machine_before(devices, _LOOK_SECONDS)
    accelerators = tuple(_accelerator(device) for device in described)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Readings(
        processor=_processor(before),
        memory=_memory(before),
        accelerators=accelerators,
        watched=_watched(before, accelerators),
        disks=_disks(results),
        torch_version=_torch_version(),
        hidden=hidden if hidden in ("", "-1") else None,
        plan=Plan(params.device, _model_bytes(params, results)),
    )


def _processor(before: dict[str, Any]) -> Processor:
    cpu = describe_cpu()
    frequency = cpu.get("frequency", {})
    return Processor(
        usable_cores=cpu["available_logical_cores"],
        smt=cpu["smt"],
        governors=tuple(frequency.get("governors", ())),
        boost=frequency.get("boost"),
        boost_off=_boost_off(),
        limit_cores=cpu_limit(),
        is_virtual=describe_system()["virtual_machine"],
        busy_percent=before["cpu_percent"],
        load_average=before["load_averages"][0],
    )


def _boost_off() -> str | None:
    if _NO_TURBO.exists():
        return f"echo 1 | sudo tee {_NO_TURBO}"
    return f"echo 0 | sudo tee {_BOOST}" if _BOOST.exists() else None


def _memory(before: dict[str, Any]) -> Memory:
    total, available = psutil.virtual_memory().total, before["available_memory_bytes"]
    limit = memory_limit()
    return Memory(
        available_bytes=available if limit is None else min(available, limit),
        total_bytes=total if limit is None else min(total, limit),
        swap_used_bytes=before["swap_used_bytes"],
        transparent_hugepages=describe_memory()["transparent_hugepages"],
    )


def _accelerator(device: dict[str, Any]) -> Accelerator:
    return Accelerator(
        vendor=device["vendor"],
        kind=device["torch_device"],
        name=str(device["name"]),
        memory_bytes=device["memory_bytes"],
        persistence_mode=device.get("persistence_mode"),
    )


def _watched(before: dict[str, Any], accelerators: tuple[Accelerator, ...]) -> Watched | None:
    """Return the device of the measurement; its whole memory is that of the accelerator of the same name."""
    if not before["devices"]:
        return None
    device = before["devices"][0]
    return Watched(
        device=device["device"],
        name=device["name"],
        other_processes=device["other_processes"],
        memory_used_bytes=device.get("memory_used_bytes"),
        memory_bytes=next((each.memory_bytes for each in accelerators if each.name == device["name"]), None),
    )


def _disks(results: Path) -> tuple[Disk, ...]:
    """Return one entry for each file system that hfbench writes to; the first use names it."""
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub"
    places = (
        ("models of the hub", Path(hub).expanduser(), "HF_HOME"),
        ("models that hfbench builds", cache_folder(), "HFBENCH_CACHE"),
        ("results and DVC's cache", results.absolute(), None),
        ("compile caches", Path(tempfile.gettempdir()), "TMPDIR"),
    )
    disks: dict[int, Disk] = {}
    for use, path, variable in places:
        folder = next(each for each in (path, *path.parents) if each.exists())
        disks.setdefault(folder.stat().st_dev, Disk(use, folder, shutil.disk_usage(folder).free, variable))
    return tuple(disks.values())


def _torch_version() -> str | None:
    try:
        return metadata.version(_TORCH)
    except metadata.PackageNotFoundError:
        return None


def _model_bytes(params: Params, results: Path) -> dict[str, int]:
    manifests = {name: read_previous(results / "models" / f"{name}.json") for name in params.sweep.model}
    sizes = {
        name: sum(file.size_bytes for file in manifest.files if file.path.endswith(".safetensors"))
        for name, manifest in manifests.items()
        if manifest is not None
    }
    return {name: size for name, size in sizes.items() if size}
