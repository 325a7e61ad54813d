"""A chart of the report as data, and what all of them share: scales that tell the ways apart, marks, and tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

import altair as alt
import polars as pl
from polars import selectors

from hfbench.report.frames import shown_names
from hfbench.report.pages import Column
from hfbench.statistics.bootstrap import Interval

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
    """One entry of a chart's key: a name, and the shape and CSS colour of its marks."""

    label: str
    shape: Literal["square", "circle", "ring", "diamond", "bar"] | DashName = "square"
    colour: str = FAINT


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


@dataclass(frozen=True)
class Ways:
    """The names of all ways of the sweep, which colour, shape and dashes tell apart: the same in every chart.

    Ways that share a colour differ in shape and dashes. `field` names the column: in a report on kinds of machines
    these are told apart as ways are elsewhere.
    """

    names: Sequence[str]
    field: str = "way"

    def colour(self) -> alt.Color:
        """Return the colour by way."""
        return alt.Color(f"{self.field}:N", scale=self._scale(self._colours), legend=None)

    def fill_where(self, condition: str) -> alt.Fill:
        """Return a fill with the way's colour where this Vega expression holds, and the page's elsewhere: a ring."""
        colour = alt.Fill(f"{self.field}:N", scale=self._scale(self._colours), legend=None)
        return cast("alt.Fill", alt.condition(condition, colour, alt.value(PAPER)))

    def shape(self) -> alt.Shape:
        """Return the shape of a way's marks."""
        return alt.Shape(f"{self.field}:N", scale=self._scale(self._marks(WAY_SHAPES)), legend=None)

    def dashes(self) -> alt.StrokeDash:
        """Return the dashes of a way's line."""
        return alt.StrokeDash(f"{self.field}:N", scale=self._scale(self._marks(list(_DASHES.values()))), legend=None)

    def rows(self, used: pl.Series) -> alt.Y:
        """Return the vertical axis with a row for each way that is used."""
        return alt.Y(f"{self.field}:N", scale=alt.Scale(domain=shown_names(self.names, used)), title=None)

    def keys(self, used: pl.Series, *, are_lines: bool = True) -> list[Key]:
        """Return a key for each way that is used: for its line, or for a square of its colour."""
        present = set(used)
        known = zip(self.names, self._marks(list(_DASHES)), self._colours, strict=True)
        return [Key(way, dash if are_lines else "square", colour) for way, dash, colour in known if way in present]

    def _scale(self, values: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=list(self.names), range=list(values))

    def _marks(self, kinds: Sequence[T]) -> list[T]:
        """Return a kind of mark for each way, the next kind whenever the colours are used up."""
        return [kinds[place // WAY_COLOURS % len(kinds)] for place in range(len(self.names))]

    @property
    def _colours(self) -> list[str]:
        return [f"var(--way-{place % WAY_COLOURS})" for place in range(len(self.names))]


def tooltips(*lines: tuple[str, str] | tuple[str, str, str]) -> list[alt.Tooltip]:
    """Return what is told of a mark: its way, and for each line a field, its title, and the format of a number."""
    told = [alt.Tooltip(field, title=title, format=form[0] if form else alt.Undefined) for field, title, *form in lines]
    return [alt.Tooltip("way:N", title="way"), *told]


def one_mark() -> alt.Chart:
    """Return what a mark that stands once in each panel is drawn from, such as a line at a fixed place."""
    return alt.Chart().transform_aggregate(rows="count()")


def largest_change(changes: Sequence[tuple[T, Interval]]) -> tuple[T, Interval] | None:
    """Return the ratio farthest from 1 of those whose interval leaves out 1, with what it is of; None without one."""
    told = [change for change in changes if not change[1].low <= 1 <= change[1].high]
    return max(told, key=lambda change: max(change[1].estimate, 1 / change[1].estimate), default=None)


def within(value: pl.Expr, estimate: pl.Expr) -> pl.Expr:
    """Return where the end of an interval is drawn: between half the lowest and twice the highest of the estimates.

    Two rounds may bear an interval over many orders of magnitude, on whose axis nothing else could be seen.
    """
    return pl.when(value.is_not_null()).then(value.clip(estimate.min() / 2, estimate.max() * 2))
