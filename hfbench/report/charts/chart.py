"""The charts as the page holds them: their data and specifications as JSON, and the scripts that draw them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import altair as alt
import polars as pl
import vl_convert
from polars import selectors

from hfbench.report.frames import shown_names
from hfbench.report.words import TextColumn

T = TypeVar("T")
DashName = Literal["line", "dashes", "dots", "dashes and dots"]
# Told apart by the three kinds of colour blindness, and 3:1 against the page (WCAG 2.2, criterion 1.4.11); a test
# computes both. The second set is for a dark page. With more ways than colours, they come again with another shape.
WAY_COLOURS = ("#1d7fd6", "#d1366b", "#0a4f38", "#b08a00", "#5b1a80", "#8a8f98")
WAY_COLOURS_DARK = ("#5fb4ff", "#ef4a5e", "#4df0b8", "#f0dc50", "#8e44e8", "#b9bfc8")
# The phases of a process's life, in turn lighter and darker, so that neighbours differ without their hue.
PHASE_COLOURS = ("#c9ced6", "#5b7fa6", "#dbe3ea", "#1f3f66", "#d9c9a3", "#a8552b", "#f0b35a", "#7a6a8c")
PHASE_COLOURS_DARK = ("#565e68", "#7fa7d1", "#3a4653", "#c3daf2", "#6b5f45", "#f0935c", "#8f5a1e", "#b9a8cc")
WAY_SHAPES = ("circle", "square", "diamond", "triangle-up")
_DASHES: dict[DashName, list[int]] = {"line": [1, 0], "dashes": [6, 3], "dots": [2, 2], "dashes and dots": [8, 3, 2, 3]}
INK, FAINT, LINE, PAPER = "var(--ink)", "var(--faint)", "var(--line)", "var(--paper)"


def way_colour(index: int) -> str:
    """Return the CSS colour of the way at this place in the sweep."""
    return f"var(--way-{index % len(WAY_COLOURS)})"


def phase_colour(index: int) -> str:
    """Return the CSS colour of this phase of a process's life."""
    return f"var(--phase-{index})"


def way_dashes(index: int) -> DashName:
    """Return what the line of the way at this place is made of, which tells apart those that share a colour."""
    return _again(tuple(_DASHES), index)


def way_scale(ways: Sequence[str]) -> alt.Scale:
    """Return the scale from the names of all ways of the sweep to colours: the same in every chart."""
    return alt.Scale(domain=list(ways), range=[way_colour(index) for index in range(len(ways))])


def shape_scale(ways: Sequence[str]) -> alt.Scale:
    """Return the scale to shapes, which tell apart the ways that share a colour."""
    return alt.Scale(domain=list(ways), range=[_again(WAY_SHAPES, index) for index in range(len(ways))])


def dash_scale(ways: Sequence[str]) -> alt.Scale:
    """Return the scale to dashes of lines, likewise."""
    return alt.Scale(domain=list(ways), range=[_DASHES[way_dashes(index)] for index in range(len(ways))])


def palette(colours: Sequence[str], name: str) -> str:
    """Return the declarations of CSS variables for these colours."""
    return " ".join(f"--{name}-{index}: {colour};" for index, colour in enumerate(colours))


def config() -> dict[str, Any]:
    """Return the Vega-Lite configuration: text and lines in the page's colours, which follow light, dark and paper."""
    font = "system-ui, sans-serif"
    text = {"labelColor": FAINT, "titleColor": INK, "labelFont": font, "titleFont": font, "titleFontWeight": "normal"}
    return {
        "aria": False,  # the page describes each chart; thousands of marks with a label each would be read one by one
        "background": "transparent",
        "font": font,
        "view": {"stroke": LINE},
        "axis": {
            **text,
            "gridColor": LINE,
            "gridOpacity": 0.6,
            "domainColor": LINE,
            "tickColor": LINE,
            "titlePadding": 6,
        },
        "axisY": {"titleAlign": "left", "titleAnchor": "start"},
        "header": {**text, "labelFontSize": 12, "labelFontWeight": "bold", "labelColor": INK, "labelAnchor": "start"},
        "text": {"color": INK, "font": font},
        "rule": {"color": FAINT},
    }


def _again(values: Sequence[T], index: int) -> T:
    return values[index // len(WAY_COLOURS) % len(values)]


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


# Of those that vl-convert brings, the one that Altair 6 writes for.
VEGA_LITE = "6.4"
_LICENCE = (
    "/* Vega, Vega-Lite and Vega-Embed. Copyright (c) University of Washington Interactive Data Lab and contributors. "
    "BSD 3-Clause License: see the projects vega/vega, vega/vega-lite and vega/vega-embed. */\n"
)


def charts_json(charts: Sequence[Chart]) -> str:
    """Return what `draw.js` reads, as JSON that is safe within a script element whatever the names in it hold."""
    content = {"config": config(), "charts": [_chart(chart) for chart in charts]}
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Only strings can hold these; escaped, nothing in them can end the script element or begin a comment.
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def drawing_scripts() -> list[str]:
    """Return the scripts that draw, in order; none loads anything."""
    return [_LICENCE + _vega(), (Path(__file__).parent / "draw.js").read_text(encoding="utf-8")]


@cache
def _vega() -> str:
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return bundle


def _chart(chart: Chart) -> dict[str, Any]:
    values = chart.values
    letters = max(map(len, values["way"])) if chart.names_ways else 0
    return {
        "name": chart.name,
        "spec": chart.spec,
        "panelField": chart.panel_field,
        "panels": chart.panels,
        "ownAxes": chart.own_axes,
        "labelLetters": letters,
        "table": {"columns": values.columns, "rows": values.rows()},
    }
