"""Parts of a page on a terminal: headings, indented lines, rows of name and finding."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hfbench.reporting.cells import printable

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
