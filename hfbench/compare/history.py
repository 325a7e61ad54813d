"""The history of results over three or more commits: which commits it has, and their series.

A commit is a row where it has results of its own; what has no row is counted or named, with the reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from hfbench.compare.changes import environment_labels
from hfbench.compare.pairs import ComparedMetric, named
from hfbench.compare.series import (
    HistoryRow,
    Series,
    change_cells,
    change_text,
    collect_series,
    failing_since,
    interval_strip,
    mark_changes,
    read_row,
    trend,
    value_cells,
)
from hfbench.compare.side import LOCK, WORKSPACE, is_path, locked_tables, read_side, resolve_revision, unknown_name
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.results import TABLES
from hfbench.git import find_objects, prefix_of, try_git
from hfbench.report.pages import Block, Bullet, Bullets, Cell, Column, Table, bullets, printable
from hfbench.report.words import counted
from hfbench.statistics.changepoints import FEWEST_FOR_DRIFT
from hfbench.statistics.verdicts import SLOWER
from hfbench.tables.store import labels_of

_HERE = Path()
_RANGE = ".."
METHOD = "optimal partitioning (Jackson et al. 2005)"
_LISTED = 5  # commits named in one sentence
_WIDEST_SUBJECT, _NARROWEST_SUBJECT = 40, 12
_WIDEST_CONFIGURATION = 24  # about as wide as a value with its change point
_GAP = 2


@dataclass(frozen=True)
class History:
    """What a history shows: its rows in commit order, the series over them, and what has no row and why.

    `unmeasured` counts, for each row, the commits without results between it and the row before, and last those after
    all rows. `carried` names the commits that have the results of the row before them, and `unreadable` says why others
    could not be read.
    """

    rows: tuple[HistoryRow, ...]
    series: tuple[Series, ...]
    threshold: float
    unmeasured: tuple[int, ...]
    carried: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def is_slower(self) -> bool:
        """Whether the last row is worse than what was before it.

        That is so where the last change point of a series that reaches it is `slower`, and where a configuration that
        was ok fails in it.
        """
        reaching = (series for series in self.series if series.values[-1].commit == len(self.rows) - 1)
        last = (series.changes[-1] for series in reaching if series.changes)
        return bool(failing_since(self.rows)) or any(change.verdict == SLOWER for change in last)

    @property
    def machines(self) -> list[str]:
        """The environments that its rows were measured in."""
        return list(dict.fromkeys(row.machine for row in self.rows))

    @cached_property
    def labels(self) -> list[str]:
        """A name for each series' configuration, by the axes that differ; `#2` has other contents (see `Series`)."""
        labels: list[str] = []
        seen: Counter[tuple[str, str, str]] = Counter()
        short = labels_of([named(series.axes) for series in self.series])
        for series, label in zip(self.series, short, strict=True):
            seen[label, series.metric.name, series.machine] += 1
            count = seen[label, series.metric.name, series.machine]
            labels.append(label if count == 1 else f"{label} #{count}")
        return labels


def is_history(names: Sequence[str]) -> bool:
    """Return whether these names ask for a history: three and more, or a range `A..B`."""
    return len(names) > 2 or any(map(_is_range, names))


