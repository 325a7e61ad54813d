"""The HTML report: its sections, in the order of the questions that it answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.core.record import Manifest
from hfbench.report.charts.chart import Chart, charts_json, drawing_scripts
from hfbench.report.charts.speed import speed_chart
from hfbench.report.charts.startup import shares_chart
from hfbench.report.definitions import definitions
from hfbench.report.frames import failure_rows, report_data, result_rows, warning_groups
from hfbench.report.html import document, element, script
from hfbench.report.machine import ceilings_part, environment_part
from hfbench.report.sections.charted import CHART_SECTIONS, chart_section
from hfbench.report.sections.compiling import compiling_part
from hfbench.report.sections.fastest import fastest_section
from hfbench.report.sections.figures import figure
from hfbench.report.sections.provenance import provenance_section
from hfbench.report.sections.tabled import failures_section, results_section, warnings_section
from hfbench.report.sections.top import overview
from hfbench.report.speedups import winners
from hfbench.report.style import STYLE
from hfbench.report.words import captions
from hfbench.tables.warnings import ConfigurationWarning


def report_page(
    *,
    samples: pl.DataFrame,
    summary: pl.DataFrame,
    points: pl.DataFrame,
    configurations: pl.DataFrame,
    warnings: Sequence[ConfigurationWarning],
    environment: Mapping[str, Any],
    ceilings: Mapping[str, Any],
    manifests: Sequence[Manifest] = (),
    params: Mapping[str, Any] | None = None,
) -> str:
    """Return the page as HTML from the tables, the warnings, and the contents of the other results' files.

    The same input makes the same page: it holds no time but those of the measurements.
    """
    rows, failures = result_rows(summary, configurations), failure_rows(points)
    data, text = report_data(samples, summary, points, configurations), captions(points, rows)
    speed, charts = speed_chart(data), {each.name: each.draw(data) for each in CHART_SECTIONS}
    shares = shares_chart(data)
    below = {
        "roofline": [*([] if shares is None else [figure(shares)]), *ceilings_part(ceilings)],
        "startup": compiling_part(data.rows),
    }
    sections = [
        fastest_section(winners(data), speed, len(data.ways)),
        *(
            chart_section(each, charts[each.name], *below.get(each.name, ()))
            for each in CHART_SECTIONS
            if charts[each.name] or each.absent
        ),
        results_section(rows, points, text.notes),
        warnings_section(warning_groups(warnings, points)),
        failures_section(failures, points),
        provenance_section(points, manifests, params or {}, *environment_part(environment)),
        definitions(points),
    ]
    header = overview(text, points, data, environment, manifests)
    drawn = [each for each in (speed, *charts.values(), shares) if each is not None]
    return _whole(text.title, [header, _menu(sections), *sections], drawn)


def _whole(title: str, body: Sequence[ET.Element], charts: Sequence[Chart]) -> str:
    """Return the page with the scripts that it needs; where no chart is drawn, none that draws."""
    data = [script(charts_json(charts), id="charts", type="application/json")] if charts else []
    sort = (Path(__file__).parent / "sort.js").read_text(encoding="utf-8")
    return document(f"hfbench: {title}", STYLE, [*body, *data], [*(drawing_scripts() if charts else ()), sort])


def _menu(sections: Sequence[ET.Element]) -> ET.Element:
    names = [section.get("id", "") for section in sections]
    return element(
        "nav",
        *(element("a", name.replace("-", " ").capitalize(), href=f"#{name}") for name in names),
        aria_label="Sections",
    )
