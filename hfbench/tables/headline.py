"""The few numbers of metrics.json, which `dvc metrics` and `dvc exp show` display."""

from typing import Any

import polars as pl

from hfbench.records import OK
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import configuration_keys

_BEST = ("decode_tokens_per_second", "end_to_end_seconds", "time_to_first_token_seconds")
_OF_EACH_POINT = (*_BEST, "peak_memory_bytes")
_SIGNIFICANT_DIGITS = 4


def headline(summary: pl.DataFrame, points: pl.DataFrame) -> dict[str, Any]:
    """Return the content of metrics.json: counts of records, the best medians, and the medians of each configuration.

    What has no value is left out: DVC shows null and NaN as if they were measured.
    """
    ok = int((points["status"] == OK).sum())
    content: dict[str, Any] = {"points_ok": ok, "points_not_ok": points.height - ok}
    for metric in _BEST:
        rows = summary.filter(pl.col("metric") == metric)
        if rows.height:
            best = rows["median"].max() if rows["higher_is_better"][0] else rows["median"].min()
            content[f"best_{metric}"] = _rounded(metric, best)
    return {**content, "points": _points(summary)}


def _points(summary: pl.DataFrame) -> dict[str, dict[str, float]]:
    groups = summary.group_by(CONFIGURATION_AXES, maintain_order=True).agg("metric", "median").to_dicts()
    points: dict[str, dict[str, float]] = {}
    for key, group in zip(configuration_keys(groups), groups, strict=True):
        medians = dict(zip(group["metric"], group["median"], strict=True))
        points[key] = {metric: _rounded(metric, medians[metric]) for metric in _OF_EACH_POINT if metric in medians}
    return points


def _rounded(metric: str, value: Any) -> float:
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    return int(rounded) if metric.endswith("_bytes") else rounded
