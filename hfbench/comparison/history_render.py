"""A history as text: for the terminal, as Markdown, and as JSON."""

import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfbench.comparison.compared import ComparedMetric
from hfbench.comparison.history_cells import MARKS
from hfbench.comparison.history_layout import TextTable, history_tables
from hfbench.comparison.history_notes import METHOD, change_groups, notes
from hfbench.comparison.history_types import Change, History, Series
from hfbench.comparison.verdicts import SLOWER
from hfbench.foundation.files import readable_json
from hfbench.statistics.confidence import Interval

_MARKDOWN_WIDTH = 120
_NO_CHANGE = "No change point."


def terminal_text(history: History, metrics: Sequence[ComparedMetric], width: int, *, color: bool) -> str:
    """Return the history as tables, the change points of all metrics, and notes; with ANSI colours if asked."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, force_terminal=color, no_color=not color)
    for table in history_tables(history, metrics, width):
        console.print(Text(table.title, style="bold"))
        console.print(_rich_table(table))
        console.print()
    console.print(Text("Change points", style="bold"))
    groups = change_groups(history)
    for place, lines in groups:
        console.print(Text(place))
        for line in lines:
            console.print(Text(f"  {line}", style=_style(line)))
    if not groups:
        console.print(_NO_CHANGE)
    console.print()
    for note in notes(history):
        console.print(Text(note, style="dim"))
    return stream.getvalue()


def markdown_text(history: History, metrics: Sequence[ComparedMetric]) -> str:
    """Return the history as Markdown with pipe tables."""
    parts = [_pipe_table(table) for table in history_tables(history, metrics, _MARKDOWN_WIDTH)]
    changes = "\n".join(_nested(place, lines) for place, lines in change_groups(history)) or _NO_CHANGE
    below = "\n".join(f"- {_escaped(note)}" for note in notes(history))
    return "\n\n".join([*parts, f"### Change points\n\n{changes}", below]) + "\n"


def json_text(history: History) -> str:
    """Return everything as JSON: rows, and for each series of each metric its values and change points.

    `row` and `previous_row` are places in `rows`; ratios are the level after over the level before.
    """
    return readable_json(
        {
            "method": METHOD,
            "threshold": history.threshold,
            "rows": [
                {
                    "name": row.name,
                    "commit": row.commit,
                    "committed_at": row.committed_at.isoformat() if row.committed_at else None,
                    "subject": row.subject,
                    "environment": row.machine,
                    "commits_without_results_before": unmeasured,
                }
                for row, unmeasured in zip(history.rows, history.unmeasured, strict=False)
            ],
            "series": [_series_json(series) for series in history.series],
            "notes": notes(history),
        }
    )


def _series_json(series: Series) -> dict[str, Any]:
    return {
        "configuration": dict(series.configuration),
        "metric": series.metric.name,
        "unit": series.metric.metric.unit,
        "higher_is_better": series.metric.metric.higher_is_better,
        "environment": series.machine,
        "values": [
            {
                "row": value.commit,
                "estimate": value.estimate,
                **_interval_json(value.interval),
                "rounds": value.rounds,
                "same_measurement_as_before": value.is_carried,
                "output_differs": value.output_differs,
            }
            for value in series.values
        ],
        "noise_known": series.changes is not None,
        "changes": [_change_json(change) for change in series.changes or ()],
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "row": change.commit,
        "previous_row": change.previous,
        "verdict": change.verdict,
        "ratio": change.ratio.estimate,
        **_interval_json(change.ratio),
        "p_value": change.p_value,
    }


def _interval_json(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}


def _rich_table(table: TextTable) -> Table:
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in table.header:
        result.add_column(Text(name), no_wrap=True, overflow="ellipsis")
    for cells in table.rows:
        result.add_row(*(Text(cell, style=_style(cell)) for cell in cells))
    return result


def _style(text: str) -> str:
    if not any(mark in text for mark in MARKS.values()):
        return ""
    return "bold red" if MARKS[SLOWER] in text else "bold green"


def _pipe_table(table: TextTable) -> str:
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    body = "\n".join("| " + " | ".join(map(_escaped, cells)) + " |" for cells in lines)
    return f"### {_escaped(table.title)}\n\n{body}"


def _nested(place: str, lines: Sequence[str]) -> str:
    return "\n".join([f"- {_escaped(place)}", *(f"  - {_escaped(line)}" for line in lines)])


def _escaped(text: str) -> str:
    """Escape what Markdown would act on: a commit's subject is anybody's text."""
    return "".join(f"\\{character}" if character in "|`*_<>[]\\" else character for character in text)
