"""What of params.yaml a point depends on beside its axes, so that an edit re-measures just the points that use it."""

import ast
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.point import INF, NONE, Configuration
from hfbench.core.record import Settings
from hfbench.core.results import POINTS, settings_path
from hfbench.model.folder import kernel_builds, kernel_sha256
from hfbench.params.schema import Params
from hfbench.params.sections import AttentionKernel, HubKernel, KernelEntry, LocalKernel

_LAYOUT = "docs/kernels.md shows how a kernel's folder is laid out"


def check_kernel_folder(folder: Path, layer_name: str) -> None:
    """Raise `UserError` where the folder has no build of a kernel, or none of its builds has the layer `layer_name`.

    A build whose layers cannot be told from its source is taken to have them.
    """
    builds = kernel_builds(folder)
    if not builds:
        raise UserError(f"kernels names the folder {folder}, which has no build/VARIANT/metadata.json; {_LAYOUT}.")
    known = [_layers(build) for build in builds]
    if not any(names is None or layer_name in names for names in known):
        found = sorted({name for names in known if names for name, is_class in names.items() if is_class})
        raise UserError(
            f"kernels names the layer_name {layer_name}, which the kernel in {folder} does not have; "
            f"its layers module defines {', '.join(found) or 'no class'}."
        )


def _layers(build: Path) -> dict[str, bool] | None:
    """Return the names in the build's module `layers`, each with whether it is a class that is defined there.

    None where the source does not tell what it defines.
    """
    source = next((path for path in (build / "layers.py", build / "layers" / "__init__.py") if path.is_file()), None)
    if source is None:
        return None
    try:
        body = ast.parse(source.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"kernels names a folder in which {source} is not valid Python: {error}.") from None
    names: dict[str, bool] = {}
    for node in body:
        match node:
            case ast.ClassDef():
                names[node.name] = True
            case ast.ImportFrom() if all(alias.name != "*" for alias in node.names):
                names |= {alias.asname or alias.name: False for alias in node.names}
            case ast.Import() | ast.Expr() | ast.FunctionDef():
                continue
            case ast.Assign() if all(isinstance(target, ast.Name) for target in node.targets):
                names |= {target.id: False for target in node.targets if isinstance(target, ast.Name)}
            case _:  # anything may be defined in there
                return None
    return names


def settings_of(point: Configuration, params: Params, *, on_cpu: bool) -> Settings:
    """Return what the point uses of params.yaml, where the CPU is measured or an accelerator.

    Raises `UserError` where a local kernel's folder holds no kernel.
    """
    return Settings(
        compile=params.compile.model_dump() if point.compile_mode != "off" else None,
        kernels=tuple(_described(entry, point, on_cpu) for entry in params.kernels if _is_used(entry, point)),
        quantization=params.quantization[point.quantization].model_dump() if point.quantization != NONE else None,
        quantized_cache=(
            params.quantized_cache.model_dump(exclude_none=True) if point.cache_implementation == "quantized" else None
        ),
        continuous_batching=params.continuous_batching.model_dump() if point.continuous_batching else None,
        assisted_decoding=params.assisted_decoding.used_by(point.assistant),
        arrivals=params.arrivals.model_dump() if point.request_rate != INF else None,
    )


def _is_used(entry: KernelEntry, point: Configuration) -> bool:
    return (point.use_kernels and isinstance(entry, HubKernel | LocalKernel)) or _is_attention(entry, point)


def _is_attention(entry: KernelEntry, point: Configuration) -> bool:
    return isinstance(entry, AttentionKernel) and point.attn_implementation.partition(":")[0] == entry.repository


def _described(entry: KernelEntry, point: Configuration, on_cpu: bool) -> dict[str, Any]:
    """Return the entry with what its kernel is made of; of one for another device only that there is one."""
    if (
        isinstance(entry, HubKernel | LocalKernel)
        and (entry.device == "cpu") != on_cpu
        and not _is_attention(entry, point)
    ):
        return {"layer": entry.layer, "device": entry.device}
    content = entry.model_dump()
    if not isinstance(entry, LocalKernel):
        return content
    folder = Path(entry.path).expanduser()
    check_kernel_folder(folder, entry.layer_name)
    return {**content, "sha256": kernel_sha256(folder)}


def write_settings(params: Params, environment: Mapping[str, Any]) -> None:
    """Write what the points depend on of params.yaml, and which points there are, for whoever counts them."""
    on_cpu = params.device == "cpu" or (params.device == "auto" and not environment["accelerators"])
    for path, point in {settings_path(point): point for point in params.points()}.items():
        settings_of(point, params, on_cpu=on_cpu).save(path)
    with suppress(OSError):  # it is for what a person sees alone
        write_json(POINTS, [{"stage": stage, "point": vars(point)} for point, stage in params.stages().items()])
