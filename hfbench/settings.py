"""What of params.yaml a point depends on beside its axes, so that an edit re-measures just the points that use it."""

import hashlib
from pathlib import Path
from typing import Any

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.foundation.errors import UserError
from hfbench.foundation.params import Params
from hfbench.foundation.settings import HubKernel, KernelEntry
from hfbench.models.hashing import sha256_of


def settings_name(point: Configuration) -> str:
    """Return the name of the point's settings, as dvc.yaml composes it."""
    axes = (point.attn_implementation, point.compile_mode, point.use_kernels, point.continuous_batching)
    return "-".join(str(axis).lower() if isinstance(axis, bool) else str(axis) for axis in axes) + ".json"


def settings_of(point: Configuration, params: Params) -> Settings:
    """Return what the point uses of params.yaml. Raises `UserError` where a local kernel's folder is missing."""
    used = [entry for entry in params.kernels if point.use_kernels or _is_attention(entry, point)]
    return Settings(
        compile=params.compile.model_dump() if point.compile_mode != "off" else None,
        kernels=tuple(_described(entry) for entry in used),
        continuous_batching=params.continuous_batching.model_dump() if point.continuous_batching else None,
    )


def _is_attention(entry: KernelEntry, point: Configuration) -> bool:
    return isinstance(entry, HubKernel) and point.attn_implementation.partition(":")[0] == entry.repository


def _described(entry: KernelEntry) -> dict[str, Any]:
    content = entry.model_dump()
    return content if isinstance(entry, HubKernel) else {**content, "sha256": folder_sha256(Path(entry.path))}


def folder_sha256(folder: Path) -> str:
    """Return the sha256 over the paths and contents of a folder's files, compiled Python left out.

    Raises `UserError` where there is none.
    """
    folder = folder.expanduser()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise UserError(f"kernels names the folder {folder}, in which there is no file. Build the kernel there.")
    lines = "".join(f"{path.relative_to(folder).as_posix()}\0{sha256_of(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()
