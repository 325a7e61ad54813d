"""The history of results over three or more commits: which commits it has, and their series.

A commit is a row where it has results of its own; what has no row is counted or named, with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfbench.compare.changes import Environments
from hfbench.compare.pairs import ComparedMetric
from hfbench.compare.series import HistoryRow, Series, collect_series, failing_since, mark_changes, read_row
from hfbench.compare.side import (
    LOCK,
    WORKSPACE,
    NamedCommit,
    Side,
    is_path,
    locked_tables,
    read_side,
    resolve_revision,
    unknown_name,
)
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.results import TABLES
from hfbench.git import find_objects, prefix_of, try_git

_RANGE = ".."


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
        last = [series for series in self.series if series.values[-1].commit == len(self.rows) - 1]
        return bool(failing_since(self.rows)) or any(each.changes and each.changes[-1].is_slower for each in last)


def is_history(names: Sequence[str]) -> bool:
    """Return whether these names ask for a history: three and more, or a range `A..B`."""
    return len(names) > 2 or any(map(_is_range, names))


def read_history(
    names: Sequence[str],
    metrics: Sequence[ComparedMetric],
    threshold: float,
    condition: str | None = None,
    folder: Path = Path(),
) -> History:
    """Read the sides that these names mean, and find the change points of these metrics.

    `condition` is the text of --filter, over the axes but the round; `threshold` is the share of change that counts as
    none. Raises `UserError` for an unknown name or filter, for a named commit without results, and for fewer than two
    commits with results.
    """
    environments = Environments()
    rows: list[HistoryRow] = []
    unmeasured, carried, unreadable = [], [], []
    skipped, last_results = 0, None
    for candidate in find_candidates(names, folder):
        if candidate.results is None and not candidate.named:
            skipped += 1
        elif candidate.results is not None and candidate.results == last_results:
            carried.append(candidate.short)
        elif isinstance(side := _side(candidate, folder), str):
            unreadable.append(side)
        else:
            kept = side if condition is None else side.filtered(condition, CONFIGURATION_AXES)
            rows.append(read_row(kept, environments.label(side.environment), metrics))
            unmeasured.append(skipped)
            skipped, last_results = 0, candidate.results
    if len(rows) < 2:
        raise _too_few(names, len(rows), unreadable)
    series = mark_changes(collect_series(rows), threshold)
    if not series:
        raise UserError(f"No configuration and metric of these commits is left by the filter {condition!r}.")
    return History(tuple(rows), tuple(series), threshold, (*unmeasured, skipped), tuple(carried), tuple(unreadable))


@dataclass(frozen=True)
class Candidate:
    """A commit, or the workspace (`revision` None), by the name that `read_side` takes.

    `named` says that the user asked for it by name, so that a commit without results is an error; `results` is what
    tells one content of its tables from another, None where they are not in git or dvc.lock.
    """

    name: str
    revision: str | None
    named: bool
    results: str | None

    @property
    def short(self) -> str:
        """The name asked for, or else the commit's first seven digits."""
        return self.name if self.named else self.name[:7]


def find_candidates(names: Sequence[str], folder: Path) -> list[Candidate]:
    """Return the commits that these names mean, each once, in commit order, the workspace last.

    A range `A..B` means A and every commit from there to B (HEAD where B is left out), along the first parents: merged
    branches count as their merge. Order is that of `git rev-list --date-order`: no commit stands before its parents,
    and else the earlier one comes first. Raises `UserError` for an unknown name and for a range whose start is no
    ancestor of its end.
    """
    by_name = [name for name in names if name != WORKSPACE and not _is_range(name)]
    asked = {_resolved(name, folder).commit: name for name in reversed(by_name)}
    commits = {*asked, *(commit for name in filter(_is_range, names) for commit in _range(name, folder))}
    listed = (try_git(folder, "rev-list", "--date-order", "--reverse", *commits) or "").split() if commits else []
    ordered = [commit for commit in listed if commit in commits]
    results = _results(ordered, folder)
    candidates = [Candidate(asked.get(each, each), each, each in asked, results[each]) for each in ordered]
    return [*candidates, Candidate(WORKSPACE, None, True, None)] if WORKSPACE in names else candidates


def _is_range(name: str) -> bool:
    return _RANGE in name and not is_path(name)


def _resolved(name: str, folder: Path) -> NamedCommit:
    revision = None if is_path(name) else resolve_revision(name, folder)
    if revision is not None:
        return revision
    if (folder / Path(name).expanduser()).is_dir():
        raise UserError(
            f"{name} is a folder, which has no place in the order of commits. Compare it with one side alone."
        )
    raise unknown_name(name, folder)


def _range(name: str, folder: Path) -> list[str]:
    start_name, _, end_name = name.partition(_RANGE)
    if end_name.startswith("."):
        raise UserError(
            f"{name!r} has three dots. A history follows A..B, with two: A and every commit after it up to B."
        )
    start, end = (_resolved(each or "HEAD", folder).commit for each in (start_name, end_name))
    if try_git(folder, "merge-base", "--is-ancestor", start, end) is None:
        raise UserError(
            f"{start_name} is no ancestor of {end_name or 'HEAD'}, so {name} is no line of commits. "
            "Give the commits by name, or a range that begins where the branches parted."
        )
    listed = try_git(folder, "rev-list", "--first-parent", f"{start}..{end}") or ""
    return [start, *listed.split()]


def _results(commits: Sequence[str], folder: Path) -> dict[str, str | None]:
    """Return what identifies the content of each commit's tables, by dvc.lock or, where git holds them, by git."""
    prefix = prefix_of(folder)
    objects = find_objects(folder, [f"{commit}:{prefix}{name}" for commit in commits for name in (LOCK, TABLES)])
    locks = {lock: _locked_hash(lock, folder) for lock in set(objects[::2]) if lock}
    pairs = zip(commits, objects[::2], objects[1::2], strict=True)
    return {commit: (locks[lock] if lock else None) or tables for commit, lock, tables in pairs}


def _locked_hash(lock: str, folder: Path) -> str | None:
    tables = locked_tables(try_git(folder, "cat-file", "blob", lock) or "") or {}
    return tables.get("md5")


def _side(candidate: Candidate, folder: Path) -> Side | str:
    """Return the candidate's side; of a commit that only a range names, the reason why it cannot be read."""
    try:
        return read_side(candidate.name, folder)
    except UserError as error:
        if candidate.named:
            raise
        return f"{candidate.short} is left out: {error}"


def _too_few(names: Sequence[str], rows: int, unreadable: Sequence[str]) -> UserError:
    why = f" {unreadable[0]}" if unreadable else ""
    return UserError(
        f"{' '.join(names)} has {rows} commit{'' if rows == 1 else 's'} with results of its own, and a "
        f"history needs two. Run `dvc repro` at more commits, and commit dvc.lock.{why}"
    )
