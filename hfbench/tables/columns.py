"""The columns that the tables share: the axes of the sweep and the enumerated types."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from hfbench.foundation.configuration import AXES, Configuration
from hfbench.foundation.records import STATUSES
from hfbench.tables.metrics import METRIC_NAMES

STATUS = pl.Enum(STATUSES)
PHASE = pl.Enum(["first", "warmup", "sample"])
METRIC = pl.Enum(METRIC_NAMES)

_POLARS_TYPES: dict[Any, type[pl.DataType]] = {int: pl.Int64, str: pl.String, bool: pl.Boolean}
AXIS_TYPES = {axis: _POLARS_TYPES[Configuration.__annotations__[axis]] for axis in AXES}

# What is compared: a round repeats a configuration in a fresh process.
CONFIGURATION_AXES = tuple(axis for axis in AXES if axis != "round")


def axes_frame(configurations: Iterable[Configuration]) -> pl.DataFrame:
    """Return a frame with a typed column for each axis and a row for each configuration."""
    return pl.DataFrame([vars(configuration) for configuration in configurations], schema=AXIS_TYPES)
