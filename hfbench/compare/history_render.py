"""A history as text: for the terminal, as Markdown, and as JSON."""

import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfbench.compare.history_layout import MARKS, TextTable, change_text, history_tables, row_label, series_labels
from hfbench.compare.pairs import ComparedMetric
from hfbench.compare.series import Change, History, Series, failing_since, measured_values
from hfbench.core.files import readable_json
from hfbench.report.words import printable
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.changepoints import FEWEST_FOR_DRIFT
from hfbench.statistics.verdicts import SLOWER

METHOD = "optimal partitioning (Jackson et al. 2005)"
_LISTED = 5  # commits named in one sentence


def change_groups(history: History) -> list[tuple[str, list[str]]]:
    """Return each place where something changed, in commit order, with a line for each metric and configuration."""
    groups: dict[tuple[int, int], list[str]] = {}
    for series, label in zip(history.series, series_labels(history), strict=True):
        for change in series.changes or ():
            line = f"{change_text(change, series.metric)} {series.metric.label} · {label}"
            groups.setdefault((change.commit, change.previous), []).append(line)
    return [(_place(history, *rows), groups[rows]) for rows in sorted(groups)]


def notes(history: History) -> list[str]:
    """Return the sentences below the tables."""
    return [
        *_about_failures(history),
        *_about_rows(history),
        *_about_environments(history),
        *_about_noise(history.series),
        f"▲ slower (or more memory or energy) and ▼ faster mark where the level changes by more than "
        f"{100 * history.threshold:g}% and by more than noise, found by {METHOD}; in brackets the 95% interval of the "
        "level after over the level before.",
    ]


def _place(history: History, commit: int, previous: int) -> str:
    """Return the commit at which a change was first seen, and how many before it could have made it."""
    row = history.rows[commit]
    place = printable(f"{row_label(row)} {row.subject or ''}".strip())
    between = sum(history.unmeasured[previous + 1 : commit + 1]) + commit - previous - 1
    if between == 0:
        return place
    those = "the commit before it, which was" if between == 1 else f"one of the {between} commits before it, which were"
    return f"{place} (or {those} not measured)"


def _about_failures(history: History) -> list[str]:
    labelled = zip(history.series, series_labels(history), strict=True)
    labels = {tuple(series.configuration.values()): label.partition(" #")[0] for series, label in labelled}
    return [
        f"{labels[axes]} was ok, and is {history.rows[since].not_ok[axes]} since {row_label(history.rows[since])}."
        for axes, since in failing_since(history.rows)
    ]


def _about_rows(history: History) -> list[str]:
    sentences = []
    skipped = sum(history.unmeasured)
    if skipped:
        sentences.append(f"{_counted(skipped, 'commit')} without results {_are(skipped)} left out.")
    carried = len(history.carried)
    if carried:
        sentences.append(
            f"{_counted(carried, 'commit')} with the very results of the commit before {_are(carried)} left out: "
            f"{_listed(history.carried)}."
        )
    if any(value.is_carried for series in history.series for value in series.values):
        sentences.append("= is the measurement of the commit before, taken over: no evidence of its own.")
    sentences += history.unreadable
    sentences += [f"{row_label(row)}: {note}" for row in history.rows for note in row.notes]
    return sentences


def _about_environments(history: History) -> list[str]:
    sentences = []
    machines = list(dict.fromkeys(row.machine for row in history.rows))
    if len(machines) > 1:
        sentences.append(
            f"These commits were measured in {len(machines)} environments: {'; '.join(machines)}. Each is a series of "
            "its own; no change is told from one to another."
        )
    if any(label.endswith(" #2") for label in series_labels(history)):
        sentences.append(
            "#2 is the same configuration on another device or number of threads, with another prompt or architecture: "
            "a series of its own."
        )
    return sentences


def _about_noise(series: Sequence[Series]) -> list[str]:
    sentences = []
    if any(each.changes is None for each in series):
        sentences.append(
            "One round a commit does not tell the noise, and so no change either: add rounds to sweep.round, or "
            f"compare {FEWEST_FOR_DRIFT} commits and more."
        )
    if any(each.changes and len(measured_values(each)) < FEWEST_FOR_DRIFT for each in series):
        sentences.append(
            f"Fewer than {FEWEST_FOR_DRIFT} commits do not tell a change of the code from a machine that was slower "
            "that day. To be sure, measure both commits again in interleaved rounds."
        )
    return sentences


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


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
