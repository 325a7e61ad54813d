"""What the results show, as frames: which configurations, in which order, which is best, and what failed."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hfbench.foundation import configuration
from hfbench.foundation.records import OK
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.storage import read_table
from hfbench.tables.warning_file import ConfigurationWarning, read_warnings

# Configurations are compared with those that do the same work.
WORKLOAD_AXES = ("model", *configuration.WORKLOAD_AXES)


@dataclass(frozen=True)
class Results:
    """The tables that the results are shown from; see `hfbench.tables.build.Tables`."""

    summary: pl.DataFrame
    points: pl.DataFrame
    configurations: pl.DataFrame
    warnings: list[ConfigurationWarning]


def read_results(tables: Path) -> Results:
    """Read the tables in this folder. Raises `UserError` where they are missing."""
    summary, points, configurations = (read_table(tables, name) for name in ("summary", "points", "configurations"))
    return Results(summary, points, configurations, read_warnings(tables))


def varying_axes(points: pl.DataFrame) -> list[str]:
    """Return the axes (without round) that have more than one value."""
    return [axis for axis in CONFIGURATION_AXES if points[axis].n_unique() > 1]


def result_rows(summary: pl.DataFrame, configurations: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration with a round that is ok: by workload, then fastest end to end first.

    Columns: those of the table of configurations; for each metric of the summary its estimate under the metric's name,
    the 95% interval METRIC_low and METRIC_high, and a boolean METRIC_best; and `workload`, a number. Best is the best
    estimate of a workload whose estimates differ. A configuration whose output differs is no best, and stands last.
    """
    rows = configurations.filter(pl.col("rounds_ok") > 0).drop("inter_token_seconds")
    is_comparable = configurations.select(*CONFIGURATION_AXES, is_comparable=~pl.col("output_differs"))
    summary = summary.join(is_comparable, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    for (metric,), group in summary.group_by("metric", maintain_order=True):
        columns = group.select(
            *CONFIGURATION_AXES,
            pl.col("estimate").alias(f"{metric}"),
            pl.col("low", "high").name.prefix(f"{metric}_"),
            _is_best(higher_is_better=bool(group["higher_is_better"][0])).alias(f"{metric}_best"),
        )
        rows = rows.join(columns, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    return _sorted(rows)


def failure_rows(points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each (configuration, status, phase, reason) that is not ok, with the list of its `rounds`."""
    return (
        points.filter(pl.col("status") != OK)
        .group_by(*CONFIGURATION_AXES, "status", "phase", "reason", maintain_order=True)
        .agg(rounds=pl.col("round").sort())
    )


def _is_best(*, higher_is_better: bool) -> pl.Expr:
    estimate = pl.when("is_comparable").then("estimate")
    lowest, highest = estimate.min().over(WORKLOAD_AXES), estimate.max().over(WORKLOAD_AXES)
    is_best = (estimate == (highest if higher_is_better else lowest)) & (lowest != highest)
    return is_best.fill_null(value=False)


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort by workload, the models in the sweep's order, then by end-to-end time, what differs last."""
    if "end_to_end_seconds" not in rows.columns:
        rows = rows.with_columns(end_to_end_seconds=pl.lit(None, dtype=pl.Float64))
    models = {model: place for place, model in enumerate(rows["model"].unique(maintain_order=True))}
    place = pl.col("model").replace_strict(models, return_dtype=pl.Int64)
    keys = [place, *(pl.col(axis) for axis in WORKLOAD_AXES[1:])]
    return rows.with_columns(workload=pl.struct(keys).rank("dense")).sort(
        "workload", "output_differs", "end_to_end_seconds", nulls_last=True, maintain_order=True
    )