def read_history(
    names: Sequence[str], metrics: Sequence[ComparedMetric], threshold: float, condition: str | None
) -> History:
    """Read the sides that these names mean, and find the change points of these metrics.

    `condition` is the text of --filter, over the axes but the round; `threshold` is the share of change that counts as
    none. Raises `UserError` for an unknown name or filter, for a named commit without results, and for fewer than two
    commits with results.
    """
    rows: list[HistoryRow] = []
    environments, unmeasured, carried, unreadable = [], [], [], []
    skipped, last_results = 0, None
    for candidate in find_candidates(names):
        if candidate.results is None and not candidate.named:
            skipped += 1
        elif candidate.results is not None and candidate.results == last_results:
            carried.append(candidate.short)
        else:
            try:
                side = read_side(candidate.name)
            except UserError as error:
                if candidate.named:
                    raise
                unreadable.append(f"{candidate.short} is left out: {error}")
                continue
            kept = side if condition is None else side.filtered(condition, CONFIGURATION_AXES)
            rows.append(read_row(kept, metrics))
            environments.append(side.environment)
            unmeasured.append(skipped)
            skipped, last_results = 0, candidate.results
    if len(rows) < 2:
        why = f" {unreadable[0]}" if unreadable else ""
        raise UserError(
            f"{' '.join(names)} has {counted(len(rows), 'commit')} with results of its own, and a "
            f"history needs two. Run `dvc repro` at more commits, and commit dvc.lock.{why}"
        )
    rows = [replace(row, machine=label) for row, label in zip(rows, environment_labels(environments), strict=True)]
    series = collect_series(rows)
    mark_changes(series, threshold)
    if not series and condition is not None:
        raise UserError(f"No configuration and metric of these commits is left by the filter {condition!r}.")
    return History(tuple(rows), tuple(series), threshold, (*unmeasured, skipped), tuple(carried), tuple(unreadable))


@dataclass(frozen=True)
class Candidate:
    """A commit, or the workspace, by the name that `read_side` takes.

    `named` says that the user asked for it by name, so that a commit without results is an error; `results` is what
    tells one content of its tables from another, None where they are not in git or dvc.lock.
    """

    name: str
    named: bool
    results: str | None

    @property
    def short(self) -> str:
        """The name asked for, or else the commit's first seven digits."""
        return self.name if self.named else self.name[:7]


def find_candidates(names: Sequence[str]) -> list[Candidate]:
    """Return the commits that these names mean, each once, in commit order, the workspace last.

    A range `A..B` means A and every commit from there to B (HEAD where B is left out), along the first parents: merged
    branches count as their merge. Order is that of `git rev-list --date-order`: no commit stands before its parents,
    and else the earlier one comes first. Raises `UserError` for an unknown name and for a range whose start is no
    ancestor of its end.
    """
    by_name = [name for name in names if name != WORKSPACE and not _is_range(name)]
    asked = {_resolved(name): name for name in reversed(by_name)}
    commits = {*asked, *(commit for name in filter(_is_range, names) for commit in _range(name))}
    listed = (try_git(_HERE, "rev-list", "--date-order", "--reverse", *commits) or "").split() if commits else []
    ordered = [commit for commit in listed if commit in commits]
    results = zip(ordered, _results(ordered), strict=True)
    candidates = [Candidate(asked.get(each, each), each in asked, content) for each, content in results]
    return [*candidates, Candidate(WORKSPACE, True, None)] if WORKSPACE in names else candidates


def _is_range(name: str) -> bool:
    return _RANGE in name and not is_path(name)


def _resolved(name: str) -> str:
    revision = None if is_path(name) else resolve_revision(name, _HERE)
    if revision is not None:
        return revision.commit
    if Path(name).expanduser().is_dir():
        raise UserError(
            f"{name} is a folder, which has no place in the order of commits. Compare it with one side alone."
        )
    raise unknown_name(name, _HERE)


def _range(name: str) -> list[str]:
    start_name, _, end_name = name.partition(_RANGE)
    if end_name.startswith("."):
        raise UserError(
            f"{name!r} has three dots. A history follows A..B, with two: A and every commit after it up to B."
        )
    start, end = (_resolved(each or "HEAD") for each in (start_name, end_name))
    if try_git(_HERE, "merge-base", "--is-ancestor", start, end) is None:
        raise UserError(
            f"{start_name} is no ancestor of {end_name or 'HEAD'}, so {name} is no line of commits. "
            "Give the commits by name, or a range that begins where the branches parted."
        )
    listed = try_git(_HERE, "rev-list", "--first-parent", f"{start}..{end}") or ""
    return [start, *listed.split()]


