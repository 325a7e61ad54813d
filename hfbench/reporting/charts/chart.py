"""A chart: what it says, what it is drawn from, and how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import altair as alt
import polars as pl
from polars import selectors

from hfbench.reporting.cells import TextColumn
from hfbench.reporting.charts.theme import PAPER, DashName, way_colour, way_dashes, way_scale
from hfbench.reporting.report_data import shown_names

_DIGITS = 5  # significant digits of what is drawn: a hundredth of a pixel
ROW_PIXELS = 20


@dataclass(frozen=True)
class Key:
    """One entry of a chart's key: a name, and the CSS colour and shape of its marks."""

    label: str
    colour: str
    shape: Literal["square", "circle", "ring", "diamond", "bar"] | DashName = "square"


@dataclass(frozen=True)
class Chart:
    """One chart of the report.

    `title` says what it shows, `alternative` describes the picture to who cannot see it, `note` says how to read it.
    `spec` is Vega-Lite for one panel; `values` has a row for each thing drawn, and its column `panel_field` parts them
    into `panels`, in this order. `table` holds the numbers as text.
    """

    name: str
    title: str
    alternative: str
    note: str
    spec: dict[str, Any]
    values: pl.DataFrame
    panel_field: str
    panels: tuple[str, ...]
    table: Sequence[TextColumn]
    keys: Sequence[Key] = ()
    own_axes: Sequence[str] = ()  # the channels, x or y, whose scale each panel has for itself

    @property
    def names_ways(self) -> bool:
        """Whether the vertical axis has the names of ways, which need room."""
        return "y" not in self.own_axes


def panel_spec(chart: alt.LayerChart | alt.FacetChart) -> dict[str, Any]:
    """Return the Vega-Lite specification, without what Altair adds for pages of its own.

    Nothing in it names data: it draws its panel's part, which a name would replace by the data of all panels.
    """
    return _without_data(chart.to_dict())  # which checks it


def _without_data(content: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in content.items() if name not in ("$schema", "config", "data", "datasets")}
    return kept | ({"layer": [_without_data(each) for each in kept["layer"]]} if "layer" in kept else {})


def within(value: pl.Expr, estimate: pl.Expr) -> pl.Expr:
    """Return where the end of an interval is drawn: between half the lowest and twice the highest of the estimates.

    Two rounds may bear an interval over many orders of magnitude, on whose axis nothing else could be seen.
    """
    return pl.when(value.is_not_null()).then(value.clip(estimate.min() / 2, estimate.max() * 2))


def one_mark() -> alt.Chart:
    """Return what a mark that stands once in each panel is drawn from, such as a line at a fixed place."""
    return alt.Chart().transform_aggregate(rows="count()")


def way_axis(ways: Sequence[str], used: pl.Series) -> alt.Y:
    """Return the vertical axis with a row for each way that is used."""
    return alt.Y("way:N", scale=alt.Scale(domain=shown_names(ways, used)), title=None)


def told_fill(condition: str, ways: Sequence[str]) -> alt.Fill:
    """Return a fill with the way's colour where this Vega expression holds, and the page's elsewhere: a ring."""
    colour = alt.Fill("way:N", scale=way_scale(ways), legend=None)
    return cast("alt.Fill", alt.condition(condition, colour, alt.value(PAPER)))


def line_keys(ways: Sequence[str], used: pl.Series) -> list[Key]:
    """Return a key for the line of each way that is used."""
    places = [ways.index(way) for way in shown_names(ways, used)]
    return [Key(ways[place], way_colour(place), way_dashes(place)) for place in places]


def compact(values: pl.DataFrame) -> pl.DataFrame:
    """Return the values with as many digits as can be seen."""
    return values.with_columns(selectors.float().round_sig_figs(_DIGITS))


def text_column(label: str, texts: Sequence[str], unit: str = "", *, is_number: bool = True) -> TextColumn:
    """Return a column for the table below a chart."""
    return TextColumn(label, unit, tuple(texts), (False,) * len(texts), 0, is_number)
