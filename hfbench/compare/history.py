"""The history of results over three or more commits: one row a commit, change points marked.

`history_command(names, options)` is what `hfbench compare` calls where `is_history(names)` holds (three and more names,
or a range `A..B`); it returns the text to print and the exit status.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.compare.contrasts import SLOWER
from hfbench.compare.history_commits import Candidate, Environments, find_candidates, is_history
from hfbench.compare.history_render import json_text, markdown_text, terminal_text
from hfbench.compare.pairs import HEADLINE, choose_metrics
from hfbench.compare.series import History, Row, collect_series, failing_since, mark_changes, read_row
from hfbench.compare.side import Side, read_side
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.tables.metrics import AXIS_COLUMNS

__all__ = ["HistoryOptions", "history_command", "is_history"]

FORMATS = ("table", "markdown", "json")


@dataclass(frozen=True)
class HistoryOptions:
    """What `hfbench compare` was asked for.

    Without `metrics`, change points are sought in all that are compared, and the tables are of the end-to-end
    latency; with them, both are of these. `condition` is the text of --filter, over the axes; `threshold` is a share.
    """

    metrics: tuple[str, ...] = ()
    condition: str | None = None
    threshold: float = 0.02
    format: str = FORMATS[0]
    fail_on_slower: bool = False
    width: int = 120
    color: bool = False


def history_command(names: Sequence[str], options: HistoryOptions, folder: Path = Path()) -> tuple[str, int]:
    """Return the history of these names as text, and the exit status: 1 where --fail-on slower applies, else 0.

    It applies where the last change point of a series that reaches the last row is `slower`, and where a configuration
    that was ok fails in the last row. Raises `UserError` for an
    unknown name, metric or filter, a named commit without results, and for fewer than two commits with results.
    """
    history = read_history(names, options, folder)
    shown = choose_metrics(options.metrics) if options.metrics else (HEADLINE,)
    if options.format == "json":
        text = json_text(history) + "\n"
    elif options.format == "markdown":
        text = markdown_text(history, shown)
    else:
        text = terminal_text(history, shown, options.width, color=options.color)
    return text, int(options.fail_on_slower and ends_slower(history))


def read_history(names: Sequence[str], options: HistoryOptions, folder: Path) -> History:
    """Read the sides that these names mean and find the change points; see `history_command`."""
    metrics = choose_metrics(options.metrics)
    environments = Environments()
    condition = _condition(options.condition)
    rows: list[Row] = []
    unmeasured, carried, unreadable = [], [], []
    skipped, last_results = 0, None
    for candidate in find_candidates(names, folder):
        if candidate.results is None and not candidate.named:
            skipped += 1
        elif candidate.results is not None and candidate.results == last_results:
            carried.append(_short(candidate))
        elif isinstance(side := _side(candidate, folder), str):
            unreadable.append(side)
        else:
            rows.append(read_row(side, environments.label(side.environment), metrics, condition))
            unmeasured.append(skipped)
            skipped, last_results = 0, candidate.results
    if len(rows) < 2:
        raise _too_few(names, rows, unreadable)
    series = mark_changes(collect_series(rows), options.threshold)
    if not series:
        raise UserError(f"No configuration and metric of these commits is left by the filter {options.condition!r}.")
    unmeasured.append(skipped)
    return History(tuple(rows), tuple(series), options.threshold, tuple(unmeasured), tuple(carried), tuple(unreadable))


def ends_slower(history: History) -> bool:
    """Return whether the last row is worse than what was before it: see `history_command`."""
    if failing_since(history.rows):
        return True
    last = len(history.rows) - 1
    return any(
        series.changes and series.changes[-1].verdict == SLOWER
        for series in history.series
        if series.values[-1].commit == last
    )


def _condition(text: str | None) -> pl.Expr | None:
    if text is None:
        return None
    from hfbench.tables.store import parse_filter

    types: dict[str, Any] = {axis: AXIS_COLUMNS[axis] for axis in CONFIGURATION_AXES}
    return parse_filter(text, types)


def _side(candidate: Candidate, folder: Path) -> Side | str:
    """Return the candidate's side; of a commit that only a range names, the reason why it cannot be read."""
    try:
        return read_side(candidate.name, folder)
    except UserError as error:
        if candidate.named:
            raise
        return f"{_short(candidate)} is left out: {error}"


def _short(candidate: Candidate) -> str:
    return candidate.name[:7] if candidate.revision and not candidate.named else candidate.name


def _too_few(names: Sequence[str], rows: Sequence[Row], unreadable: Sequence[str]) -> UserError:
    why = f" {unreadable[0]}" if unreadable else ""
    return UserError(
        f"{' '.join(names)} has {len(rows)} commit{'' if len(rows) == 1 else 's'} with results of its own, and a "
        f"history needs two. Run `dvc repro` at more commits, and commit dvc.lock.{why}"
    )
