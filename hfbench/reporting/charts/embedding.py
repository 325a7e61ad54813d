"""The charts as the page holds them: their data and specifications as JSON, and the scripts that draw them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert

from hfbench.reporting.charts.chart import Chart
from hfbench.reporting.charts.theme import config

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
