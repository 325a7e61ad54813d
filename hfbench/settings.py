"""What of params.yaml a point depends on beside its axes, so that an edit re-measures just the points that use it."""

from pathlib import Path
from typing import Any

from hfbench.foundation.configuration import Configuration, Settings, joined
from hfbench.foundation.params import Params
from hfbench.foundation.settings import AttentionKernel, HubKernel, KernelEntry, LocalKernel
from hfbench.kernel_folder import check_kernel_folder
from hfbench.models.hashing import folder_sha256


def settings_name(point: Configuration) -> str:
    """Return the name of the point's settings, as dvc.yaml composes it."""
    axes = (point.attn_implementation, point.compile_mode, point.use_kernels, point.continuous_batching)
    return f"{joined(axes)}.json"


def settings_of(point: Configuration, params: Params) -> Settings:
    """Return what the point uses of params.yaml. Raises `UserError` where a local kernel's folder holds no kernel."""
    return Settings(
        compile=params.compile.model_dump() if point.compile_mode != "off" else None,
        kernels=tuple(_described(entry) for entry in params.kernels if _is_used(entry, point)),
        continuous_batching=params.continuous_batching.model_dump() if point.continuous_batching else None,
    )


def _is_used(entry: KernelEntry, point: Configuration) -> bool:
    if point.use_kernels and isinstance(entry, HubKernel | LocalKernel):
        return True
    return isinstance(entry, AttentionKernel) and point.attn_implementation.partition(":")[0] == entry.repository


def _described(entry: KernelEntry) -> dict[str, Any]:
    content = entry.model_dump()
    if not isinstance(entry, LocalKernel):
        return content
    folder = Path(entry.path).expanduser()
    sha256 = folder_sha256(folder)
    check_kernel_folder(folder, entry.layer_name)
    return {**content, "sha256": sha256}
