"""What the results show, as frames: which configurations, in which order, which is best, what failed; data of plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hfbench.core.files import write_text
from hfbench.core.point import CONFIGURATION_AXES, REFERENCE, WAY_AXES, WORKLOAD_AXES, words_of
from hfbench.core.record import OK
from hfbench.statistics.bootstrap import Floats
from hfbench.statistics.changepoints import knee
from hfbench.statistics.verdicts import DEFAULT_THRESHOLD
from hfbench.tables.build import MeasurementWarning, read_warnings
from hfbench.tables.doubts import POINT
from hfbench.tables.metrics import percentile_name
from hfbench.tables.store import configuration_keys, point_label, read_table

# Configurations are compared with those that do the same work with the same model.
MODEL_AND_WORK = ("model", *WORKLOAD_AXES)
_RATE = "request_rate"


@dataclass(frozen=True)
class Results:
    """The tables that the results are shown from; see `hfbench.tables.build.Tables`."""

    summary: pl.DataFrame
    points: pl.DataFrame
    configurations: pl.DataFrame
    warnings: list[MeasurementWarning]


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
    estimate = pl.when("is_comparable").then("estimate")
    lowest, highest = estimate.min().over(MODEL_AND_WORK), estimate.max().over(MODEL_AND_WORK)
    summary = summary.join(is_comparable, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    for (metric,), group in summary.group_by("metric", maintain_order=True):
        is_best = estimate == (highest if group["higher_is_better"][0] else lowest)
        columns = group.select(
            *CONFIGURATION_AXES,
            pl.col("estimate").alias(f"{metric}"),
            pl.col("low", "high").name.prefix(f"{metric}_"),
            (is_best & (lowest != highest)).fill_null(value=False).alias(f"{metric}_best"),
        )
        rows = rows.join(columns, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    if "end_to_end_seconds" not in rows.columns:
        rows = rows.with_columns(end_to_end_seconds=pl.lit(None, dtype=pl.Float64))
    # The models in the sweep's order, and what differs last.
    models = {model: place for place, model in enumerate(rows["model"].unique(maintain_order=True))}
    place = pl.col("model").replace_strict(models, return_dtype=pl.Int64)
    keys = [place, *(pl.col(axis) for axis in MODEL_AND_WORK[1:] if axis != _RATE), pl.col(_RATE).cast(pl.Float64)]
    return rows.with_columns(workload=pl.struct(keys).rank("dense")).sort(
        "workload", "output_differs", "end_to_end_seconds", nulls_last=True, maintain_order=True
    )


def load_curves(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `result_rows` under a request rate, by rising rate, with what they are drawn and judged by.

    `curve` numbers those that differ in nothing else, of which there are two at least; `rate` is in requests a second,
    `tokens` are those of the throughput and `wait` is the 95th percentile of the time to the first token, in seconds.
    `is_knee` is whether waiting grows faster than the load from this rate on.
    """
    waits = percentile_name("time_to_first_token", 95)
    if waits not in rows.columns:
        return pl.DataFrame()
    others = pl.struct(axis for axis in CONFIGURATION_AXES if axis != _RATE)
    found = (
        rows.with_columns(rate=pl.col(_RATE).cast(pl.Float64), tokens="output_tokens_per_second", wait=waits)
        .filter(pl.col("rate").is_finite(), pl.col("wait").is_not_null())
        .with_columns(curve=others.rank("dense"))
        .filter(pl.len().over("curve") > 1)
        .sort("curve", "rate", maintain_order=True)
    )
    knees = []
    for curve in found.partition_by("curve", maintain_order=True):
        place = knee(curve["rate"].to_list(), curve["wait"].to_list())
        knees += [index == place for index in range(curve.height)]
    return found.with_columns(is_knee=pl.Series(knees, dtype=pl.Boolean))


