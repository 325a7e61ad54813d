"""The results on a terminal."""

import io
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hfbench.report.frames import WarningGroup, failure_rows, read_results, warning_groups
from hfbench.report.overview import View, whole_view
from hfbench.report.words import BEST_MARK, TextColumn, captions, failure_columns, point_column, printable

INDENT = 2


def print_heading(text: str, console: Console, style: str = "bold") -> None:
    """Print a heading after an empty line."""
    console.print()
    console.print(Text(text, style=style))


def print_indented(line: str, console: Console, style: str = "", indent: int = INDENT) -> None:
    """Print a line that keeps its indent where it wraps."""
    console.print(Padding(Text(printable(line), style=style), (0, 0, 0, indent), expand=False))


def print_rows(heading: str, rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print rows of name and finding below a heading; nothing where there are none."""
    if not rows:
        return
    print_heading(heading, console)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, finding in rows:
        table.add_row(name, Text(printable(finding)))
    console.print(table)


def align_right(table: Table, *headers: str) -> None:
    """Align the columns with these headers to the right, and never break their numbers."""
    for column in table.columns:
        if str(column.header) in headers:
            column.justify, column.no_wrap = "right", True


_MOST_FINDINGS = 3  # of one kind; the report has all
_INDENT = 2


def print_warnings(console: Console, groups: Sequence[WarningGroup]) -> None:
    """Print each kind of warning with the first of its findings and what to do; nothing where there is none."""
    if not groups:
        return
    console.print()
    console.print(Text("Warnings", style="bold"))
    for group in groups:
        console.print(Text(group.title, style="yellow"))
        for whose, what in group.findings[:_MOST_FINDINGS]:
            _print_indented(console, f"{whose}: {what}" if whose else what)
        left_out = len(group.findings) - _MOST_FINDINGS
        if left_out > 0:
            _print_indented(console, f"and {left_out} more, in the report")
        _print_indented(console, f"→ {group.remedy}", style="dim")


def _print_indented(console: Console, line: str, style: str = "") -> None:
    console.print(Padding(Text(printable(line), style=style), (0, 0, 0, _INDENT), expand=False))


def markdown_results(view: View) -> str:
    """Return captions, table, notes, warnings and what is not ok; the best are in bold."""
    points = view.results.points
    text = captions(points, view.rows)
    parts = [
        f"**{markdown_text(text.title)}**",
        *(markdown_text(line) for line in (text.counts, text.constants) if line),
    ]
    if view.rows.height:
        parts.append(markdown_table(view.columns))
    parts += [markdown_text(note.removeprefix("* ").strip()) for note in _notes(view, text.notes)]
    groups = warning_groups(view.results.warnings, points)
    if groups:
        parts.append("**Warnings**")
    for group in groups:
        findings = [f"  - {markdown_text(f'{whose}: {what}' if whose else what)}" for whose, what in group.findings]
        parts.append("\n".join([f"- *{group.title}*: {markdown_text(group.remedy)}", *findings]))
    failures = failure_rows(points)
    if failures.height:
        parts += ["**Not ok**", markdown_table(failure_columns(failures, points))]
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: Sequence[TextColumn]) -> str:
    """Return a table of these columns: numbers to the right, the best cells in bold."""
    headers = [f"{column.label} ({column.unit})" if column.unit else column.label for column in columns]
    lines = [headers, ["--:" if column.is_number else ":--" for column in columns]]
    for index in range(len(columns[0].texts)):
        cells = (markdown_text(column.texts[index]) for column in columns)
        lines.append(
            [f"**{cell}**" if column.best[index] else cell for cell, column in zip(cells, columns, strict=True)]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line of a table."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for character in "|*_`[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("\n", "<br>")


def _notes(view: View, notes: Sequence[str]) -> list[str]:
    bold = "In bold: the best median among configurations with the same work; no test of significance."
    shown = [note.replace("; * is the best of these.", "; bold is the best of these.") for note in view.notes]
    return [*shown, *(bold if note.startswith("*") else note for note in notes)]


_WIDTH_WITHOUT_TERMINAL = 120
_WIDEST_TEXT = 26  # characters of an axis value on one line; a longer one folds
_NARROWEST_POINT = 26
_GAP = 2  # blanks between two columns
_KEPT_RANK = 2  # columns up to this rank are never dropped


def print_results(tables: Path, console: Console | None = None) -> None:
    """Print the results, the warnings and the points that are not ok, from the tables in this folder.

    Raises `UserError` where the tables are missing.
    """
    print_view(whole_view(read_results(tables)), console or standard_output())


def print_view(view: View, console: Console) -> None:
    """Print the view with captions, warnings and what is not ok; of columns that do not fit, the lesser go first."""
    points = view.results.points
    text = captions(points, view.rows)
    console.print(Text(printable(text.title), style="bold"))
    for line in (text.counts, text.constants):
        if line:
            console.print(Text(printable(line), style="dim"))
    notes = [*view.notes, *text.notes]
    if view.rows.height:
        columns, dropped = fitting_columns(list(view.columns), point_column(view.rows, points), console.width)
        console.print()
        _as_wide_as(_total(columns), console).print(_results(columns, view.sections))
        if dropped:
            where = "They are in the report, and `hfbench show --columns` shows them."
            notes.append(f"Not shown at this width: {', '.join(dropped)}. {where}")
    for note in notes:
        console.print(Text(printable(note), style="dim"))
    print_warnings(console, warning_groups(view.results.warnings, points))
    failures = failure_rows(points)
    if failures.height:
        console.print()
        console.print(Text("Not ok", style="bold"))
        console.print(_failures(failure_columns(failures, points)))


def standard_output() -> Console:
    """Return the console of the standard output, as wide as the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the locale lacks is no reason to fail
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)


