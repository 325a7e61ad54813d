"""A chart of the report as data, and what all of them share: scales that tell the ways apart, marks, and tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, TypeVar, cast

import altair as alt
import polars as pl
from polars import selectors

from hfbench.report.frames import shown_names
from hfbench.report.pages import Cell, Column, number
from hfbench.report.words import significant

T = TypeVar("T")
DashName = Literal["line", "dashes", "dots", "dashes and dots"]
WAY_COLOURS = 6  # that style.css has; with more ways than these, they come again with another shape
WAY_SHAPES = ("circle", "square", "diamond", "triangle-up")
_DASHES: dict[DashName, list[int]] = {"line": [1, 0], "dashes": [6, 3], "dots": [2, 2], "dashes and dots": [8, 3, 2, 3]}
INK, FAINT, PAPER = "var(--ink)", "var(--faint)", "var(--paper)"
ROW_PIXELS = 20
_DIGITS = 5  # significant digits of what is drawn: a hundredth of a pixel


@dataclass(frozen=True)
class Key:
    """One entry of a chart's key: a name, and the CSS colour and shape of its marks."""

    label: str
    colour: str
    shape: Literal["square", "circle", "ring", "diamond", "bar"] | DashName = "square"


@dataclass(frozen=True)
class Chart:
    """One chart; report.html says beside it how it is read, with the values of `words` where they depend on the data.

    `title` says what it shows. `spec` is Vega-Lite for one panel; `values` has a row for each thing drawn, and its
    column `panel_field` parts them into `panels`, in this order. `table` holds the numbers as text.
    """

    title: str
    spec: dict[str, Any]
    values: pl.DataFrame
    panels: Sequence[str]
    table: Sequence[Column]
    keys: Sequence[Key] = ()
    panel_field: str = "workload"
    own_axes: Sequence[str] = ()  # the channels, x or y, whose scale each panel has for itself
    words: dict[str, Any] = field(default_factory=dict)

    def for_drawing(self) -> dict[str, Any]:
        """Return what draw.js reads, as JSON has it, with as many digits as can be seen."""
        values = self.values.with_columns(selectors.float().round_sig_figs(_DIGITS))
        names_ways = "y" not in self.own_axes  # on the vertical axis, where they need room
        return {
            "spec": self.spec,
            "panelField": self.panel_field,
            "panels": self.panels,
            "ownAxes": self.own_axes,
            "labelLetters": max(map(len, values["way"])) if names_ways else 0,
            "table": {"columns": values.columns, "rows": values.rows()},
        }


def panel(*layers: alt.Chart, height: float | alt.Step) -> dict[str, Any]:
    """Return the Vega-Lite specification of these layers, without what Altair adds for pages of its own.

    Nothing in it names data: it draws its panel's part, which a name would replace by the data of all panels.
    """
    return _without_data(alt.layer(*layers).properties(height=height).to_dict())  # which checks it


def _without_data(content: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in content.items() if name not in ("$schema", "config", "data", "datasets")}
    return kept | ({"layer": [_without_data(each) for each in kept["layer"]]} if "layer" in kept else {})


def way_colour(index: int) -> str:
    """Return the CSS colour of the way at this place in the sweep."""
    return f"var(--way-{index % WAY_COLOURS})"


def color_by_way(ways: Sequence[str]) -> alt.Color:
    """Return the colour by the names of all ways of the sweep: the same in every chart."""
    return alt.Color("way:N", scale=_colours(ways), legend=None)


def shape_by_way(ways: Sequence[str]) -> alt.Shape:
    """Return the shape of a way's marks, which tells apart the ways that share a colour."""
    shapes = [_again(WAY_SHAPES, index) for index in range(len(ways))]
    return alt.Shape("way:N", scale=alt.Scale(domain=list(ways), range=shapes), legend=None)


def dash_by_way(ways: Sequence[str]) -> alt.StrokeDash:
    """Return the dashes of a way's line, likewise."""
    dashes = [_DASHES[_dashes(index)] for index in range(len(ways))]
    return alt.StrokeDash("way:N", scale=alt.Scale(domain=list(ways), range=dashes), legend=None)


def told_fill(condition: str, ways: Sequence[str]) -> alt.Fill:
    """Return a fill with the way's colour where this Vega expression holds, and the page's elsewhere: a ring."""
    colour = alt.Fill("way:N", scale=_colours(ways), legend=None)
    return cast("alt.Fill", alt.condition(condition, colour, alt.value(PAPER)))


def row_by_way(ways: Sequence[str], used: pl.Series) -> alt.Y:
    """Return the vertical axis with a row for each way that is used."""
    return alt.Y("way:N", scale=alt.Scale(domain=shown_names(ways, used)), title=None)


def line_keys(ways: Sequence[str], used: pl.Series) -> list[Key]:
    """Return a key for the line of each way that is used."""
    places = [ways.index(way) for way in shown_names(ways, used)]
    return [Key(ways[place], way_colour(place), _dashes(place)) for place in places]


def _colours(ways: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(ways), range=[way_colour(index) for index in range(len(ways))])


def _dashes(index: int) -> DashName:
    return _again(tuple(_DASHES), index)


def _again(values: Sequence[T], index: int) -> T:
    return values[index // WAY_COLOURS % len(values)]


def tooltips(*lines: tuple[str, str] | tuple[str, str, str]) -> list[alt.Tooltip]:
    """Return what is told of a mark: its way, and for each line a field, its title, and the format of a number."""
    told = [alt.Tooltip(field, title=title, format=form[0] if form else alt.Undefined) for field, title, *form in lines]
    return [alt.Tooltip("way:N", title="way"), *told]


def one_mark() -> alt.Chart:
    """Return what a mark that stands once in each panel is drawn from, such as a line at a fixed place."""
    return alt.Chart().transform_aggregate(rows="count()")


def within(value: pl.Expr, estimate: pl.Expr) -> pl.Expr:
    """Return where the end of an interval is drawn: between half the lowest and twice the highest of the estimates.

    Two rounds may bear an interval over many orders of magnitude, on whose axis nothing else could be seen.
    """
    return pl.when(value.is_not_null()).then(value.clip(estimate.min() / 2, estimate.max() * 2))


def word_column(label: str, texts: Iterable[str]) -> Column:
    """Return a column of words for the table below a chart."""
    return Column(label, "word").filled(texts)


def number_column(
    label: str, values: Iterable[float | str | None], unit: str = "", margins: Iterable[str] = ()
) -> Column:
    """Return a column of numbers: counts as they are, what was measured with three significant digits, or text."""
    texts = (str(each) if isinstance(each, int | str) else significant(each) for each in values)
    cells = (Cell(text, margin=each) for text, each in zip_longest(texts, margins, fillvalue=""))
    return number(label, unit).filled(cells)
