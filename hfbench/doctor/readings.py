"""What the doctor looks at: the machine as it is now, and what params.yaml wants of it."""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from hfbench.core.files import read_json
from hfbench.core.results import CEILINGS, ENVIRONMENT, MODELS
from hfbench.environment.describe import describe
from hfbench.model.cache import cache_folder
from hfbench.model.manifest import read_previous
from hfbench.monitoring.monitor import machine_before, open_devices
from hfbench.params.schema import Params


@dataclass(frozen=True)
class Disk:
    """A file system that hfbench writes to, and for what."""

    use: str
    path: Path
    free_bytes: int
    move_with: str | None  # the variable that names another folder


# What the version of torch ends in when it was built for a vendor; the build without an ending is NVIDIA's on Linux.
_BUILDS = {"nvidia": ("cu", ""), "amd": ("rocm",), "intel": ("xpu",), "apple": ("",)}


@dataclass(frozen=True)
class Readings:
    """The machine, and what params.yaml wants of it; mappings hold None where the machine does not tell."""

    # As environment.json describes them.
    system: Mapping[str, Any]
    cpu: Mapping[str, Any]
    memory: Mapping[str, Any]
    accelerators: Sequence[Mapping[str, Any]]
    variables: Mapping[str, str]
    torch_version: str | None
    # As `machine_before` finds them now: the machine, and the accelerator that the measurement will run on.
    now: Mapping[str, Any]
    watched: Mapping[str, Any] | None
    memory_limit_bytes: float  # a container's, infinite where there is none
    fullest_disk: Disk  # of those that hfbench writes to
    # What params.yaml asks for: the device, the dtypes, and the weights of those models of the sweep that are resolved
    # already; and the ceilings, where they were measured on this machine.
    device: str
    dtypes: Sequence[str]
    model_bytes: Mapping[str, int]
    ceilings: Mapping[str, Any]

    @property
    def is_torch_built(self) -> bool:
        """Whether torch is built for any of the accelerators."""
        build = (self.torch_version or "").partition("+")[2].rstrip(".0123456789")
        return any(build in _BUILDS.get(accelerator["vendor"], ()) for accelerator in self.accelerators)

    @property
    def has_usable_accelerator(self) -> bool:
        """Whether `device: auto` means an accelerator."""
        return self.watched is not None and self.is_torch_built


_LOOK_SECONDS = 0.3  # at how busy the CPUs are: long enough for 30 ticks of each


def collect(params: Params, results: Path) -> Readings:
    """Return the readings; `results` is the folder that holds `models/NAME.json`, if the pipeline has run."""
    environment, (devices, _) = describe(), open_devices(params.device)
    now = machine_before(devices, _LOOK_SECONDS)
    return Readings(
        **{part: environment[part] for part in ("system", "cpu", "memory", "accelerators", "variables")},
        torch_version=environment["packages"].get("torch", {}).get("version"),
        now=now,
        watched=next(iter(now["devices"]), None),
        memory_limit_bytes=environment["system"]["memory_limit_bytes"] or math.inf,
        fullest_disk=_fullest_disk(results),
        device=params.device,
        dtypes=params.dtypes(),
        model_bytes=_model_bytes(params.sweep.model, results / MODELS.name),
        ceilings=_ceilings(results, environment["cpu"]),
    )


def _ceilings(results: Path, cpu: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured on a machine with this processor; in git lie the ceilings of whoever committed last."""
    environment, ceilings = (results / path.name for path in (ENVIRONMENT, CEILINGS))
    if not environment.exists() or not ceilings.exists() or read_json(environment).get("cpu") != cpu:
        return {}
    return dict(read_json(ceilings))


def _fullest_disk(results: Path) -> Disk:
    """Return the file system with the least room among those that hfbench writes to; its first use names it."""
    places = (
        ("models of the hub", Path(HF_HUB_CACHE), "HF_HOME"),
        ("models that hfbench builds", cache_folder(), "HFBENCH_CACHE"),
        ("results and DVC's cache", results.absolute(), None),
        ("compile caches", Path(tempfile.gettempdir()), "TMPDIR"),
    )
    disks = []
    for use, path, variable in places:
        folder = next(each for each in (path, *path.parents) if each.exists())
        disks.append(Disk(use, folder, shutil.disk_usage(folder).free, variable))
    return min(disks, key=lambda disk: disk.free_bytes)


def _model_bytes(names: Sequence[str], models: Path) -> dict[str, int]:
    manifests = {name: manifest for name in names if (manifest := read_previous(models / f"{name}.json"))}
    sizes = {
        name: sum(file.size_bytes for file in manifest.files if file.path.endswith(".safetensors"))
        for name, manifest in manifests.items()
    }
    return {name: size for name, size in sizes.items() if size}