def _results(commits: Sequence[str]) -> Iterator[str | None]:
    """Yield what identifies the content of each commit's tables, by dvc.lock or, where git holds them, by git."""
    prefix = prefix_of(_HERE)
    objects = find_objects(_HERE, [f"{commit}:{prefix}{name}" for commit in commits for name in (LOCK, TABLES)])
    digests: dict[str | None, str | None] = {None: None}
    for lock, tables in zip(objects[::2], objects[1::2], strict=True):
        if lock not in digests:
            digests[lock] = (locked_tables(try_git(_HERE, "cat-file", "blob", str(lock)) or "") or {}).get("md5")
        yield digests[lock] or tables


def history_page(history: History, shown: Sequence[ComparedMetric], width: int) -> list[Block]:
    """Return tables of these metrics, as wide as `width` characters if that is enough, all change points, and notes."""
    labelled = [pair for pair in zip(history.series, history.labels, strict=True) if pair[0].metric in shown]
    labelled.sort(key=lambda pair: (history.machines.index(pair[0].machine), shown.index(pair[0].metric)))
    page: list[Block] = []
    for (machine, metric), group in groupby(labelled, key=lambda pair: (pair[0].machine, pair[0].metric)):
        page += _tables(history, machine, metric, list(group), width)
    return [*page, _change_points(history), bullets(notes_of(history), role="quiet")]


