"""Which configurations are shown, in which order, with which columns: what a person chose of the results."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.report.frames import Results, failure_rows, result_rows, varying_axes
from hfbench.report.words import (
    REQUEST_METRICS,
    SHOWN_METRICS,
    ShownMetric,
    TextColumn,
    axis_column,
    has_unequal_requests,
    metric_column,
    number_columns,
    result_columns,
)
from hfbench.tables.metrics import AXIS_COLUMNS, METRIC_NAMES
from hfbench.tables.store import parse_filter


@dataclass(frozen=True)
class View:
    """`rows` are those of `result_rows`; rows with the same number in `sections` stand together.

    `columns` have a cell for each row; `notes` say how the view differs from the whole.
    """

    results: Results
    rows: pl.DataFrame
    columns: tuple[TextColumn, ...]
    sections: tuple[int, ...]
    notes: tuple[str, ...] = ()


def whole_view(results: Results) -> View:
    """Return the view of everything: by workload, fastest first, with the columns that have values."""
    rows = result_rows(results.summary, results.configurations)
    return View(results, rows, tuple(result_columns(rows, results.points)), tuple(rows["workload"]))


_FRACTIONS = {"mbu": "mbu_fraction", "mfu": "mfu_fraction"}
_BREAK_EVEN = (*(f"break_even_new_tokens{end}" for end in ("", "_low", "_high")), "break_even")
_ROUNDS = ("rounds_asked", "rounds_ok")
NOT_OK = "not_ok"


def result_data(view: View, *, only_columns: bool = False) -> pl.DataFrame:
    """Return a row for each configuration, those that no round could measure last.

    Columns: the axes; `rounds_asked` and `rounds_ok`; each metric under its name, its 95% interval as METRIC_low and
    METRIC_high where it has one; `mbu_fraction` and `mfu_fraction`; `break_even` in words, and `break_even_new_tokens`
    with its limits; `output_differs`; and `not_ok`, which says what failed in which rounds. With `only_columns`, only
    what the columns of the view are made of.
    """
    failed = view.results.configurations.filter(pl.col("rounds_ok") == 0)
    rows = pl.concat([view.rows, failed.select(*CONFIGURATION_AXES, *_ROUNDS)], how="diagonal")
    rows = rows.join(_failures(view), on=CONFIGURATION_AXES, how="left", maintain_order="left")
    names = [*CONFIGURATION_AXES, *_ROUNDS]
    for metric in METRIC_NAMES:
        names += [name for name in (metric, f"{metric}_low", f"{metric}_high") if name in rows.columns]
    names += [*_FRACTIONS, *_BREAK_EVEN, "output_differs", NOT_OK]
    if only_columns:
        wanted = [name for column in view.columns for name in _parts(column.name, names)]
        names = list(dict.fromkeys(wanted))
    without_values = [
        name for name in names if name.endswith(("_low", "_high")) and rows[name].null_count() == rows.height
    ]
    return rows.select(name for name in names if name not in without_values).rename(_FRACTIONS, strict=False)


def result_json(view: View, *, only_columns: bool = False) -> dict[str, Any]:
    """Return `configurations`, the rows of `result_data`, and `warnings` with the key of their configuration."""
    return {
        "configurations": result_data(view, only_columns=only_columns).to_dicts(),
        "warnings": [
            {"point": each.point, "code": each.warning.code, "what": each.warning.what, "remedy": each.warning.remedy}
            for each in view.results.warnings
        ],
    }


def _parts(name: str, names: list[str]) -> list[str]:
    """Return the columns of data that stand for a column of text."""
    special = {
        "break_even_new_tokens": list(_BREAK_EVEN),
        "rounds_ok": list(_ROUNDS),
        "precision": ["end_to_end_seconds_low", "end_to_end_seconds_high"],
    }
    parts = special.get(name, [name, f"{name}_low", f"{name}_high"])
    return [part for part in parts if part in names]


def _failures(view: View) -> pl.DataFrame:
    failures = failure_rows(view.results.points).with_columns(
        rounds=pl.col("rounds").cast(pl.List(pl.String)).list.join(", "), status=pl.col("status").cast(pl.String)
    )
    what = pl.format("{} in round {}: {}", "status", "rounds", pl.col("reason").fill_null("no reason was recorded"))
    return failures.group_by(CONFIGURATION_AXES, maintain_order=True).agg(what.str.join("; ").alias(NOT_OK))


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


_NEVER_DROPPED = 1
_DIRECTIONS = {"asc": False, "desc": True}


@dataclass(frozen=True)
class Choice:
    """`condition` as `hfbench.tables.store` reads it, `sort` as COLUMN or COLUMN:desc, `columns` by their names."""

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
    meets = parse_filter(condition, {axis: AXIS_COLUMNS[axis] for axis in CONFIGURATION_AXES})
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
