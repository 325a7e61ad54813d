"""The report's sections that are tables: all results, the warnings, and what could not be measured."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.report.frames import WarningGroup
from hfbench.report.html import element, text_table
from hfbench.report.words import failure_columns, result_columns, warning_columns


def results_section(rows: pl.DataFrame, points: pl.DataFrame, notes: Sequence[str]) -> ET.Element:
    """Return the table of all configurations with its notes; `rows` is from `result_rows`."""
    ends = [one != other for one, other in pairwise(rows["workload"].to_list())]
    table = [] if rows.is_empty() else [text_table(result_columns(rows, points), ends, is_sortable=True)]
    remarks = [element("p", note, class_="faint") for note in notes]
    return element("section", element("h2", "Results"), *table, *remarks, id="results")


def warnings_section(groups: Sequence[WarningGroup]) -> ET.Element:
    """Return what is to be doubted in the numbers, and what to do about it."""
    content = text_table(warning_columns(groups)) if groups else element("p", "Nothing was found to doubt.")
    return element("section", element("h2", "Warnings"), content, id="warnings")


def failures_section(failures: pl.DataFrame, points: pl.DataFrame) -> ET.Element:
    """Return what could not be measured, with the reasons; `failures` is from `failure_rows`."""
    measured = element("p", "Every point was measured.")
    content = measured if failures.is_empty() else text_table(failure_columns(failures, points))
    return element("section", element("h2", "Not ok"), content, id="not-ok")
