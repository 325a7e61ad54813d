"""The table of points: one row a record, measured or not."""

import re
from collections.abc import Sequence

import polars as pl

from hfbench.records import AXES
from hfbench.tables.columns import STATUS, axes_frame
from hfbench.tables.reading import ReadRecord

_FACT_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "status": STATUS,
    "reason": pl.String,
    "phase": pl.String,
    "device": pl.String,
    "device_name": pl.String,
    "started_at": pl.String,
    "stopped_because": pl.String,
    "prompt_nll": pl.Float64,
    "load_seconds": pl.Float64,
    "first_call_seconds": pl.Float64,
    "peak_memory_bytes": pl.Int64,
}


def points_table(records: Sequence[ReadRecord], samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each record, in their order.

    Columns: the axes; status, reason and the phase in which it failed; the device; what was measured once; `samples`,
    the number of sample iterations; `observer_cost_ratio`, median end-to-end seconds with the token observer over
    without (null where either is missing); and a column
    `timeline_NAME_seconds` for each entry of the timeline.
    """
    facts = pl.DataFrame([record.facts for record in records], schema=_FACT_TYPES)
    axes = axes_frame(record.configuration for record in records)
    return pl.concat(
        [axes.join(_sampled(samples), on=AXES, how="left", maintain_order="left"), facts, _timeline(records)],
        how="horizontal",
    ).select(*AXES, *_FACT_TYPES, pl.col("samples").fill_null(0), "observer_cost_ratio", pl.col("^timeline_.*$"))


def _sampled(samples: pl.DataFrame) -> pl.DataFrame:
    end_to_end = pl.col("end_to_end_seconds")
    observed = end_to_end.filter("observed").median()
    unobserved = end_to_end.filter(~pl.col("observed")).median()
    return (
        samples.lazy()
        .filter(pl.col("phase") == "sample")
        .group_by(AXES)
        .agg(samples=pl.len().cast(pl.Int64), observer_cost_ratio=observed / unobserved)
        .collect()
    )


def _timeline(records: Sequence[ReadRecord]) -> pl.DataFrame:
    names = dict.fromkeys(name for record in records for name in record.timeline)
    columns = {f"timeline_{re.sub(r'[^A-Za-z0-9]+', '_', name)}_seconds": name for name in names}
    return pl.DataFrame(
        {column: [record.timeline.get(name) for record in records] for column, name in columns.items()},
        schema=dict.fromkeys(columns, pl.Float64),
    )
