"""`hfbench show`: what a person chose of the results, as a page and as data, or one point."""

import difflib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.errors import UserError, say
from hfbench.core.files import readable_json
from hfbench.core.point import CONFIGURATION_AXES, LOAD_AXES, Configuration
from hfbench.core.record import OK
from hfbench.core.results import LISTED_STAGE, PARAMS, configuration_meant, sweep_stage
from hfbench.params.schema import load_params
from hfbench.report.detail import ASCII, BLOCKS, point_page
from hfbench.report.frames import Results, failure_rows, load_curves, result_rows, varying_axes, warning_groups
from hfbench.report.pages import (
    Column,
    Heading,
    Page,
    Paragraph,
    Table,
    markdown,
    print_page,
    standard_output,
    total_width,
)
from hfbench.report.so_far import read_so_far
from hfbench.report.speedups import knee_sentences
from hfbench.report.words import (
    axis_column,
    captions,
    failure_columns,
    known_columns,
    point_column,
    result_columns,
    warning_list,
)
from hfbench.tables.metrics import AXIS_COLUMNS, FORMULAS, METRIC_NAMES
from hfbench.tables.store import load_records, measured_points, parse_filter


@dataclass(frozen=True)
class View:
    """`rows` are those of `result_rows`; rows with the same number in `sections` stand together.

    `columns` have a cell for each row; `note` says how the view differs from the whole.
    """

    results: Results
    rows: pl.DataFrame
    columns: tuple[Column, ...]
    sections: tuple[int, ...]
    note: Paragraph | None = None


_NEVER_DROPPED = 2  # columns up to this rank, however narrow the page
_DIRECTIONS = {"asc": False, "desc": True}


@dataclass(frozen=True)
class Choice:
    """`condition` as `parse_filter` reads it, `sort` as COLUMN or COLUMN:desc, `columns` by their names."""

    condition: str | None = None
    sort: str | None = None
    columns: tuple[str, ...] = ()


def chosen_view(results: Results, choice: Choice) -> View:
    """Return what was chosen of the results: by workload, fastest first, with the columns that have values, if nothing.

    Best is what is best of the rows that are left. Where no axis is among the columns, those that vary come first: a
    row must say what it is of. Raises `UserError` for a name that is not known, a condition that is not understood, and
    one that nothing meets.
    """
    note = None
    if choice.condition is not None:
        total = results.configurations.height
        results = narrowed(results, choice.condition)
        left = f"{results.configurations.height} of {total} configurations, where {choice.condition}"
        note = Paragraph(f"{left}; * is the best of these.", "quiet", in_markdown=f"{left}; bold is the best of these.")
    rows = result_rows(results.summary, results.configurations)
    sections = tuple(rows["workload"])
    if choice.sort is not None:
        rows, sections = sorted_rows(rows, choice.sort), (0,) * rows.height
    if not choice.columns:
        return View(results, rows, tuple(result_columns(rows, results.points)), sections, note)
    known = known_columns(rows)
    columns = [find_column(name, known) for name in choice.columns]
    if not any(column.rank == 0 for column in columns):
        columns = [*(axis_column(rows, axis) for axis in varying_axes(results.points)), *columns]
    kept = tuple(replace(column, rank=min(column.rank, _NEVER_DROPPED)) for column in columns)
    return View(results, rows, kept, sections, note)


def narrowed(results: Results, condition: str) -> Results:
    """Return what the results say of the configurations that meet the condition. Raises `UserError`, as above."""
    meets = parse_filter(condition, {axis: AXIS_COLUMNS[axis] for axis in CONFIGURATION_AXES})
    configurations = results.configurations.filter(meets)
    if configurations.is_empty():
        known = {axis: results.configurations[axis].unique(maintain_order=True) for axis in CONFIGURATION_AXES}
        parts = [f"{axis} is {', '.join(map(readable_json, values))}" for axis, values in known.items()]
        raise UserError(f"no configuration meets `{condition}`. There {'; '.join(parts)}.")
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
    by = pl.col(column).cast(pl.Float64) if column in LOAD_AXES else pl.col(column)
    return rows.sort(by, descending=_DIRECTIONS[direction], nulls_last=True, maintain_order=True)


