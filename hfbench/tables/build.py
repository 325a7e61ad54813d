"""The tables together, built from the records of a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hfbench.tables.points import points_table
from hfbench.tables.reading import ReadRecord
from hfbench.tables.samples import samples_table
from hfbench.tables.storage import write_table
from hfbench.tables.summary import summary_table


@dataclass(frozen=True)
class Tables:
    """`samples` has a row an iteration, `summary` one a configuration and metric, `points` one a record."""

    samples: pl.DataFrame
    summary: pl.DataFrame
    points: pl.DataFrame

    def write(self, folder: Path) -> None:
        """Write each table to `folder` as NAME.parquet."""
        for name, table in vars(self).items():
            write_table(table, folder, name)


def build_tables(records: Sequence[ReadRecord]) -> Tables:
    """Return the tables of these records."""
    samples = samples_table(records)
    points = points_table(records, samples)
    return Tables(samples=samples, summary=summary_table(samples, points), points=points)
