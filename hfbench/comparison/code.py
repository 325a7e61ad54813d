"""What changed in hfbench's own code between two sides, as git tells it."""

from collections import Counter
from pathlib import Path

from hfbench.comparison.revisions import git
from hfbench.comparison.side import WORKSPACE, Side

_CODE = ("hfbench", "stages", "dvc.yaml")


def code_changes(baseline: Side, candidate: Side, folder: Path) -> list[str]:
    """Return sentences: how many commits lie between the sides, and which parts of the code differ.

    Where git cannot tell, because a side is a folder of results or no git is there, that is said.
    """
    unknown = [side.label for side in (baseline, candidate) if side.revision is None and side.label != WORKSPACE]
    if unknown:
        return [f"not known, since {' and '.join(unknown)} is no revision"]
    files = _changed_files(baseline.revision, candidate.revision, folder)
    if files is None:
        return ["not known, since git cannot compare the two"]
    return [*_commits(baseline.revision, candidate.revision, folder), *_files(files)]


def _commits(baseline: str | None, candidate: str | None, folder: Path) -> list[str]:
    counts = git(folder, "rev-list", "--left-right", "--count", f"{baseline or 'HEAD'}...{candidate or 'HEAD'}")
    behind, ahead = map(int, (counts or "0 0").split())
    if behind and ahead:
        return [
            f"{_counted(ahead, 'commit')} since their common ancestor on the candidate's side, {behind} on the other"
        ]
    if behind:
        return [f"the candidate is {_counted(behind, 'commit')} older"]
    return [_counted(ahead, "commit")] if ahead else []


def _changed_files(baseline: str | None, candidate: str | None, folder: Path) -> dict[str, tuple[int, int]] | None:
    """Return lines added and removed in each file that differs; the workspace's files where a revision is None."""
    if baseline is None and candidate is None:
        return {}
    revisions = [revision for revision in (baseline, candidate) if revision is not None]
    reverse = ["-R"] if baseline is None else []
    listed = git(folder, "diff", "--numstat", "--no-renames", *reverse, *revisions, "--", *_CODE)
    if listed is None:
        return None
    files = {}
    for line in listed.splitlines():
        added, removed, name = line.split("\t")
        files[name] = (0, 0) if added == "-" else (int(added), int(removed))
    if len(revisions) == 1:
        untracked = git(folder, "ls-files", "--others", "--exclude-standard", "--", *_CODE) or ""
        files |= dict.fromkeys(untracked.splitlines(), (0, 0))
    return files


def _files(files: dict[str, tuple[int, int]]) -> list[str]:
    if not files:
        return []
    added, removed = (sum(counts) for counts in zip(*files.values(), strict=True))
    rooms = Counter(_room(name) for name in files)
    parts = ", ".join(f"{room} {count}" if count > 1 else room for room, count in rooms.most_common())
    return [f"{_counted(len(files), 'file')} of hfbench, +{added} −{removed} lines: {parts}"]


def _room(name: str) -> str:
    """Return the part of the house that a file is in: hfbench/measurement, stages, dvc.yaml."""
    parts = Path(name).parts
    start = parts.index("hfbench") if "hfbench" in parts[:-1] else None
    if start is None:
        return parts[-2] if len(parts) > 1 else name
    return "/".join(parts[start : start + 2])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
