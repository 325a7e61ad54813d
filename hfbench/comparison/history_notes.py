"""What a history says in sentences: its change points, and what to know of its rows."""

from collections.abc import Sequence

from hfbench.comparison.history_cells import change_text, row_label, series_labels
from hfbench.comparison.history_series import failing_since, measured_values
from hfbench.comparison.history_types import History, Series
from hfbench.reporting.cells import printable
from hfbench.statistics.steps import FEWEST_FOR_DRIFT

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
