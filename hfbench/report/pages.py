"""A page as data, and what writes it: to a terminal, and as Markdown.

A command decides what stands on its page; how a heading, a list or a table looks is decided here, once. JSON and CSV
are no pages: they have every digit, and are made of the results themselves.
"""

import io
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Self, TypeAlias

import rich.table
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

# What a text is, which decides its colour: `best` gets a mark beside, and `apart` cannot be compared.
Role = Literal["", "strong", "quiet", "best", "good", "bad", "unsure", "apart", "alarm", "quoted", "bar"]
_STYLES: dict[Role, str] = {
    "": "",
    "strong": "bold",
    "quiet": "dim",
    "best": "bold green",
    "good": "green",
    "bad": "red",
    "unsure": "yellow",
    "apart": "magenta",
    "alarm": "bold red",
    "quoted": "italic",
    "bar": "cyan",
}
Kind = Literal["number", "word", "text", "prose", "line"]
BEST_MARK = "*"
_INDENT = 2
_UNBROKEN = "\N{NO-BREAK SPACE}"
_GAP = 2  # blanks between two columns
_WIDEST_WORD = 26  # characters of a value on one line; a longer one folds
_NARROWEST_WORD = 10


@dataclass(frozen=True)
class Cell:
    """A text of a table; `margin` belongs beside it on a wide page, `quiet_at` are places of characters shown dim."""

    text: str
    role: Role = ""
    margin: str = ""
    quiet_at: tuple[int, ...] = ()

    @property
    def marked(self) -> str:
        """The text, with its mark where it is the best."""
        return self.text + BEST_MARK * (self.role == "best")


@dataclass(frozen=True)
class Column:
    """A column of a table: a `number` stands to the right; a `word` folds where it is long.

    `text` and `prose` wrap at their blanks, and of prose no word is cut; a `line` is cut to the width that there is.
    The higher its `rank`, the sooner a narrow page drops it: those of rank 0 never. `name` is that of what it shows.
    """

    label: str
    kind: Kind = "text"
    cells: tuple[Cell, ...] = ()
    unit: str = ""
    rank: int = 0
    name: str = ""

    def filled(self, cells: Iterable[str | Cell]) -> Self:
        """Return the column with these cells."""
        return replace(self, cells=tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells))

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each cell."""
        return tuple(cell.text for cell in self.cells)

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Table:
    """Columns of as many cells; lines part the rows whose numbers in `sections` differ.

    A dense table has heads in several lines, no wider than the cells where their words allow, and is never cut: rather
    do its lines wrap.
    """

    columns: tuple[Column, ...]
    title: str = ""
    sections: tuple[int, ...] = ()
    footer: str = ""
    is_dense: bool = False

    @classmethod
    def of_rows(cls, heads: Sequence[Column], rows: Iterable[Sequence[str | Cell]], **rest: Any) -> Self:
        """Return the table that has these rows below these heads; `rest` are the other fields."""
        columns = list(zip(*rows, strict=True)) or [()] * len(heads)
        return cls(tuple(head.filled(cells) for head, cells in zip(heads, columns, strict=True)), **rest)

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells of each row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


@dataclass(frozen=True)
class Heading:
    """A heading; `level` 1 is the page's, 2 that of a part of it, 3 that of a few blocks."""

    text: str
    role: Role = "strong"
    level: Literal[1, 2, 3] = 3


@dataclass(frozen=True)
class Paragraph:
    """A text that follows what stands before it; `in_markdown` is what Markdown has instead, if that is another."""

    text: str
    role: Role = ""
    indent: int = 0
    is_one_line: bool = False
    in_markdown: str | None = None


