"""The HTML report: its sections, in order."""

from itertools import pairwise
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.reporting.captions import Captions, captions
from hfbench.reporting.cells import failure_columns, result_columns
from hfbench.reporting.html import document, element, key_value_table, text_table
from hfbench.reporting.machine import ceiling_rows, environment_groups
from hfbench.reporting.numbers import significant
from hfbench.reporting.results import failure_rows, result_rows
from hfbench.reporting.style import STYLE
from hfbench.tables.metrics import METRICS

_STATISTICS = (
    "A number in the table of results is the median over all samples of all rounds that are ok. A round is a fresh "
    "process. Samples are the iterations after the first call and the warm-up; samples.parquet keeps these too, "
    "and summary.parquet has mean, standard deviation, extremes and percentiles of every metric. The range of rounds "
    "holds the lowest and the highest median that a single round had. A mark says which median is best, and not that "
    "the difference is more than noise."
)


def report_page(
    summary: pl.DataFrame, points: pl.DataFrame, environment: dict[str, Any], ceilings: dict[str, Any]
) -> str:
    """Return the page as HTML from two of the tables and the contents of environment.json and ceilings.json.

    The same input makes the same page: it holds no time but those of the measurements.
    """
    rows, failures = result_rows(summary, points), failure_rows(points)
    text = captions(points, rows)
    sections = [
        _measured(text, points),
        _results(rows, points, text),
        _failures(failures, points),
        _definitions(points),
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


def _failures(failures: pl.DataFrame, points: pl.DataFrame) -> ET.Element | None:
    if failures.is_empty():
        return None
    return element("section", element("h2", "Not ok"), text_table(failure_columns(failures, points)))


def _definitions(points: pl.DataFrame) -> ET.Element:
    entries = [
        node
        for metric in METRICS
        for node in (
            element("dt", metric.name, " ", element("span", f"({metric.unit})", class_="unit")),
            element("dd", metric.definition),
        )
    ]
    paragraphs = [_STATISTICS, "TTFT is the time to the first token.", _observer_cost(points)]
    return element(
        "section",
        element("h2", "How the numbers are defined"),
        *(element("p", paragraph) for paragraph in paragraphs if paragraph),
        element("dl", *entries),
    )


def _observer_cost(points: pl.DataFrame) -> str:
    """Return the observer's cost over all records; a record's own ratio is mostly chance where its samples are few."""
    ratios = points["observer_cost_ratio"].drop_nulls().to_list()
    if not ratios:
        return ""
    middle, lowest, highest = map(significant, (median(ratios), min(ratios), max(ratios)))
    return (
        f"The median with the token observer over the median without it is {middle} in the middle record, "
        f"{lowest} in the lowest and {highest} in the highest. Beside the cost of observing, this holds whatever else "
        "differed between the iterations."
    )


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
