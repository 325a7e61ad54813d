"""The HTML report: its sections, in order."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.reporting.captions import Captions, captions
from hfbench.reporting.cells import failure_columns, result_columns, warning_columns
from hfbench.reporting.definitions import definitions
from hfbench.reporting.html import document, element, key_value_table, text_table
from hfbench.reporting.machine import ceiling_rows, environment_groups
from hfbench.reporting.results import failure_rows, result_rows
from hfbench.reporting.style import STYLE
from hfbench.reporting.warned import WarningGroup, warning_groups
from hfbench.tables.warning_file import ConfigurationWarning


def report_page(
    *,
    summary: pl.DataFrame,
    points: pl.DataFrame,
    configurations: pl.DataFrame,
    warnings: Sequence[ConfigurationWarning],
    environment: dict[str, Any],
    ceilings: dict[str, Any],
) -> str:
    """Return the page as HTML from the tables, the warnings and the contents of environment.json and ceilings.json.

    The same input makes the same page: it holds no time but those of the measurements.
    """
    rows, failures = result_rows(summary, configurations), failure_rows(points)
    text = captions(points, rows)
    sections = [
        _measured(text, points),
        _results(rows, points, text),
        _warnings(warning_groups(warnings, points)),
        _failures(failures, points),
        definitions(points),
        _ceilings(ceilings),
        _environment(environment),
    ]
    return document(f"hfbench: {text.title}", STYLE, [section for section in sections if section is not None])


def _measured(text: Captions, points: pl.DataFrame) -> ET.Element:
    started = sorted(time for time in points["started_at"] if time)
    lines = [f"{text.counts}.", f"{text.constants}." if text.constants else ""]
    if started:
        ends = dict.fromkeys((started[0], started[-1]))
        lines.append(f"Measured {' to '.join(ends)}.")
    paragraphs = [element("p", line[0].upper() + line[1:]) for line in lines if line]
    return element("header", element("h1", text.title), *paragraphs)


def _results(rows: pl.DataFrame, points: pl.DataFrame, text: Captions) -> ET.Element:
    notes = [element("p", note, class_="faint") for note in text.notes]
    if rows.is_empty():
        return element("section", element("h2", "Results"), *notes)
    ends = [one != other for one, other in pairwise(rows["workload"].to_list())]
    return element("section", element("h2", "Results"), text_table(result_columns(rows, points), ends), *notes)


def _warnings(groups: Sequence[WarningGroup]) -> ET.Element | None:
    if not groups:
        return None
    return element("section", element("h2", "Warnings"), text_table(warning_columns(groups)))


def _failures(failures: pl.DataFrame, points: pl.DataFrame) -> ET.Element | None:
    if failures.is_empty():
        return None
    return element("section", element("h2", "Not ok"), text_table(failure_columns(failures, points)))


def _ceilings(ceilings: dict[str, Any]) -> ET.Element | None:
    rows = ceiling_rows(ceilings)
    if not rows:
        return None
    title = "What the device can do"
    device = f"The highest rates that torch reached on {ceilings.get('device', 'the device')}."
    return element("section", element("h2", title), element("p", device), key_value_table(rows))


def _environment(environment: dict[str, Any]) -> ET.Element | None:
    groups = environment_groups(environment)
    if not groups:
        return None
    parts = [node for name, rows in groups for node in (element("h3", name), key_value_table(rows))]
    return element("section", element("h2", "Environment"), *parts)
