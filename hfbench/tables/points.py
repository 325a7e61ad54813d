"""The table of points: one row a record, measured or not."""

import re
from collections.abc import Sequence

import polars as pl

from hfbench.foundation.configuration import AXES
from hfbench.tables.agreement import AGREEMENT_TYPES, agreement_table
from hfbench.tables.columns import axes_frame
from hfbench.tables.reading import ReadRecord
from hfbench.tables.record_facts import FACT_TYPES


def points_table(records: Sequence[ReadRecord], samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each record, in their order.

    Columns: the axes; status, reason and the phase in which it failed; the device; what was measured once; what the
    machine did meanwhile (`hfbench.tables.machine_facts`); how the output agrees (`hfbench.tables.agreement`);
    `samples`, the number of sample iterations; `observer_cost_ratio`, median end-to-end seconds with the token observer
    over without (null where either is missing); and a column `timeline_NAME_seconds` for each entry of the timeline.
    """
    facts = pl.DataFrame([record.facts for record in records], schema=FACT_TYPES)
    axes = axes_frame(record.configuration for record in records)
    return pl.concat(
        [
            axes.join(_sampled(samples), on=AXES, how="left", maintain_order="left"),
            facts,
            agreement_table(records),
            _timeline(records),
        ],
        how="horizontal",
    ).select(
        *AXES,
        *FACT_TYPES,
        *AGREEMENT_TYPES,
        pl.col("samples").fill_null(0),
        "observer_cost_ratio",
        pl.col("^timeline_.*$"),
    )


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