def find_column(name: str, columns: Sequence[Column]) -> Column:
    """Return the column of this name or label, in any case and with any of `-`, `_` and blank between its words.

    Raises `UserError` with the known ones where there is none.
    """
    named = {_normal(each): column for column in columns[::-1] for each in (column.label, column.name)}
    if _normal(name) in named:
        return named[_normal(name)]
    names = {_normal(each): each for column in columns for each in (column.name, column.label)}
    close = difflib.get_close_matches(_normal(name), names, n=1)
    hint = f"Did you mean {names[close[0]]}? " if close else ""
    known = (each.name if each.name == each.label else f"{each.name} ({each.label})" for each in columns)
    raise UserError(f"there is no column {name.strip()!r}. {hint}Known are: {', '.join(known)}.")


def _normal(name: str) -> str:
    return re.sub(r"[-_\s]+", " ", name).strip().casefold()


_NARROWEST_POINT = 26
_GAP = 2  # blanks between two columns


def results_page(view: View, width: int | None = None) -> Page:
    """Return captions, table, notes, warnings and what is not ok.

    On a page of a `width`, the lesser of the columns that do not fit are left out, and of many warnings of a kind most.
    """
    points = view.results.points
    text, failures = captions(points, view.rows), failure_rows(points)
    columns, notes = view.columns, [view.note] if view.note else []
    notes += map(_note, (*text.notes, *knee_sentences(load_curves(view.rows))))
    if width is not None and view.rows.height:
        columns, dropped = fitting_columns(columns, point_column(view.rows, points), width)
        where = "They are in the report, and `hfbench show --columns` shows them."
        notes += [_note(f"Not shown at this width: {', '.join(dropped)}. {where}")] if dropped else []
    return [
        Heading(text.title),
        *(Paragraph(line, "quiet") for line in (text.counts, text.constants) if line),
        Table(columns, sections=view.sections, is_dense=True),
        *notes,
        warning_list(warning_groups(view.results.warnings, points), is_whole=width is None),
        Table(tuple(failure_columns(failures, points)), "Not ok"),
    ]


def _note(text: str) -> Paragraph:
    """Return a note, which says of the best what the mark is where it is one."""
    if not text.startswith("* "):
        return Paragraph(text, "quiet")
    return Paragraph(text, "quiet", in_markdown=f"In bold: {text.removeprefix('* ')}")


def fitting_columns(columns: Sequence[Column], point: Column, width: int) -> tuple[tuple[Column, ...], list[str]]:
    """Return the columns that fit into `width` characters without cutting a number, and the labels of those dropped.

    The lesser columns go first; where that is not enough, `point` stands for all axes and folds.
    """
    axes = [column for column in columns if column.rank == 0]
    numbers = [column for column in columns if column.rank > 0]
    kept = _fitting(numbers, width - _GAP - total_width(axes))
    shown = [column for column in columns if column in axes or column in kept]
    if axes and total_width(shown) > width:
        kept = _fitting(numbers, width - _GAP - _NARROWEST_POINT)
        shown = [point, *kept]
    return tuple(shown), [column.label for column in numbers if column not in kept]


def _fitting(columns: list[Column], width: int) -> list[Column]:
    while total_width(columns) > width and (least := max((each.rank for each in columns), default=0)) > _NEVER_DROPPED:
        columns = [column for column in columns if column.rank != least]
    return columns


# Names with their units.
_WITH_UNIT = {
    "mbu": "mbu_fraction",
    "mfu": "mfu_fraction",
    "prompt_nll": "prompt_nll_nats_per_token",
    "nll_change": "nll_change_nats_per_token",
}
_BREAK_EVEN = (*(f"break_even_new_tokens{end}" for end in ("", "_low", "_high")), "break_even")
_ROUNDS = ("rounds_asked", "rounds_ok")
_NOT_OK = "not_ok"