def _tables(
    history: History, machine: str, metric: ComparedMetric, group: Sequence[tuple[Series, str]], width: int
) -> list[Table]:
    """Return the series of a machine: one alone with its intervals drawn, several beside each other with their trends.

    Columns that do not fit beside each other make a table of their own.
    """
    unit, unit_size = metric.unit_of(result.estimate for series, _ in group for result in series.results)
    places = [place for place, row in enumerate(history.rows) if row.machine == machine]
    rows = [history.rows[place] for place in places]
    title = f"{metric.label} ({unit})" + (f" · {machine}" if len(history.machines) > 1 else "")
    if len(group) == 1:
        series, name = group[0]
        columns = [
            Column("estimate", "line").filled(value_cells(series, history.rows, places, unit_size)),
            Column("interval", "line").filled(interval_strip(series, places)),
            Column("change", "line").filled(change_cells(series, places, short=False)),
        ]
        return [Table((*_commit_columns(rows, width - _width_of(columns)), *columns), f"{title} · {name}")]
    fixed = _commit_columns(rows, max(width // 2, width - 2 * (_WIDEST_CONFIGURATION + _GAP)))
    trends = ["trend", *[""] * (len(fixed) - 1)]
    fixed = [column.filled([*column.cells, last]) for column, last in zip(fixed, trends, strict=True)]
    columns = []
    for series, name in group:
        changes = change_cells(series, places, short=True)
        values = zip(value_cells(series, history.rows, places, unit_size), changes, strict=True)
        cells = (Cell(f"{text}  {change.text}".rstrip(), change.role) for text, change in values)
        columns.append(Column(name, "line").filled([*cells, trend(series)]))
    return [Table((*fixed, *chunk), title) for chunk in _chunks(columns, width - _width_of(fixed))]


def _commit_columns(rows: Sequence[HistoryRow], width: int) -> list[Column]:
    """Return the columns that say which commit it is: the subject shortened, or left out, to fit into the width."""
    days = [row.committed_at.strftime("%Y-%m-%d") if row.committed_at else "" for row in rows]
    columns = [Column("commit", "line").filled(map(_row_label, rows)), Column("date", "line").filled(days)]
    widest = min(_WIDEST_SUBJECT, width - _width_of(columns) - _GAP)
    if widest < _NARROWEST_SUBJECT:
        return columns
    subjects = (printable(row.subject or "") for row in rows)
    shortened = (text if cell_len(text) <= widest else f"{set_cell_size(text, widest - 1)}…" for text in subjects)
    return [*columns, Column("subject", "line").filled(shortened)]


def _row_label(row: HistoryRow) -> str:
    """Return a commit by its first seven digits, with the name it was asked for by, if that is another."""
    if row.commit is None:
        return printable(row.name)
    return row.commit[:7] if row.commit.startswith(row.name) else f"{printable(row.name)} {row.commit[:7]}"


def _chunks(columns: Sequence[Column], width: int) -> list[list[Column]]:
    chunks: list[list[Column]] = [[]]
    for column in columns:
        if chunks[-1] and _width_of([*chunks[-1], column]) > width:
            chunks.append([])
        chunks[-1].append(column)
    return chunks


def _width_of(columns: Sequence[Column]) -> int:
    return sum(max(map(cell_len, [column.label, *column.texts])) + _GAP for column in columns)


def _change_points(history: History) -> Bullets:
    """Return each place where something changed, in commit order, with a line for each metric and configuration."""
    groups: dict[tuple[int, int], list[Bullet]] = {}
    for series, label in zip(history.series, history.labels, strict=True):
        for change in series.changes or ():
            line = f"{change_text(change, series.metric)} {series.metric.label} · {label}"
            groups.setdefault((change.commit, change.previous), []).append(Bullet(line, change.role))
    found = tuple(Bullet(_place(history, *rows), below=tuple(groups[rows])) for rows in sorted(groups))
    return Bullets(found or (Bullet("No change point."),), "Change points")


def _place(history: History, commit: int, previous: int) -> str:
    """Return the commit at which a change was first seen, and how many before it could have made it."""
    row = history.rows[commit]
    place = f"{_row_label(row)} {row.subject or ''}".strip()
    between = sum(history.unmeasured[previous + 1 : commit + 1]) + commit - previous - 1
    if between == 0:
        return place
    those = "the commit before it, which was" if between == 1 else f"one of the {between} commits before it, which were"
    return f"{place} (or {those} not measured)"


def notes_of(history: History) -> list[str]:
    """Return the sentences below the tables: what fails, what has no row, what is kept apart, and what is not known."""
    labelled = zip(history.series, history.labels, strict=True)
    labels = {series.axes: label.partition(" #")[0] for series, label in labelled}
    failing = [(axes, history.rows[since]) for axes, since in failing_since(history.rows)]
    skipped, carried = sum(history.unmeasured), history.carried
    more = f" and {len(carried) - _LISTED} more" if len(carried) > _LISTED else ""
    said = {
        f"{counted(skipped, 'commit')} without results {'is' if skipped == 1 else 'are'} left out.": skipped,
        f"{counted(len(carried), 'commit')} with the very results of the commit before "
        f"{'is' if len(carried) == 1 else 'are'} left out: {', '.join(carried[:_LISTED])}{more}.": carried,
        "= is the measurement of the commit before, taken over: no evidence of its own.": any(
            value.is_carried for series in history.series for value in series.values
        ),
    }
    return [
        *(f"{labels[axes]} was ok, and is {row.not_ok[axes]} since {_row_label(row)}." for axes, row in failing),
        *(sentence for sentence, holds in said.items() if holds),
        *history.unreadable,
        *(f"{_row_label(row)}: {note}" for row in history.rows for note in row.notes),
        *_caveats(history),
        f"▲ slower (or more memory or energy) and ▼ faster mark where the level changes by more than "
        f"{100 * history.threshold:g}% and by more than noise, found by {METHOD}; in brackets the 95% interval of the "
        "level after over the level before.",
    ]


def _caveats(history: History) -> list[str]:
    series, machines = history.series, history.machines
    caveats = {
        f"These commits were measured in {len(machines)} environments: {'; '.join(machines)}. Each is a series of its "
        "own; no change is told from one to another.": len(machines) > 1,
        "#2 is the same configuration on another device or number of threads, with another prompt or architecture: a "
        "series of its own.": any(label.endswith(" #2") for label in history.labels),
        "One round a commit does not tell the noise, and so no change either: add rounds to sweep.round, or compare "
        f"{FEWEST_FOR_DRIFT} commits and more.": any(each.changes is None for each in series),
        f"Fewer than {FEWEST_FOR_DRIFT} commits do not tell a change of the code from a machine that was slower that "
        "day. To be sure, measure both commits again in interleaved rounds.": any(
            each.changes and len(each.measured) < FEWEST_FOR_DRIFT for each in series
        ),
    }
    return [sentence for sentence, holds in caveats.items() if holds]