@dataclass(frozen=True)
class Bullet:
    """An item of a list, what stands below it, and what to do about it."""

    text: str
    role: Role = ""
    below: tuple["Bullet", ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[Bullet, ...]
    title: str = ""


@dataclass(frozen=True)
class Properties:
    """Names, and what is found of each."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader opens, where the medium can."""

    title: str
    blocks: tuple["Block", ...]


# A list, a table and what is folded are left out where they are empty.
Block: TypeAlias = Heading | Paragraph | Table | Bullets | Properties | Folded
Page: TypeAlias = Sequence[Block]


def number(label: str, unit: str = "", rank: int = 0, name: str = "") -> Column:
    """Return the head of a column of numbers."""
    return Column(label, "number", (), unit, rank, name)


def bullets(texts: Iterable[str], title: str = "", role: Role = "") -> Bullets:
    """Return a list of these texts."""
    return Bullets(tuple(Bullet(text, role) for text in texts), title)


def printable(text: str) -> str:
    """Return the text without control characters, which would act on a terminal and break HTML; lines stay lines."""
    return "".join(character for character in text if character == "\n" or character.isprintable())


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to who prints, where rich would exit with 1, which `--fail-on` gives a meaning."""
        raise BrokenPipeError


def standard_output(width_without_terminal: int = 120) -> Console:
    """Return the console of the standard output, as wide as the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the locale lacks is no reason to fail
    return _Output(highlight=False, width=None if sys.stdout.isatty() else width_without_terminal)


def print_page(page: Page, console: Console) -> None:
    """Print the blocks, with an empty line before each but the first and paragraphs."""
    is_first = True
    for block in page:
        parts = _rendered(block, console.width)
        if parts and not is_first and not isinstance(block, Paragraph):
            console.print()
        for part in parts:
            is_first = False
            console.print(part, crop=False)  # lines that are too long wrap: no number is cut


def _rendered(block: Block, width: int) -> list[RenderableType]:
    """Return what is printed of a block: nothing of a list or table without content, not even its title."""
    content = list(_content(block, width))
    title = "" if isinstance(block, Heading | Paragraph) else block.title
    return [_text(title, "strong"), *content] if title and content else content


def _content(block: Block, width: int) -> Iterator[RenderableType]:
    match block:
        case Heading(text, role, level):
            yield Rule(_text(text, role), align="left") if level == 2 else _text(text, role)
        case Paragraph(text, role, indent):
            line = _text(text, role)
            if block.is_one_line:
                line.truncate(width, overflow="ellipsis")
            yield _indented(line, indent)
        case Bullets():
            yield from _listed(block)
        case Properties(_, rows) if rows:
            named = rich.table.Table.grid(padding=(0, 2, 0, 0))
            named.add_column(style=_STYLES["quiet"], no_wrap=True)
            named.add_column(overflow="fold")
            for name, finding in rows:
                named.add_row(_text(name), _text(finding))
            yield named
        case Table() if block.rows:
            yield _rich_table(block, width)
            if block.footer:
                yield _text(block.footer, "quiet")
        case Folded(_, blocks):
            yield from (part for each in blocks for part in _rendered(each, width))


def _text(text: str, role: Role = "") -> Text:
    return Text(printable(text), style=_STYLES[role])


def _indented(line: Text, indent: int) -> RenderableType:
    """Return a line that keeps its indent where it wraps."""
    return Padding(line, (0, 0, 0, indent), expand=False) if indent else line


def _listed(block: Bullets) -> Iterator[RenderableType]:
    """Render the items: they are set in below a title, unless others are below them."""
    is_nested = any(item.below or item.remedy for item in block.items)
    for item in block.items:
        yield _indented(_text(item.text, item.role), _INDENT if block.title and not is_nested else 0)
        for each in item.below:
            yield _indented(_text(each.text, each.role), _INDENT)
        if item.remedy:
            yield _indented(_text(f"→ {item.remedy}", "quiet"), _INDENT)


_KINDS: dict[str, dict[str, Any]] = {
    "number": {"justify": "right", "no_wrap": True},
    "word": {"overflow": "fold", "max_width": _WIDEST_WORD},
    "text": {"overflow": "fold"},
    "prose": {"overflow": "fold"},
    "line": {"overflow": "ellipsis", "no_wrap": True},
}


def _rich_table(table: Table, width: int) -> rich.table.Table:
    """Return a table with a line below its heads, and one between two sections."""
    shown = rich.table.Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=_STYLES["strong"]
    )
    least = total_width(table.columns) if table.is_dense else _least_width(table.columns)
    if least > width:
        shown.width = least  # rather than to lose digits
    for column in table.columns:
        shown.add_column(_text(_dense_head(column) if table.is_dense else column.title), **_KINDS[column.kind])
    ends = [one != other for one, other in pairwise(table.sections or (0,) * len(table.rows))]
    for cells, is_end in zip(table.rows, [*ends, False], strict=True):
        shown.add_row(*map(_rich_cell, cells), end_section=is_end)
    return shown