def result_data(view: View, *, only_columns: bool) -> pl.DataFrame:
    """Return a row for each configuration, those that no round could measure last.

    Columns: the axes; `rounds_asked` and `rounds_ok`; each metric under its name, its 95% interval as METRIC_low and
    METRIC_high where it has one; `mbu_fraction` and `mfu_fraction`; the prompt's likelihood and what quantising made of
    it; `break_even` in words, and `break_even_new_tokens` with its limits; `output_differs`; and `not_ok`, which says
    what failed in which rounds. With `only_columns`, only what the columns of the view are made of.
    """
    failed = view.results.configurations.filter(pl.col("rounds_ok") == 0)
    rows = pl.concat([view.rows, failed.select(*CONFIGURATION_AXES, *_ROUNDS)], how="diagonal")
    what = pl.format(
        "{} in round {}: {}",
        pl.col("status").cast(pl.String),
        pl.col("rounds").cast(pl.List(pl.String)).list.join(", "),
        pl.col("reason").fill_null("no reason was recorded"),
    )
    failures = failure_rows(view.results.points).group_by(CONFIGURATION_AXES, maintain_order=True)
    not_ok = failures.agg(what.str.join("; ").alias(_NOT_OK))
    rows = rows.join(not_ok, on=CONFIGURATION_AXES, how="left", maintain_order="left")
    names = [*CONFIGURATION_AXES, *_ROUNDS]
    for metric in METRIC_NAMES:
        names += [name for name in (metric, f"{metric}_low", f"{metric}_high") if name in rows.columns]
    names += [*_WITH_UNIT, *_BREAK_EVEN, "output_differs", _NOT_OK]
    if only_columns:
        wanted = dict.fromkeys(part for column in view.columns for part in _parts(column.name))
        names = [name for name in wanted if name in names]
    told = [name for name in names if not name.endswith(("_low", "_high")) or rows[name].count()]
    return rows.select(told).rename(_WITH_UNIT, strict=False)


_OF_SAMPLE = (
    "round",
    "iteration",
    "observed",
    "end_to_end_seconds",
    "call_seconds",
    *FORMULAS,
    "token_seconds",
    "arrival_seconds",
)


def sample_data(samples: pl.DataFrame, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return each sample of the rows' configurations, with the times of each token, ready for JSON.

    It has the axes, `round`, `iteration` (0 is the record's first call), `observed`, times in seconds from the
    iteration's start, and rates in tokens a second. `token_seconds` has a list for the whole batch where its rows
    advance in step, and else one a request.
    """
    chosen = rows.select(CONFIGURATION_AXES).with_row_index("place")
    measured = samples.filter(pl.col("status") == OK, pl.col("phase") == "sample")
    found = measured.join(chosen, on=CONFIGURATION_AXES).sort("place", "round", "iteration")
    return found.select(*CONFIGURATION_AXES, *_OF_SAMPLE).to_dicts()


def _parts(name: str) -> tuple[str, ...]:
    """Return the columns of data that a column of text may stand for."""
    special = {
        "break_even_new_tokens": _BREAK_EVEN,
        "rounds_ok": _ROUNDS,
        "precision": ("end_to_end_seconds_low", "end_to_end_seconds_high"),
    }
    return special.get(name, (name, f"{name}_low", f"{name}_high"))


def show_results(tables: Path, choice: Choice, format_name: str, report: Path) -> None:
    """Print the results in this format (`table`, `markdown`, `csv` or `json`); below a table, where the report is.

    During a run, or after one that was interrupted, they are those of what is measured so far, which standard error
    says. Raises `UserError` where nothing is measured, or the choice is not understood.
    """
    so_far = read_so_far(tables)
    view = chosen_view(so_far.results, choice)
    if so_far.note and format_name != "table":
        say(so_far.note)
    if format_name == "table":
        console = standard_output()
        print_page(results_page(view, console.width), console)
        if so_far.note:
            print(f"\n{so_far.note}")
        if report.exists():
            print(f"\nreport: {report}")
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    data = result_data(view, only_columns=bool(choice.columns))
    if format_name == "markdown":
        text = markdown(results_page(view))
    elif format_name == "csv":
        text = data.write_csv()
    else:
        told = ("point", "code", "what", "remedy")
        warnings = [{name: getattr(each, name) for name in told} for each in view.results.warnings]
        samples = sample_data(so_far.samples, view.rows)
        text = readable_json({"configurations": data.to_dicts(), "warnings": warnings, "samples": samples}) + "\n"
    sys.stdout.write(text)


def show_point(tables: Path, measurements: Path, text: str) -> None:
    """Print all that is known of the point that `text` means.

    Raises `UserError` where the results have no such point; see `hfbench.core.results.configuration_meant`.
    """
    results = read_so_far(tables).results
    known = {Configuration(**each.axes): each for each in measured_points(results.points)}
    # A stage of a listed configuration has a number for a name: params.yaml tells whose that is.
    stages = load_params(PARAMS).stages() if text.startswith(LISTED_STAGE) else {}
    names = {point: (each.key, each.name, stages.get(point, sweep_stage(point))) for point, each in known.items()}
    chosen = [known[point] for point in configuration_meant(text, names, among="the results")]
    records = load_records(chosen, measurements)
    console = standard_output()
    has_blocks = (console.encoding or "").lower().startswith("utf")
    print_page(point_page(chosen[0], records, results, console.width, BLOCKS if has_blocks else ASCII), console)
