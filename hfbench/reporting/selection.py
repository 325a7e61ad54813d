"""Which configurations are shown, in which order, with which columns: what a person chose of the results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from hfbench.foundation.errors import UserError
from hfbench.reporting.cells import TextColumn, axis_column, result_columns
from hfbench.reporting.known_columns import find_column, known_columns
from hfbench.reporting.results import Results, result_rows, varying_axes
from hfbench.reporting.view import View
from hfbench.tables.columns import AXIS_TYPES, CONFIGURATION_AXES
from hfbench.tables.filters import parse_filter

_NEVER_DROPPED = 1
_DIRECTIONS = {"asc": False, "desc": True}


@dataclass(frozen=True)
class Choice:
    """`condition` as `hfbench.tables.filters` reads it, `sort` as COLUMN or COLUMN:desc, `columns` by their names."""

    condition: str | None = None
    sort: str | None = None
    columns: tuple[str, ...] = ()


def chosen_view(results: Results, choice: Choice) -> View:
    """Return what was chosen of the results.

    Best is what is best of the rows that are left. Where no axis is among the columns, those that vary come first: a
    row must say what it is of. Raises `UserError` for a name that is not known, a condition that is not understood, and
    one that nothing meets.
    """
    everything = results
    notes: tuple[str, ...] = ()
    if choice.condition is not None:
        results = narrowed(results, choice.condition)
        notes = (_narrowing(everything, results, choice.condition),)
    rows = result_rows(results.summary, results.configurations)
    sections = tuple(rows["workload"])
    if choice.sort is not None:
        rows, sections = sorted_rows(rows, choice.sort), (0,) * rows.height
    columns = _chosen_columns(rows, results.points, choice.columns)
    return View(results, rows, columns, sections, notes)


def narrowed(results: Results, condition: str) -> Results:
    """Return what the results say of the configurations that meet the condition. Raises `UserError`, as above."""
    meets = parse_filter(condition, {axis: AXIS_TYPES[axis] for axis in CONFIGURATION_AXES})
    configurations = results.configurations.filter(meets)
    if configurations.is_empty():
        raise UserError(f"no configuration meets `{condition}`. {_values(results.configurations)}")
    kept = set(configurations.select(CONFIGURATION_AXES).rows())
    return Results(
        summary=results.summary.filter(meets),
        points=results.points.filter(meets),
        configurations=configurations,
        warnings=[
            each for each in results.warnings if tuple(each.configuration[axis] for axis in CONFIGURATION_AXES) in kept
        ],
    )


def sorted_rows(rows: pl.DataFrame, sort: str) -> pl.DataFrame:
    """Return the rows by a column, as COLUMN, COLUMN:asc or COLUMN:desc; rows without a value stand last.

    Raises `UserError` for a column that is not known, or that no row has a value of.
    """
    name, separator, direction = sort.rpartition(":")
    if not separator:
        name, direction = sort, "asc"
    elif direction not in _DIRECTIONS:
        raise UserError(f"--sort {sort!r} ends with {direction!r}. Expected :asc or :desc, or nothing for :asc.")
    column = find_column(name, known_columns(rows)).name
    if column not in rows.columns or not rows[column].count():
        raise UserError(f"--sort {sort!r}: no configuration has a value of {column}.")
    return rows.sort(column, descending=_DIRECTIONS[direction], nulls_last=True, maintain_order=True)


def _chosen_columns(rows: pl.DataFrame, points: pl.DataFrame, names: Sequence[str]) -> tuple[TextColumn, ...]:
    if not names:
        return tuple(result_columns(rows, points))
    known = known_columns(rows)
    columns = [find_column(name, known) for name in names]
    if not any(column.rank == 0 for column in columns):
        columns = [*(axis_column(rows, axis) for axis in varying_axes(points)), *columns]
    return tuple(replace(column, rank=min(column.rank, _NEVER_DROPPED)) for column in columns)


def _narrowing(everything: Results, kept: Results, condition: str) -> str:
    counts = f"{kept.configurations.height} of {everything.configurations.height} configurations"
    return f"{counts}, where {condition}; * is the best of these."


def _values(configurations: pl.DataFrame) -> str:
    parts = [
        f"{axis} is {', '.join(_literal(value) for value in configurations[axis].unique(maintain_order=True))}"
        for axis in CONFIGURATION_AXES
    ]
    return f"There {'; '.join(parts)}."


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