def failure_rows(points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each (configuration, status, phase, reason) that is not ok, with the list of its `rounds`."""
    return (
        points.filter(pl.col("status") != OK)
        .group_by(*CONFIGURATION_AXES, "status", "phase", "reason", maintain_order=True)
        .agg(rounds=pl.col("round").sort())
    )


def named_configurations(points: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each configuration of the sweep, in its order, with the names that the report gives it.

    A configuration is a workload (what runs) and a way (how); the batch sizes of a scene make a frontier. Columns: the
    axes; `way`, in short words for what is not usual, `workload` and `scene` (a workload without its batch size), which
    leave out what is the same everywhere; `name`, which tells it from the others; `is_reference`, whether it runs in
    the plainest way. The way of the only one is its attention.
    """
    axes = points.select(CONFIGURATION_AXES).unique(maintain_order=True)
    varying = varying_axes(points)
    workload_axes = [axis for axis in MODEL_AND_WORK if axis in varying]
    scene_axes = [axis for axis in workload_axes if axis != "batch_size"]
    way_axes = [axis for axis in WAY_AXES if axis in varying]
    rows = axes.to_dicts()
    ways = [point_label(row, way_axes or ["attn_implementation"]) for row in rows]
    workloads = [workload_name(row, workload_axes) for row in rows]
    names = [
        ", ".join(filter(None, (way if way_axes else "", workload))) or way
        for way, workload in zip(ways, workloads, strict=True)
    ]
    return axes.with_columns(
        way=pl.Series(ways, dtype=pl.String),
        workload=pl.Series(workloads, dtype=pl.String),
        scene=pl.Series([workload_name(row, scene_axes) for row in rows], dtype=pl.String),
        name=pl.Series(names, dtype=pl.String),
        is_reference=pl.all_horizontal(pl.col(axis) == value for axis, value in REFERENCE.items()),
    )


def workload_name(configuration: Mapping[str, Any], axes: Sequence[str]) -> str:
    """Return what a configuration runs in these axes, such as `batch 4, 128 prompt tokens`; empty for none."""
    return ", ".join(words_of(axis, configuration[axis]) for axis in axes)


Rounds = dict[int, Floats]  # the values of each round, by its number


@dataclass(frozen=True)
class ReportData:
    """Frames whose columns `configuration` (a number), `way`, `workload`, `scene` and `name` say what a row is of.

    `rows` is that of `result_rows`; `points` has a row for each round that is ok, `first_calls` its first call, and
    `samples` a row for each sample with the token observer. `ways` and `workloads` are in the order in which they are
    shown, `ways` with those that could not be measured, so that a colour is kept when one fails. `not_ok` has the axes
    and the `status` of each configuration without a round that is ok. A change within `threshold` counts as none.
    """

    rows: pl.DataFrame
    points: pl.DataFrame
    first_calls: pl.DataFrame
    samples: pl.DataFrame
    ways: tuple[str, ...]
    workloads: tuple[str, ...]
    not_ok: pl.DataFrame
    threshold: float


def report_data(
    samples: pl.DataFrame,
    summary: pl.DataFrame,
    points: pl.DataFrame,
    configurations: pl.DataFrame,
    threshold: float = DEFAULT_THRESHOLD,
) -> ReportData:
    """Return the frames from the tables of those names."""
    names = named_configurations(points).with_row_index("configuration")
    rows = _named(result_rows(summary, configurations).rename({"workload": "workload_number"}), names)
    measured = _named(samples.filter(pl.col("status") == OK, "observed"), names)
    return ReportData(
        rows=rows,
        points=_named(points.filter(pl.col("status") == OK), names),
        first_calls=measured.filter(pl.col("phase") == "first"),
        samples=measured.filter(pl.col("phase") == "sample"),
        ways=tuple(names["way"].unique(maintain_order=True)),
        workloads=tuple(rows["workload"].unique(maintain_order=True)),
        not_ok=_named(
            points.filter((pl.col("status") != OK).all().over(CONFIGURATION_AXES)).unique(
                CONFIGURATION_AXES, keep="first", maintain_order=True
            ),
            names,
        ),
        threshold=threshold,
    )


def values_by_round(table: pl.DataFrame, column: str, *keys: str) -> dict[tuple[Any, ...], Rounds]:
    """Return the values of a column by these keys and by round; nulls, and rounds without any, are left out."""
    numbers = pl.col(column).cast(pl.Float64)
    grouped = table.drop_nulls(column).group_by(*keys, "round", maintain_order=True).agg(numbers)
    found: dict[tuple[Any, ...], Rounds] = {}
    for *key, number, values in grouped.sort("round", maintain_order=True).iter_rows():
        found.setdefault(tuple(key), {})[number] = np.array(values)
    return found


def shown_names(names: Sequence[str], used: pl.Series) -> list[str]:
    """Return those of the names that are used, in their order."""
    present = set(used)
    return [name for name in names if name in present]


def _named(frame: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    return frame.join(names, on=CONFIGURATION_AXES, how="left", maintain_order="left")


_MOST_NAMED = 3  # points in a command


def _of_points(remedy: str, keys: Sequence[str]) -> str:
    """Return the remedy with its commands for these points; those that take one point get the first."""
    if len(keys) > _MOST_NAMED:
        return remedy
    return remedy.replace(f"retry {POINT}", f"retry {' '.join(keys)}").replace(POINT, keys[0])


@dataclass(frozen=True)
class WarningGroup:
    """Warnings of one kind with one remedy; `findings` says of whom (a text, empty for the only configuration) what."""

    title: str
    remedy: str
    findings: tuple[tuple[str, str], ...]


def warning_groups(warnings: Sequence[MeasurementWarning], points: pl.DataFrame) -> list[WarningGroup]:
    """Return the warnings in groups, in their order."""
    axes = varying_axes(points)
    measured = points.filter(pl.col("status") == OK).select(CONFIGURATION_AXES).n_unique()
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    keys: dict[tuple[str, str], list[str]] = {}
    for each in warnings:
        remedy = each.remedy.replace(f"'{each.point}'", POINT)  # what differs in the name alone is one remedy
        groups.setdefault((each.title, remedy), {}).setdefault(each.what, []).append(
            point_label(each.configuration, axes)
        )
        keys.setdefault((each.title, remedy), []).append(f"'{each.point}'")
    everyone = {1: "", 2: "both configurations"}.get(measured, f"all {measured} configurations")
    return [
        WarningGroup(
            title,
            _of_points(remedy, keys[title, remedy]),
            tuple((", ".join(labels) if len(labels) < measured else everyone, what) for what, labels in group.items()),
        )
        for (title, remedy), group in groups.items()
    ]


_PLOTTED = "end_to_end_seconds"
_HIGHEST = 2  # times the estimate: an interval that ends beyond it would leave the rest of a chart no room


def write_plots(summary: pl.DataFrame, samples: pl.DataFrame, points: pl.DataFrame, folder: Path) -> None:
    """Write each plot's data to `folder` as CSV, from the tables of `hfbench.tables.build.Tables`.

    `configuration` is the key of a configuration, `low` and `high` bound the 95% interval of an estimate, and
    `iteration` counts the samples of a round from 1. A plot that nothing is known for has a header only.
    """
    frame = points.select(CONFIGURATION_AXES).unique(maintain_order=True)
    keys = frame.with_columns(configuration=pl.Series(configuration_keys(frame.to_dicts()), dtype=pl.String))
    rows = summary.filter(pl.col("metric") == _PLOTTED).join(keys, on=CONFIGURATION_AXES, maintain_order="left")
    high = pl.min_horizontal("high", _HIGHEST * pl.col("estimate"))
    estimates = rows.select("configuration", pl.col("estimate").alias(_PLOTTED), "low", high=high)
    write_text(folder / "end_to_end.csv", estimates.write_csv())
    measured = samples.filter(pl.col("status") == OK, pl.col("phase") == "sample")
    rows = measured.join(keys, on=CONFIGURATION_AXES, maintain_order="left")
    iteration = pl.int_range(pl.len()).over("configuration", "round") + 1
    in_order = rows.select("configuration", "round", iteration.alias("iteration"), _PLOTTED, "observed")
    write_text(folder / "samples.csv", in_order.write_csv())
