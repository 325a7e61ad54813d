"""What the report draws from: the tables with the report's names, and only what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from hfbench.foundation.records import OK
from hfbench.reporting.results import result_rows
from hfbench.reporting.ways import named_configurations
from hfbench.tables.columns import CONFIGURATION_AXES

NAMES = ("configuration", "way", "workload", "scene", "name", "is_reference")
Rounds = dict[int, list[float]]


@dataclass(frozen=True)
class ReportData:
    """Frames whose columns `configuration` (a number), `way`, `workload`, `scene` and `name` say what a row is of.

    `rows` is that of `result_rows`; `points` has a row for each round that is ok, `first_calls` its first call, and
    `samples` a row for each sample with the token observer. `ways` and `workloads` are in the order in which they are
    shown, `ways` with those that could not be measured, so that a colour is kept when one fails.
    """

    rows: pl.DataFrame
    points: pl.DataFrame
    first_calls: pl.DataFrame
    samples: pl.DataFrame
    ways: tuple[str, ...]
    workloads: tuple[str, ...]


def report_data(
    samples: pl.DataFrame, summary: pl.DataFrame, points: pl.DataFrame, configurations: pl.DataFrame
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
    )


def values_by_round(samples: pl.DataFrame, column: str) -> dict[int, Rounds]:
    """Return, for each configuration, its rounds' values of a column; nulls, and rounds without any, are left out."""
    grouped = (
        samples.drop_nulls(column)
        .group_by("configuration", "round", maintain_order=True)
        .agg(pl.col(column))
        .sort("configuration", "round")
    )
    found: dict[int, Rounds] = {}
    for configuration, number, values in grouped.iter_rows():
        found.setdefault(configuration, {})[number] = values
    return found


def paired(one: Rounds, other: Rounds) -> tuple[list[list[float]], list[list[float]]]:
    """Return the values of the rounds that both have, in the same order."""
    shared = sorted(one.keys() & other.keys())
    return [one[number] for number in shared], [other[number] for number in shared]


def shown_names(names: Sequence[str], used: pl.Series) -> list[str]:
    """Return those of the names that are used, in their order."""
    present = set(used)
    return [name for name in names if name in present]


def _named(frame: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    return frame.join(
        names.select(*CONFIGURATION_AXES, *NAMES), on=CONFIGURATION_AXES, how="left", maintain_order="left"
    )
