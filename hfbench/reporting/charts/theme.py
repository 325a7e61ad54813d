"""The looks that all charts share: colours that the page's style sheet sets, shapes, sizes."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import altair as alt

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