def plain_table(*headers: str) -> Table:
    """Return a table with a line below its head only."""
    return Table(
        *headers, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )


def fitting_columns(columns: list[TextColumn], point: TextColumn, width: int) -> tuple[list[TextColumn], list[str]]:
    """Return the columns that fit into `width` characters without cutting a number, and the labels of those dropped.

    The lesser columns go first; where that is not enough, `point` stands for all axes and folds.
    """
    axes = [column for column in columns if column.rank == 0]
    numbers = [column for column in columns if column.rank > 0]
    kept = _fitting(numbers, width - _GAP - _total(axes))
    shown = [column for column in columns if column in axes or column in kept]
    if axes and _total(shown) > width:
        kept = _fitting(numbers, width - _GAP - _NARROWEST_POINT)
        shown = [point, *kept]
    return shown, [column.label for column in numbers if column not in kept]


def _as_wide_as(width: int, console: Console) -> Console:
    """Return a console on which nothing of this width is cut: lines that wrap, where a person chose many columns."""
    return console if width <= console.width else Console(file=console.file, width=width, highlight=False)


def _fitting(columns: list[TextColumn], width: int) -> list[TextColumn]:
    while _total(columns) > width and (least := max((column.rank for column in columns), default=0)) > _KEPT_RANK:
        columns = [column for column in columns if column.rank != least]
    return columns


def _total(columns: list[TextColumn]) -> int:
    return sum(_width(column) for column in columns) + _GAP * max(0, len(columns) - 1)


def _width(column: TextColumn) -> int:
    return max(_body_width(column), *(cell_len(line) for line in _header(column).split("\n")))


def _body_width(column: TextColumn) -> int:
    widest = max(map(cell_len, column.texts), default=0) + any(column.best)
    return widest if column.is_number else min(widest, _WIDEST_TEXT)


def _header(column: TextColumn) -> str:
    """Return label and unit in lines no wider than the column's cells, as far as their words allow."""
    words = [*column.label.split(" "), *([f"({column.unit})"] if column.unit else [])]
    lines = words[:1]
    for word in words[1:]:
        if cell_len(f"{lines[-1]} {word}") <= _body_width(column):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def _results(columns: list[TextColumn], sections: Sequence[int]) -> Table:
    table = plain_table()
    for column in columns:
        if column.is_number:
            table.add_column(Text(_header(column)), justify="right", no_wrap=True)
        else:
            table.add_column(Text(_header(column)), overflow="fold", max_width=_WIDEST_TEXT)
    ends = [one != other for one, other in pairwise(sections)] + [False]
    for index, is_end in enumerate(ends):
        table.add_row(*(_cell(column, index) for column in columns), end_section=is_end)
    return table


def _cell(column: TextColumn, index: int) -> Text:
    if column.best[index]:
        return Text(column.texts[index] + BEST_MARK, style="bold green")
    # A blank where other cells have the mark keeps the digits in line.
    return Text(column.texts[index] + " " * any(column.best))


def _failures(columns: list[TextColumn]) -> Table:
    table = plain_table()
    for column in columns:
        widest = None if column.is_prose else _WIDEST_TEXT
        table.add_column(Text(column.label), overflow="fold", max_width=widest)
    for index in range(len(columns[0].texts)):
        table.add_row(*(_cell(column, index) for column in columns))
    return table
