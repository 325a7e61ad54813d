"""Templates and what fills them: the shell of a page in HTML with its scripts, and pages that are made of blocks."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hfbench.report.charts.chart import Chart
from hfbench.report.pages import BEST_MARK, Bullets, Heading, Paragraph, Table, printable
from hfbench.report.words import significant
from hfbench.tables.configurations import NEVER, PAID

_HERE = Path(__file__).parent
VEGA_LITE = "6.4"  # of the versions that vl-convert brings, the one that Altair 6 writes for
_LICENCE = (
    "/* Vega, Vega-Lite and Vega-Embed. Copyright (c) University of Washington Interactive Data Lab and contributors. "
    "BSD 3-Clause License: see the projects vega/vega, vega/vega-lite and vega/vega-embed. */\n"
)
NamedValues: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A chart on a page of blocks; `alternative` describes it to who cannot see it, `note` says how it is read."""

    name: str
    chart: Chart
    alternative: str
    note: str


def page_of_blocks(
    title: str, facts: NamedValues, blocks: Iterable[Heading | Paragraph | Table | Bullets | Figure]
) -> str:
    """Return a page as HTML whose first block is a heading of level 2; what is empty is left out, as on a terminal."""
    sections: list[dict[str, Any]] = []
    charts: dict[str, Chart] = {}
    for block in blocks:
        if isinstance(block, Heading):
            sections.append({"title": block.text, "blocks": []})
            continue
        if isinstance(block, Figure):
            charts[block.name] = block.chart
        if not (isinstance(block, Table) and not block.rows):
            sections[-1]["blocks"].append((type(block).__name__, block))
    return page("page.html", title=title, facts=facts, sections=sections, charts=charts)


def page(template: str, *, charts: Mapping[str, Chart | None], **content: Any) -> str:
    """Return the page with the scripts that it needs; where no chart is drawn, none that draws.

    Its policy lets no other script run and nothing be loaded, whatever stands in it.
    """
    drawn = [{"name": name, **chart.for_drawing()} for name, chart in charts.items() if chart is not None]
    drawing = (_LICENCE + _vega(), _file("draw.js")) if drawn else ()
    scripts = [as_script(text) for text in (*drawing, _file("sort.js"))]
    filled = _templates().get_template(template)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return filled.render(
        **content, charts=charts, drawn=drawn, style=Markup(_file("style.css")), scripts=scripts, policy=policy
    )


@cache
def _templates() -> Environment:
    """Return the environment that fills the templates, which knows no name that is not given, and escapes all text."""
    templates = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    templates.filters["significant"] = significant
    templates.globals.update(best_mark=BEST_MARK, NEVER=NEVER, PAID=PAID)
    return templates


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return bundle


def as_script(text: str) -> Markup:
    """Return what goes into a script element as it is. Raises `ValueError` where it would end the element."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script must not hold what ends a script element or begins a comment")
    return Markup(text)
