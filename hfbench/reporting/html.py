"""Elements of an HTML page; the standard library's tree does the escaping and the closing."""

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from hfbench.reporting.cells import BEST_MARK, TextColumn, printable

Node = ET.Element | str


def element(tag: str, *children: Node, **attributes: str) -> ET.Element:
    """Return an element with these children in order; text is escaped when the page is written.

    `class_` stands for the attribute `class`.
    """
    node = ET.Element(tag, {name.rstrip("_"): printable(value) for name, value in attributes.items()})
    for child in children:
        if isinstance(child, ET.Element):
            node.append(child)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + printable(child)
        else:
            node.text = (node.text or "") + printable(child)
    return node


def document(title: str, style: str, body: Iterable[ET.Element]) -> str:
    """Return a whole page that needs no other file. `style` is CSS and goes in as it is."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    page = element("html", head, element("body", element("main", *body)), lang="en")
    return "<!DOCTYPE html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"


def text_table(columns: Sequence[TextColumn], section_ends: Sequence[bool] = ()) -> ET.Element:
    """Return a table of these columns that scrolls sideways where the page is narrower; lines part its sections."""
    header = element("tr", *(_header(column) for column in columns))
    rows = []
    for index in range(len(columns[0].texts)):
        ends = index < len(section_ends) and section_ends[index]
        attributes = {"class_": "end"} if ends else {}
        rows.append(element("tr", *(_cell(column, index) for column in columns), **attributes))
    table = element("table", element("thead", header), element("tbody", *rows))
    return element("div", table, class_="scroll")


def key_value_table(rows: Iterable[tuple[str, str]]) -> ET.Element:
    """Return a table of two columns, whose first cells are headers."""
    lines = [element("tr", element("th", key, scope="row"), element("td", value, class_="wrap")) for key, value in rows]
    return element("div", element("table", element("tbody", *lines)), class_="scroll")


def _header(column: TextColumn) -> ET.Element:
    unit = [element("br"), element("span", f"({column.unit})", class_="unit")] if column.unit else []
    return element("th", column.label, *unit, scope="col", class_="number" if column.is_number else "text")


def _cell(column: TextColumn, index: int) -> ET.Element:
    text: Node = column.texts[index]
    if column.best[index]:
        text = element("strong", f"{column.texts[index]}{BEST_MARK}", class_="best")
    kind = "number" if column.is_number else "wrap" if column.is_prose else "text"
    margin = column.margins[index] if column.margins else ""
    return element(
        "td", text, *([element("br"), element("span", margin, class_="unit")] if margin else []), class_=kind
    )
