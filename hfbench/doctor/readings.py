"""What the doctor looks at: the machine as it is now, and what params.yaml wants of it."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.core.results import CEILINGS, ENVIRONMENT, MODELS
from hfbench.environment.describe import describe, require_usable
from hfbench.measure.support import meant_device
from hfbench.model.cache import cache_folder
from hfbench.model.manifest import read_previous
from hfbench.monitoring.devices import every_accelerator, open_devices, vendors_of
from hfbench.monitoring.monitor import machine_before
from hfbench.params.schema import Params


@dataclass(frozen=True)
class Disk:
    """A file system that hfbench writes to, and for what."""

    use: str
    path: Path
    free_bytes: int
    move_with: str | None  # the variable that names another folder


@dataclass(frozen=True)
class TorchReadings:
    """What torch says when it is asked: the accelerators that it can use, by name, or why it finds none."""

    version: str | None
    devices: Sequence[str]
    refusal: str | None


_QUESTION = """
import json, torch
accelerator = torch.accelerator
names, refusal = [], None
if accelerator.is_available():
    module = torch.get_device_module(accelerator.current_accelerator())
    name = getattr(module, "get_device_name", lambda index: accelerator.current_accelerator().type)
    names = [name(index) for index in range(accelerator.device_count())]
elif (built := accelerator.current_accelerator(check_available=False)) is not None:
    try:
        torch.empty(1, device=built)
    except Exception as error:
        refusal = (str(error).splitlines() or [type(error).__name__])[0]
print(json.dumps([torch.__version__, names, refusal]))
"""


def ask_torch() -> TorchReadings:
    """Ask torch in a process of its own, which a broken driver may end."""
    asked = subprocess.run([sys.executable, "-c", _QUESTION], capture_output=True, text=True)
    if asked.returncode:
        return TorchReadings(None, (), (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1])
    return TorchReadings(*json.loads(asked.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class Readings:
    """The machine, and what params.yaml wants of it; mappings hold None where the machine does not tell."""

    # As environment.json describes them; of the accelerators the one that would be measured on.
    system: Mapping[str, Any]
    cpu: Mapping[str, Any]
    memory: Mapping[str, Any]
    accelerators: Sequence[Mapping[str, Any]]
    present: Sequence[Mapping[str, Any]]  # all accelerators of the machine
    variables: Mapping[str, str]  # of this process
    torch: TorchReadings
    passed_over: str | None  # why `device: auto` is not the accelerator that is here
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


_LOOK_SECONDS = 0.3  # at how busy the CPUs are: long enough for 30 ticks of each


def collect(params: Params, results: Path) -> Readings:
    """Return the readings; `results` is the folder that holds `models/NAME.json`, if the pipeline has run."""
    environment = describe(params.device)
    among = vendors_of(environment["accelerators"])
    devices, _ = open_devices(meant_device(params.device, environment), among=among)
    now = machine_before(devices[:1], _LOOK_SECONDS)
    passed_over = None
    try:
        require_usable(params.device, environment)
    except UserError as error:
        passed_over = str(error)
    return Readings(
        **{part: environment[part] for part in ("system", "cpu", "memory", "accelerators")},
        present=every_accelerator()[0],
        variables=os.environ,
        torch=ask_torch(),
        passed_over=passed_over,
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
