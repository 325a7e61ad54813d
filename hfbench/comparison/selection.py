"""A part of a side: the points that a filter keeps, or those with one value of an axis."""

from dataclasses import replace
from typing import Any

import polars as pl

from hfbench.comparison.side import Side
from hfbench.foundation.configuration import AXES
from hfbench.foundation.errors import UserError

_TABLES = ("samples", "summary", "points", "configurations")


def filtered(side: Side, text: str) -> Side:
    """Return the side with the points that a filter over the axes keeps. Raises `UserError` for a wrong filter."""
    from hfbench.tables.filters import parse_filter

    kept = side.points.filter(parse_filter(text, AXES)).select(AXES).unique()
    tables = {}
    for name in _TABLES:
        table = getattr(side, name)
        axes = [axis for axis in AXES if axis in table.columns]
        tables[name] = table.join(kept.select(axes).unique(), on=axes, how="semi", maintain_order="left")
    return replace(side, **tables)


def axis_values(side: Side, axis: str) -> list[Any]:
    """Return the values that an axis has, in the order measured."""
    return side.points[axis].unique(maintain_order=True).to_list()


def with_axis(side: Side, axis: str, value: Any, stands_for: Any) -> Side:
    """Return the points whose `axis` is `value`, under the name of `stands_for`, so that they pair with those of it."""
    dtype = side.points.schema[axis]
    renamed = pl.lit(stands_for, dtype=dtype).alias(axis)
    tables = {name: getattr(side, name).filter(pl.col(axis) == value).with_columns(renamed) for name in _TABLES}
    return replace(side, label=f"{axis}={value}", **tables)


def check_has_points(side: Side, text: str | None) -> None:
    """Raise `UserError` where a side has no points (left), saying so."""
    if side.points.is_empty():
        why = f"--filter {text!r} keeps no point of {side.label}." if text else f"{side.label} has no points."
        raise UserError(why)
