"""The values of each point by metric and round, as the statistics take them."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from hfbench.comparison.compared import COMPARED
from hfbench.comparison.side import Side
from hfbench.foundation.records import OK
from hfbench.statistics.bootstrap import Floats
from hfbench.tables.columns import CONFIGURATION_AXES

Axes: TypeAlias = tuple[Any, ...]  # a value for each of CONFIGURATION_AXES
Rounds: TypeAlias = dict[int, Floats]  # the values of each round, by its number
Values: TypeAlias = dict[Axes, dict[str, Rounds]]


def values_of(side: Side) -> Values:
    """Return the values of each configuration, for each metric of `COMPARED` that has some.

    Of rounds that are ok: those of a metric that is sampled are its sample iterations with the token observer, as in
    the summary; others have one value a round. Null is no value.
    """
    samples, points = side.samples, side.points
    sampled = _known(samples, [metric.name for metric in COMPARED if metric.is_sampled])
    single = _known(points, [metric.name for metric in COMPARED if not metric.is_sampled])
    iterations = samples.filter(pl.col("status") == OK, pl.col("phase") == "sample", "observed")
    values: Values = {}
    for table, metrics in ((iterations, sampled), (points.filter(pl.col("status") == OK), single)):
        for axes, number, row in _rounds(table, metrics):
            for metric, found in row.items():
                if len(found):
                    values.setdefault(axes, {}).setdefault(metric, {})[number] = found
    return values


def _known(table: pl.DataFrame, metrics: list[str]) -> list[str]:
    return [metric for metric in metrics if metric in table.columns]


def _rounds(table: pl.DataFrame, metrics: list[str]) -> Iterator[tuple[Axes, int, dict[str, Floats]]]:
    keys = [*CONFIGURATION_AXES, "round"]
    lists = (
        table.group_by(keys, maintain_order=True)
        .agg(pl.col(metric).cast(pl.Float64).drop_nulls() for metric in metrics)
        .sort("round", maintain_order=True)
    )
    columns = [lists[metric] for metric in metrics]
    for index, key in enumerate(lists.select(keys).iter_rows()):
        row = {metric: column[index].to_numpy() for metric, column in zip(metrics, columns, strict=True)}
        yield key[:-1], key[-1], {metric: np.asarray(values) for metric, values in row.items()}
