"""The files beside the tables that the report quotes: the manifests of the models measured, and params.yaml."""

from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.files import read_json
from hfbench.core.record import Manifest
from hfbench.params.schema import read_yaml

# Of params.yaml, what was measured and how. The entries of `models` stand in the manifests, with what they resolved to.
QUOTED_PARAMS = (
    "sweep",
    "configurations",
    "device",
    "prompt",
    "request_lengths",
    "compile",
    "kernels",
    "continuous_batching",
    "sampling",
    "limits",
)


def read_manifests(folder: Path | None, points: pl.DataFrame) -> list[Manifest]:
    """Return the manifests of the models in the points, in their order; those that are missing are left out."""
    if folder is None:
        return []
    paths = [folder / f"{model}.json" for model in points["model"].unique(maintain_order=True)]
    return [Manifest.load(path) for path in paths if path.exists()]


def read_ceilings(path: Path | None) -> dict[str, Any]:
    """Return the content of ceilings.json; nothing where there is no file."""
    return dict(read_json(path)) if path is not None and path.exists() else {}


def read_params(path: Path | None) -> dict[str, Any]:
    """Return the quoted params as they stand in the file, by name; none where there is no file."""
    if path is None or not path.exists():
        return {}
    content = read_yaml(path)
    return {name: content[name] for name in QUOTED_PARAMS if name in content}
