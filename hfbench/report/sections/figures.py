"""A chart as a figure of the page: its title, its key, the place where it is drawn, and its numbers."""

from xml.etree import ElementTree as ET

from hfbench.report.charts.chart import Chart, Key
from hfbench.report.html import element, folded, text_table

MOST_PANELS = 12  # that are drawn at once; the others wait in a part that opens
_SHAPES = {
    "square": "M1 2h12v10H1z",
    "circle": "M7 2a5 5 0 1 0 .01 0z",
    "ring": "M7 2.5a4.5 4.5 0 1 0 .01 0z",
    "diamond": "M7 1l5 6l-5 6l-5-6z",
    "line": "M0 6h14v2.4H0z",
    "dashes": "M0 6h6v2.4H0zM8 6h6v2.4H8z",
    "dots": "M0 6h3v2.4H0zM5.5 6h3v2.4h-3zM11 6h3v2.4h-3z",
    "dashes and dots": "M0 6h7v2.4H0zM10.5 6H14v2.4h-3.5z",
    "bar": "M6 1h2.4v12H6z",
}


def figure(chart: Chart) -> ET.Element:
    """Return the figure; `draw.js` draws into the places that it names."""
    parts = [element("figcaption", element("h3", chart.title))]
    if chart.keys:
        parts.append(element("ul", *map(_key, chart.keys), class_="key", aria_label="Key"))
    parts.append(_place(chart, 0, MOST_PANELS))
    if len(chart.panels) > MOST_PANELS:
        rest = len(chart.panels) - MOST_PANELS
        parts.append(folded(f"The other {rest} panels", _place(chart, MOST_PANELS, len(chart.panels)), class_="more"))
    numbers = folded("The numbers of this chart", text_table(chart.table), class_="numbers")
    parts += [element("p", chart.note, class_="faint note"), numbers]
    return element("figure", *parts, id=f"chart-{chart.name}")


def _place(chart: Chart, start: int, end: int) -> ET.Element:
    """Return where these panels are drawn, within the text alternative, which Vega would take off its own element."""
    shown = {"data_from": str(start), "data_to": str(min(end, len(chart.panels)))}
    place = element("div", class_="chart", data_chart=chart.name, **shown)
    return element("div", place, role="img", aria_label=f"{chart.alternative} {chart.title}.")


def _key(key: Key) -> ET.Element:
    outline = (
        {"fill": "none", "stroke": key.colour, "stroke-width": "2"} if key.shape == "ring" else {"fill": key.colour}
    )
    path = ET.Element("path", {"d": _SHAPES[key.shape], **outline})
    mark = ET.Element("svg", {"width": "14", "height": "14", "viewBox": "0 0 14 14", "aria-hidden": "true"})
    mark.append(path)
    return element("li", mark, key.label)
