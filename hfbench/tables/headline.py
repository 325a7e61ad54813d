"""The numbers that DVC's own tools display: a few in metrics.json, and those of each point in a file of their own.

`dvc exp show` has a column for each number of every file that dvc.yaml calls metrics: with those of 30 points among
them it is ten thousand characters wide. `dvc metrics diff --targets` reads the other file all the same.
"""

from typing import Any

import polars as pl

from hfbench.foundation.records import OK
from hfbench.tables.build import Tables
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import configuration_keys

_BEST = ("decode_tokens_per_second", "end_to_end_seconds", "time_to_first_token_seconds")
_OF_EACH_POINT = (*_BEST, "peak_memory_bytes")
_SIGNIFICANT_DIGITS = 4


def headline(tables: Tables) -> dict[str, Any]:
    """Return the content of metrics.json: counts of records and warnings, and the best medians.

    Medians are the summary's estimates. A configuration whose output differs is no best. What has no value is left out:
    DVC shows null and NaN as if they were measured.
    """
    ok = int((tables.points["status"] == OK).sum())
    content: dict[str, Any] = {
        "points_ok": ok,
        "points_not_ok": tables.points.height - ok,
        "warnings": len(tables.warnings),
    }
    comparable = tables.summary.join(
        tables.configurations.filter("output_differs"), on=CONFIGURATION_AXES, how="anti", maintain_order="left"
    )
    for metric in _BEST:
        rows = comparable.filter(pl.col("metric") == metric)
        if rows.height:
            best = rows["estimate"].max() if rows["higher_is_better"][0] else rows["estimate"].min()
            content[f"best_{metric}"] = _rounded(metric, best)
    return content


def headline_by_point(tables: Tables) -> dict[str, dict[str, float]]:
    """Return the medians of each configuration that was measured, under its key."""
    groups = tables.summary.group_by(CONFIGURATION_AXES, maintain_order=True).agg("metric", "estimate").to_dicts()
    points: dict[str, dict[str, float]] = {}
    for key, group in zip(configuration_keys(groups), groups, strict=True):
        medians = dict(zip(group["metric"], group["estimate"], strict=True))
        points[key] = {metric: _rounded(metric, medians[metric]) for metric in _OF_EACH_POINT if metric in medians}
    return points


def _rounded(metric: str, value: Any) -> float:
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    return int(rounded) if metric.endswith("_bytes") else rounded
