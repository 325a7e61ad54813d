"""What files of benchmark_v2 tell of where they come from, as environment.json and params.json have it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfbench.exchange.benchmark_v2_file import Entry, HardwareInfo
from hfbench.exchange.benchmark_v2_layout import TORCH, TRANSFORMERS
from hfbench.foundation.configuration import AXES, Configuration
from hfbench.foundation.errors import UserError

_GIB = 2**30
_UNTOLD = "unknown"


def environment(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the content of environment.json: of an export of hfbench its own, else what `hardware_info` tells.

    Raises `UserError` where the entries are of different machines: their numbers cannot stand in one folder.
    """
    found = [_environment(entry) for entry in entries]
    if any(each != found[0] for each in found):
        raise UserError(
            f"{', '.join(dict.fromkeys(str(entry.source) for entry in entries))}: the entries are of different "
            "machines or versions. Import each of them to a folder of its own."
        )
    return found[0]


def params(
    entries: Sequence[Entry], configurations: Sequence[Configuration], files: Sequence[Path], notes: Sequence[str]
) -> dict[str, Any]:
    """Return the content of params.json: the axes' values, the iterations, and `imported`, where it is from."""
    sweep = {axis: list(dict.fromkeys(getattr(each, axis) for each in configurations)) for axis in AXES}
    return {
        "sweep": sweep,
        "sampling": {
            "warmup_iterations": _values(entry.config.warmup_iterations for entry in entries),
            "measurement_iterations": _values(entry.config.measurement_iterations for entry in entries),
        },
        "imported": {
            "format": "benchmark-v2",
            "files": [path.name for path in files],
            "model_ids": _values(entry.metadata.model_id for entry in entries),
            "commit_ids": _values(entry.metadata.commit_id for entry in entries),
            "notes": list(notes),
        },
    }


def _environment(entry: Entry) -> dict[str, Any]:
    if entry.metadata.hfbench is not None:
        return entry.metadata.hfbench.environment
    hardware = entry.metadata.hardware_info
    versions = {TORCH: {"version": hardware.torch_version}, TRANSFORMERS: {"commit": entry.metadata.commit_id}}
    told = {name: package for name, package in versions.items() if any(package.values())}
    return {
        "schema_version": 1,
        "accelerators": _accelerators(hardware),
        "python": {"version": hardware.python_version},
        "packages": {name: {"version": _UNTOLD, **package} for name, package in told.items()},
    }


def _accelerators(hardware: HardwareInfo) -> list[dict[str, Any]]:
    if hardware.gpu_name is None:
        return []
    memory = hardware.gpu_memory_total_gb
    return [{"name": hardware.gpu_name, "memory_bytes": None if memory is None else round(memory * _GIB)}]


def _values(values: Any) -> list[Any]:
    return [value for value in dict.fromkeys(values) if value is not None]
