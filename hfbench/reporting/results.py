"""What the results show, as frames: which configurations, in which order, which is best, and what failed."""

import polars as pl

from hfbench.records import OK
from hfbench.tables.columns import CONFIGURATION_AXES

# Configurations are compared with those that do the same work.
WORKLOAD_AXES = ("model", "batch_size", "sequence_length", "max_new_tokens")


def varying_axes(points: pl.DataFrame) -> list[str]:
    """Return the axes (without round) that have more than one value."""
    return [axis for axis in CONFIGURATION_AXES if points[axis].n_unique() > 1]


def result_rows(summary: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration with a round that is ok: by workload, then fastest end to end first.

    Columns: the axes; `rounds_ok` and `rounds_asked`; for each metric of the summary its median under the metric's
    name and a boolean METRIC_best; `lowest_round_seconds` and `highest_round_seconds`, the extreme medians of a round
    end to end; and `workload`, a number. Best is the best median of a workload whose medians differ.
    """
    rows = _rounds(points).filter(pl.col("rounds_ok") > 0)
    for (metric,), group in summary.group_by("metric", maintain_order=True):
        best = _is_best(higher_is_better=bool(group["higher_is_better"][0]))
        columns = group.select(*CONFIGURATION_AXES, pl.col("median").alias(metric), best.alias(f"{metric}_best"))
        rows = rows.join(columns, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    extremes = summary.filter(pl.col("metric") == "end_to_end_seconds").select(
        *CONFIGURATION_AXES,
        end_to_end_seconds_lowest=pl.col("round_medians").list.min(),
        end_to_end_seconds_highest=pl.col("round_medians").list.max(),
    )
    rows = rows.join(extremes, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    return _sorted(rows)


def failure_rows(points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each (configuration, status, phase, reason) that is not ok, with the list of its `rounds`."""
    return (
        points.filter(pl.col("status") != OK)
        .group_by(*CONFIGURATION_AXES, "status", "phase", "reason", maintain_order=True)
        .agg(rounds=pl.col("round").sort())
    )


def _rounds(points: pl.DataFrame) -> pl.DataFrame:
    return points.group_by(CONFIGURATION_AXES, maintain_order=True).agg(
        rounds_ok=(pl.col("status") == OK).sum(), rounds_asked=pl.len()
    )


def _is_best(*, higher_is_better: bool) -> pl.Expr:
    median = pl.col("median")
    lowest, highest = median.min().over(WORKLOAD_AXES), median.max().over(WORKLOAD_AXES)
    return (median == (highest if higher_is_better else lowest)) & (lowest != highest)


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort by workload, the models in the sweep's order, then by end-to-end time."""
    if "end_to_end_seconds" not in rows.columns:
        rows = rows.with_columns(end_to_end_seconds=pl.lit(None, dtype=pl.Float64))
    models = {model: place for place, model in enumerate(rows["model"].unique(maintain_order=True))}
    place = pl.col("model").replace_strict(models, return_dtype=pl.Int64)
    keys = [place, *(pl.col(axis) for axis in WORKLOAD_AXES[1:])]
    return rows.with_columns(workload=pl.struct(keys).rank("dense")).sort(
        "workload", "end_to_end_seconds", nulls_last=True, maintain_order=True
    )
