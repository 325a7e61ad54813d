"""Elements of an HTML page; the standard library's tree does the escaping and the closing."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from hfbench.report.words import BEST_MARK, TextColumn, printable

Node = ET.Element | str


def element(tag: str, *children: Node, **attributes: str) -> ET.Element:
    """Return an element with these children in order; text is escaped when the page is written.

    `class_` stands for the attribute `class`, and `data_from` for `data-from`.
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    node = ET.Element(tag, {names[name]: printable(value) for name, value in attributes.items()})
    for child in children:
        if isinstance(child, ET.Element):
            node.append(child)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + printable(child)
        else:
            node.text = (node.text or "") + printable(child)
    return node


def script(text: str, **attributes: str) -> ET.Element:
    """Return a script element, whose text is written as it is. Raises `ValueError` where the text would end it."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script must not hold what ends a script element or begins a comment")
    node = element("script", **attributes)
    node.text = text
    return node


def document(title: str, style: str, body: Iterable[ET.Element], scripts: Sequence[str] = ()) -> str:
    """Return a whole page that needs no other file; `style` is CSS, `scripts` are JavaScript, both go in as they are.

    The page's policy lets no other script run and nothing be loaded, whatever stands in it.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    content = element("body", element("main", *body), *map(script, scripts))
    page = element("html", head, content, lang="en")
    return "<!DOCTYPE html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"


def text_table(
    columns: Sequence[TextColumn], section_ends: Sequence[bool] = (), *, is_sortable: bool = False
) -> ET.Element:
    """Return a table of these columns that scrolls sideways where the page is narrower; lines part its sections."""
    header = element("tr", *(_header(column) for column in columns))
    rows = []
    for index in range(len(columns[0].texts)):
        ends = index < len(section_ends) and section_ends[index]
        attributes = {"class_": "end"} if ends else {}
        rows.append(element("tr", *(_cell(column, index) for column in columns), **attributes))
    kind = {"class_": "sortable"} if is_sortable else {}
    table = element("table", element("thead", header), element("tbody", *rows), **kind)
    return element("div", table, class_="scroll", tabindex="0")


def key_value_table(rows: Iterable[tuple[str, str]]) -> ET.Element:
    """Return a table of two columns, whose first cells are headers."""
    lines = [element("tr", element("th", key, scope="row"), element("td", value, class_="wrap")) for key, value in rows]
    return element("div", element("table", element("tbody", *lines)), class_="scroll", tabindex="0")


def folded(summary: str, *children: Node, **attributes: str) -> ET.Element:
    """Return a part that opens where its summary is clicked."""
    return element("details", element("summary", summary), *children, **attributes)


def _policy(scripts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _header(column: TextColumn) -> ET.Element:
    unit = [element("br"), element("span", f"({column.unit})", class_="unit")] if column.unit else []
    words: list[Node] = []
    for word in column.label.split(" "):  # which break at no hyphen, as `end-to-end` would
        words += [element("span", word, class_="word"), " "]
    return element("th", *words[:-1], *unit, scope="col", class_="number" if column.is_number else "text")


def _cell(column: TextColumn, index: int) -> ET.Element:
    text: Node = column.texts[index]
    if column.best[index]:
        text = element("strong", f"{column.texts[index]}{BEST_MARK}", class_="best")
    kind = "number" if column.is_number else "wrap" if column.is_prose else "text"
    margin = column.margins[index] if column.margins else ""
    return element(
        "td", text, *([element("br"), element("span", margin, class_="unit")] if margin else []), class_=kind
    )