def _rich_cell(cell: Cell) -> Text:
    text = _text(cell.marked, cell.role)
    for place in cell.quiet_at:
        text.stylize(_STYLES["quiet"], place, place + 1)
    return text


def _least_width(columns: Sequence[Column]) -> int:
    """Return in how many characters these columns can be shown with their numbers whole and their words folded."""
    widths = (
        max(_body_width(each), cell_len(each.title))
        if each.kind == "number"
        else min(max(_body_width(each), cell_len(each.title)), _NARROWEST_WORD)
        for each in columns
    )
    return sum(widths) + _GAP * max(0, len(columns) - 1)


def total_width(columns: Sequence[Column]) -> int:
    """Return how many characters these columns of a dense table take."""
    widths = (max(_body_width(each), *map(cell_len, _dense_head(each).split("\n"))) for each in columns)
    return sum(widths) + _GAP * max(0, len(columns) - 1)


def _body_width(column: Column) -> int:
    widest = max((cell_len(each.marked) for each in column.cells), default=0)
    return min(widest, _WIDEST_WORD) if column.kind == "word" else widest


def _dense_head(column: Column) -> str:
    """Return label and unit in lines no wider than the column's cells, as far as their words allow."""
    title = replace(column, unit=column.unit.replace(" ", _UNBROKEN)).title
    lines = textwrap.wrap(title, max(1, _body_width(column)), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(_UNBROKEN, " ")


def markdown(page: Page) -> str:
    """Return the page as GitHub shows Markdown."""
    return "\n\n".join(_markdown_blocks(page)) + "\n"


def _markdown_blocks(page: Page) -> Iterator[str]:
    """Write the blocks that are not empty."""
    for block in page:
        match block:
            case Heading(text, _, level):
                yield f"**{markdown_text(text)}**" if level == 3 else f"{'#' * (level + 2)} {markdown_text(text)}"
            case Paragraph(text, role):
                yield _emphasised(text if block.in_markdown is None else block.in_markdown, role)
            case Bullets(items, title) if items:
                lines = "\n".join(line for item in items for line in _markdown_bullet(item))
                yield from [*_title(title), lines]
            case Properties(title, rows) if rows:
                lines = "\n".join(f"- {markdown_text(name)}: {markdown_text(finding)}" for name, finding in rows)
                yield from [*_title(title), lines]
            case Table() if block.rows:
                yield from [*_title(block.title), _markdown_table(block)]
                yield from [markdown_text(block.footer)] if block.footer else []
            case Folded(title, blocks):
                # GitHub reads Markdown within HTML after an empty line.
                below = list(_markdown_blocks(blocks))
                start, end = f"<details><summary>{markdown_text(title)}</summary>", "</details>"
                yield from [start, *below, end] if below else []


def _title(title: str) -> list[str]:
    return [f"**{markdown_text(title)}**"] if title else []


def _markdown_bullet(item: Bullet, indent: str = "") -> Iterator[str]:
    text = markdown_text(item.text)
    yield f"{indent}- *{text}*: {markdown_text(item.remedy)}" if item.remedy else f"{indent}- {text}"
    for each in item.below:
        yield from _markdown_bullet(each, f"{indent}  ")


def _markdown_table(table: Table) -> str:
    """Return a table of pipes: numbers to the right, the best cells in bold."""
    lines = [
        [markdown_text(column.title) for column in table.columns],
        ["--:" if column.kind == "number" else ":--" for column in table.columns],
        *([_emphasised(cell.text, cell.role) for cell in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_EMPHASIS: dict[Role, str] = {"strong": "**", "best": "**", "alarm": "**", "quoted": "*"}


def _emphasised(text: str, role: Role) -> str:
    around = _EMPHASIS.get(role, "") if text else ""
    return f"{around}{markdown_text(text)}{around}"


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is, on one line of a table."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for character in "|*_`[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("\n", "<br>")
