"""The files that `dvc plots show` and `dvc plots diff` draw; the revision is DVC's to add."""

from pathlib import Path

import polars as pl

from hfbench.core.files import write_text
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.record import OK
from hfbench.tables.store import configuration_keys

_METRIC = "end_to_end_seconds"
_HIGHEST = 2  # times the estimate: an interval that ends beyond it would leave the rest of a chart no room


def write_plots(summary: pl.DataFrame, samples: pl.DataFrame, points: pl.DataFrame, folder: Path) -> None:
    """Write each plot's data to `folder` as CSV, from the tables of `hfbench.tables.build.Tables`.

    `configuration` is the key of a configuration, `low` and `high` bound the 95% interval of an estimate, and
    `iteration` counts the samples of a round from 1. A plot that nothing is known for has a header only.
    """
    frame = points.select(CONFIGURATION_AXES).unique(maintain_order=True)
    keys = frame.with_columns(configuration=pl.Series(configuration_keys(frame.to_dicts()), dtype=pl.String))
    rows = summary.filter(pl.col("metric") == _METRIC).join(keys, on=CONFIGURATION_AXES, maintain_order="left")
    high = pl.min_horizontal("high", _HIGHEST * pl.col("estimate"))
    estimates = rows.select("configuration", pl.col("estimate").alias(_METRIC), "low", high=high)
    write_text(folder / "end_to_end.csv", estimates.write_csv())
    measured = samples.filter(pl.col("status") == OK, pl.col("phase") == "sample")
    rows = measured.join(keys, on=CONFIGURATION_AXES, maintain_order="left")
    iteration = pl.int_range(pl.len()).over("configuration", "round") + 1
    in_order = rows.select("configuration", "round", iteration.alias("iteration"), _METRIC, "observed")
    write_text(folder / "samples.csv", in_order.write_csv())
