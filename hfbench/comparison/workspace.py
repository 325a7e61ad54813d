"""Whether the results in the workspace are those that params.yaml asks for now."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from hfbench.foundation.configuration import AXES

_REMEDY = "Run `dvc repro`."


def stale_notes(points: pl.DataFrame, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence where the sweep in params.yaml is not the one that was measured.

    This is a quick look at the sweep; `dvc status` knows everything else that could be out of date.
    """
    sweep = params.get("sweep")
    if not isinstance(sweep, Mapping) or not all(isinstance(sweep.get(axis), list) for axis in AXES):
        return ()
    listed = [each for each in params.get("configurations") or () if isinstance(each, Mapping)]
    has_product = all(sweep[axis] for axis in AXES)
    changed = [
        axis
        for axis in AXES
        if {*(sweep[axis] if has_product or axis == "round" else ()), *(each[axis] for each in listed if axis in each)}
        != set(points[axis].unique())
    ]
    if not changed:
        return ()
    keys = ", ".join(f"sweep.{axis}" for axis in changed)
    return (f"The workspace's results are older than params.yaml: {keys} changed since. {_REMEDY}",)
