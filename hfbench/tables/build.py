"""The tables together, built from the records of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.foundation.params import Limits
from hfbench.tables.configurations import configurations_table
from hfbench.tables.points import points_table
from hfbench.tables.reading import ReadRecord
from hfbench.tables.samples import samples_table
from hfbench.tables.storage import write_table
from hfbench.tables.summary import summary_table
from hfbench.tables.warned import configuration_warnings
from hfbench.tables.warning_file import ConfigurationWarning, write_warnings


@dataclass(frozen=True)
class Tables:
    """`samples` has a row an iteration, `points` one a record, `configurations` one for the rounds of a configuration,
    and `summary` one for each of its metrics.
    """

    samples: pl.DataFrame
    summary: pl.DataFrame
    points: pl.DataFrame
    configurations: pl.DataFrame
    warnings: list[ConfigurationWarning]

    def write(self, folder: Path) -> None:
        """Write each table to `folder` as NAME.parquet, and the warnings as JSON."""
        for name in ("samples", "summary", "points", "configurations"):
            write_table(getattr(self, name), folder, name)
        write_warnings(self.warnings, folder)


def build_tables(records: Sequence[ReadRecord], ceilings: Mapping[str, Any], limits: Limits) -> Tables:
    """Return the tables of these records; `ceilings` is the content of ceilings.json."""
    samples = samples_table(records)
    points = points_table(records, samples)
    summary = summary_table(samples, points)
    configurations = configurations_table(records, samples, points, summary, ceilings, limits)
    return Tables(samples, summary, points, configurations, configuration_warnings(configurations))
