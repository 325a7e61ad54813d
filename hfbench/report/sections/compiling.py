"""The report's part on what compiling costs at the start, and when it has paid for itself."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.report.charts.chart import text_column
from hfbench.report.html import element, text_table
from hfbench.report.overview import METRICS_SHOWN
from hfbench.report.words import break_even_column, metric_column, significant
from hfbench.statistics.break_even import NEVER, PAID

_STARTS = ("first_call_seconds", "compile_seconds", "warm_first_call_seconds", "warm_compile_seconds")


def compiling_part(rows: pl.DataFrame) -> list[ET.Element]:
    """Return a heading, a sentence for each compiled configuration, and their table; nothing where none is compiled.

    `rows` is that of `ReportData`.
    """
    compiled = rows.filter(pl.col("compile_mode") != "off")
    if compiled.is_empty():
        return []
    known = [name for name in _STARTS if name in compiled.columns and compiled[name].count()]
    unmarked = (False,) * compiled.height  # the mark of the results is of all, uncompiled ones too
    columns = [
        text_column("configuration", compiled["name"].to_list(), is_number=False),
        *(replace(metric_column(compiled, METRICS_SHOWN[name]), best=unmarked) for name in known),
        break_even_column(compiled),
    ]
    note = (
        "The first call of a fresh process with empty caches, and of a second process that finds what the first one "
        "compiled. Break-even counts the new tokens of all rows, from the first call on, until a process that compiles "
        "has taken no longer than one that does not; the range is that of the saving."
    )
    return [
        element("h3", "What compiling costs, and when it has paid"),
        element("ul", *(element("li", _sentence(row)) for row in compiled.to_dicts())),
        text_table(columns),
        element("p", note, class_="faint note"),
    ]


def _sentence(row: dict[str, object]) -> str:
    name, verdict = row["name"], row["break_even"]
    if verdict is None:
        return f"{name}: the same without compiling was not measured, or its output differs, so there is no break-even."
    if verdict == NEVER:
        return f"{name} never pays for compiling: it is slower than the same uncompiled."
    if verdict != PAID:
        why = "the 95% interval of what it saves includes nothing, or there is one round"
        return f"{name}: whether compiling pays is not known, since {why}."
    number, low, high = (significant(row[f"break_even_new_tokens{end}"]) for end in ("", "_low", "_high"))  # type: ignore[arg-type]
    return f"{name} has paid for compiling after {number} new tokens ({low} to {high})."
