"""Every column that the results can be shown with, found by its full name or by the one displayed."""

import difflib
import re
from collections.abc import Sequence

import polars as pl

from hfbench.foundation.errors import UserError
from hfbench.reporting.cells import (
    REQUEST_METRICS,
    SHOWN_METRICS,
    ShownMetric,
    TextColumn,
    axis_column,
    has_unequal_requests,
    metric_column,
    number_columns,
)
from hfbench.tables.columns import CONFIGURATION_AXES

_RANK = 20  # none of these is shown unless it is asked for
_OTHER_METRICS = (
    ShownMetric("end_to_end_unobserved_seconds", "unobserved", "s", 1, _RANK),
    ShownMetric("inter_token_gap_seconds", "token gap", "ms", 1e3, _RANK),
    ShownMetric("first_call_seconds", "first call", "s", 1, _RANK),
    ShownMetric("compile_seconds", "compile time", "s", 1, _RANK),
    ShownMetric("warm_first_call_seconds", "warm first call", "s", 1, _RANK),
    ShownMetric("warm_compile_seconds", "warm compile time", "s", 1, _RANK),
)
METRICS_SHOWN = {shown.metric: shown for shown in (*SHOWN_METRICS, *REQUEST_METRICS, *_OTHER_METRICS)}


def known_columns(rows: pl.DataFrame) -> list[TextColumn]:
    """Return the columns of `rows` (of `result_rows`): every axis, what the results show, and the other metrics."""
    axes = [axis_column(rows, axis) for axis in CONFIGURATION_AXES]
    others = _OTHER_METRICS if has_unequal_requests(rows) else (*REQUEST_METRICS, *_OTHER_METRICS)
    return [*axes, *number_columns(rows), *(metric_column(rows, shown) for shown in others)]


def find_column(name: str, columns: Sequence[TextColumn]) -> TextColumn:
    """Return the column of this name or label, in any case and with any of `-`, `_` and blank between its words.

    Raises `UserError` with the known ones where there is none.
    """
    wanted = _normal(name)
    for column in columns:
        if wanted in (_normal(column.name), _normal(column.label)):
            return column
    raise _unknown(name, columns)


def _normal(name: str) -> str:
    return re.sub(r"[-_\s]+", " ", name).strip().casefold()


def _unknown(name: str, columns: Sequence[TextColumn]) -> UserError:
    names = {_normal(each): each for column in columns for each in (column.name, column.label)}
    close = difflib.get_close_matches(_normal(name), names, n=1)
    hint = f"Did you mean {names[close[0]]}? " if close else ""
    known = ", ".join(column.name if column.name == column.label else _both(column) for column in columns)
    return UserError(f"there is no column {name.strip()!r}. {hint}Known are: {known}.")


def _both(column: TextColumn) -> str:
    return f"{column.name} ({column.label})"
