"""The files that `dvc plots show` and `dvc plots diff` draw, by the templates in .dvc/plots.

In each file a row is a mark: `panel` says in which small chart it stands, `series` what has its colour, `low` and
`high` bound the 95% interval of the estimate. The revision is DVC's to add.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from hfbench.core.files import write_text
from hfbench.core.record import OK
from hfbench.report.frames import WORKLOAD_AXES, varying_axes
from hfbench.tables import metrics
from hfbench.tables.keys import configuration_keys, point_label
from hfbench.tables.metrics import CONFIGURATION_AXES

_LENGTHS = tuple(axis for axis in WORKLOAD_AXES if axis != "batch_size")
_HIGHEST = 2  # times the estimate: an interval that ends beyond it would leave the rest of a chart no room
_MOST_POSITIONS = 128  # along a sequence; of a longer one, each is the median of its neighbours


def write_plots(summary: pl.DataFrame, samples: pl.DataFrame, points: pl.DataFrame, folder: Path) -> None:
    """Write each plot's data to `folder` as CSV, from the tables of `hfbench.tables.build.Tables`.

    A plot that nothing is known for has a header only.
    """
    axes = varying_axes(points)
    plots = {
        "end_to_end": _estimates(summary, "end_to_end_seconds", _labels(points, axes, WORKLOAD_AXES)),
        "latency_by_batch": _estimates(summary, "end_to_end_seconds", _labels(points, axes, _LENGTHS)),
        "throughput_by_latency": _throughput(summary, _labels(points, axes, _LENGTHS)),
        "samples": _samples(samples, _labels(points, axes, CONFIGURATION_AXES)),
        "token_gaps": _token_gaps(samples, _labels(points, axes, WORKLOAD_AXES)),
    }
    for name, plot in plots.items():
        write_text(folder / f"{name}.csv", plot.write_csv())


def _labels(points: pl.DataFrame, axes: Iterable[str], panel: Iterable[str]) -> pl.DataFrame:
    """Return a row for each configuration: its axes, its key, its panel and its series, by the axes that vary."""
    frame = points.select(CONFIGURATION_AXES).unique(maintain_order=True)
    rows = frame.to_dicts()
    in_panel = [axis for axis in axes if axis in set(panel)]
    others = [axis for axis in axes if axis not in (*in_panel, "batch_size")]
    return frame.with_columns(
        configuration=pl.Series(configuration_keys(rows), dtype=pl.String),
        panel=pl.Series([point_label(row, in_panel) for row in rows], dtype=pl.String),
        series=pl.Series([point_label(row, others) for row in rows], dtype=pl.String),
    )


def _estimates(summary: pl.DataFrame, metric: str, labels: pl.DataFrame) -> pl.DataFrame:
    rows = summary.filter(pl.col("metric") == metric).join(labels, on=CONFIGURATION_AXES, maintain_order="left")
    return rows.select(
        "configuration",
        "panel",
        "series",
        "batch_size",
        pl.col("estimate").alias(metric),
        "low",
        high=pl.min_horizontal("high", _HIGHEST * pl.col("estimate")),
    )


def _throughput(summary: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the decode throughput beside the end-to-end latency: a frontier over the batch sizes."""
    seconds = _estimates(summary, "end_to_end_seconds", labels).select("configuration", "end_to_end_seconds")
    rates = _estimates(summary, "decode_tokens_per_second", labels)
    return rates.join(seconds, on="configuration", maintain_order="left")


def _samples(samples: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return each sample's end-to-end latency: `iteration` counts the samples of a round from 1."""
    rows = _measured(samples).join(labels, on=CONFIGURATION_AXES, maintain_order="left")
    number = pl.int_range(pl.len()).over("configuration", "round") + 1
    return rows.select("panel", "round", number.alias("iteration"), "end_to_end_seconds", "observed")


def _token_gaps(samples: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the gap before each token, counted from 1: the median over the samples, requests and rounds."""
    gaps = (
        _measured(samples)
        .select(*CONFIGURATION_AXES, gaps=metrics.inter_token_gaps())
        .join(labels, on=CONFIGURATION_AXES, maintain_order="left")
        .select("configuration", "panel", "series", "gaps")
        .explode("gaps")
        .filter(pl.col("gaps").list.len() > 0)
    )
    size = 1 + (gaps["gaps"].list.len().max() or 0) // (_MOST_POSITIONS + 1)  # type: ignore[operator]
    token = pl.int_ranges(pl.col("gaps").list.len()) // size * size + 2
    return (
        gaps.with_columns(token=token)
        .explode("gaps", "token")
        .group_by("panel", "series", "token", maintain_order=True)
        .agg(inter_token_milliseconds=pl.col("gaps").median() * 1e3)
    )


def _measured(samples: pl.DataFrame) -> pl.DataFrame:
    return samples.filter(pl.col("status") == OK, pl.col("phase") == "sample")
