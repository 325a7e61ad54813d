"""Ways of running a model and the workloads they run: their names, their order and which axes tell them apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hfbench.foundation.configuration import REFERENCE
from hfbench.reporting.results import WORKLOAD_AXES, varying_axes
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import point_label

# A configuration is a workload (what runs) and a way (how). The batch sizes of one scene make a frontier.
WAY_AXES = tuple(axis for axis in CONFIGURATION_AXES if axis not in WORKLOAD_AXES)
_WORDS = {
    "request_lengths": "{} requests",
    "batch_size": "batch {}",
    "sequence_length": "{} prompt tokens",
    "max_new_tokens": "{} new tokens",
    "context_depth": "{} tokens of context",
}


def named_configurations(points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration of the sweep, in its order, with the names that the report gives it.

    Columns: the axes; `way`, `workload` and `scene` (a workload without its batch size), in words that leave out what
    is the same everywhere; `name`, way and workload together; `is_reference`, whether it runs in the plainest way.
    """
    axes = points.select(CONFIGURATION_AXES).unique(maintain_order=True)
    varying = varying_axes(points)
    workload_axes = [axis for axis in WORKLOAD_AXES if axis in varying]
    scene_axes = [axis for axis in workload_axes if axis != "batch_size"]
    way_axes = [axis for axis in WAY_AXES if axis in varying]
    names = [
        {
            "way": way_name(row, way_axes or ["attn_implementation"]),
            "workload": workload_name(row, workload_axes),
            "scene": workload_name(row, scene_axes),
            "name": _full_name(row, way_axes, workload_axes),
            "is_reference": all(row[axis] == value for axis, value in REFERENCE.items()),
        }
        for row in axes.to_dicts()
    ]
    types = {"way": pl.String, "workload": pl.String, "scene": pl.String, "name": pl.String, "is_reference": pl.Boolean}
    return pl.concat([axes, pl.DataFrame(names, schema=types)], how="horizontal")


def way_name(configuration: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Return how a configuration runs, in short words for what is not usual in these axes: `sdpa compile-default`.

    Where all is as usual, the words say that.
    """
    return point_label(configuration, axes) if axes else ""


def workload_name(configuration: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Return what a configuration runs in these axes, such as `batch 4, 128 prompt tokens`; empty for none."""
    return ", ".join(_counted(_WORDS.get(axis, "{}"), configuration[axis]) for axis in axes)


def _counted(words: str, value: Any) -> str:
    return (words.replace("tokens", "token") if value == 1 else words).format(value)


def _full_name(configuration: Mapping[str, Any], way_axes: Sequence[str], workload_axes: Sequence[str]) -> str:
    """Return what tells a configuration from the others; for the only one, its attention."""
    parts = (way_name(configuration, way_axes), workload_name(configuration, workload_axes))
    return ", ".join(filter(None, parts)) or way_name(configuration, ["attn_implementation"])
