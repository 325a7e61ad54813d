"""Which commits a history has: those of a range or of a list of names that have results, in commit order."""

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.compare.changes import environment_differences
from hfbench.compare.revisions import Revision, git, resolve_revision, unknown_name
from hfbench.compare.side import WORKSPACE
from hfbench.core.errors import UserError

_UNKNOWN = "an unknown machine"
_MOST_TOLD = 3  # differences in a label


class Environments:
    """The environments of a history, in the order in which they appear; each gets a label of its own."""

    def __init__(self) -> None:
        self._known: list[tuple[str, Mapping[str, Any]]] = []

    def label(self, environment: Mapping[str, Any]) -> str:
        """Return the label of the environment (the content of environment.json) that this one is comparable with.

        What makes two comparable is decided by `hfbench.compare.changes`, as for a comparison of two commits.
        """
        for label, known in self._known:
            if not environment_differences(known, environment):
                return label
        label = self._new_label(environment)
        self._known.append((label, environment))
        return label

    def _new_label(self, environment: Mapping[str, Any]) -> str:
        machine = machine_text(environment)
        alike = [known for label, known in self._known if label == machine or label.startswith(f"{machine} #")]
        if not alike:
            return machine
        # Equal at first sight: what tells them apart is in the details.
        differences = environment_differences(alike[0], environment)
        told = [difference.sentence for difference in differences[:_MOST_TOLD]]
        more = ["and more"] if len(differences) > _MOST_TOLD else []
        return f"{machine} #{len(alike) + 1} ({', '.join([*told, *more])})"


def machine_text(environment: Mapping[str, Any]) -> str:
    """Return processor, cores, memory and accelerators from the content of environment.json."""
    cpu, memory, system = (environment.get(part) or {} for part in ("cpu", "memory", "system"))
    cores = system.get("cpu_limit_cores") or cpu.get("available_logical_cores") or cpu.get("logical_cores")
    accelerators = [str(each.get("name")) for each in environment.get("accelerators") or ()]
    parts = [
        cpu.get("brand"),
        f"{cores} cores" if cores else None,
        f"{memory['total_gib']} GiB" if memory.get("total_gib") else None,
        *(f"{accelerators.count(name)} × {name}" for name in dict.fromkeys(accelerators)),
    ]
    return ", ".join(part for part in parts if part) or _UNKNOWN


_TABLES = "results/tables"  # as dvc.yaml names it
_LOCK = "dvc.lock"
_RANGE = ".."


@dataclass(frozen=True)
class Candidate:
    """A commit, or the workspace (`revision` None), by the name that `read_side` takes.

    `named` says that the user asked for it by name, so that a commit without results is an error; `results` is what
    tells one content of its tables from another, None where they are not in git or dvc.lock.
    """

    name: str
    revision: Revision | None
    named: bool
    results: str | None


def is_history(names: Sequence[str]) -> bool:
    """Return whether these names ask for a history: three and more, or a range `A..B`."""
    return len(names) > 2 or any(map(is_range, names))


def is_range(name: str) -> bool:
    """Return whether the name is a range of commits; what begins with . / or ~ is a path."""
    return _RANGE in name and not name.startswith((".", "/", "~"))


def find_candidates(names: Sequence[str], folder: Path) -> list[Candidate]:
    """Return the commits that these names mean, each once, in commit order, the workspace last.

    A range `A..B` means A and every commit from there to B (HEAD where B is left out), along the first parents: merged
    branches count as their merge. Order is that of `git rev-list --date-order`: no commit stands before its parents,
    and else the earlier one comes first. Raises `UserError` for an unknown name and for a range whose start is no
    ancestor of its end.
    """
    by_name = [name for name in names if name != WORKSPACE and not is_range(name)]
    asked = {_resolved(name, folder).commit: name for name in reversed(by_name)}
    commits = set(asked)
    for name in filter(is_range, names):
        commits.update(_range(name, folder))
    ordered = _in_order(commits, folder)
    results = _results(ordered, folder)
    candidates = []
    for commit in ordered:
        revision = resolve_revision(commit, folder) if commit in asked or results[commit] else None
        candidates.append(Candidate(asked.get(commit, commit), revision, commit in asked, results[commit]))
    if WORKSPACE in names:
        candidates.append(Candidate(WORKSPACE, None, True, None))
    return candidates


def _resolved(name: str, folder: Path) -> Revision:
    revision = None if name.startswith((".", "/", "~")) else resolve_revision(name, folder)
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
    if git(folder, "merge-base", "--is-ancestor", start, end) is None:
        raise UserError(
            f"{start_name} is no ancestor of {end_name or 'HEAD'}, so {name} is no line of commits. "
            "Give the commits by name, or a range that begins where the branches parted."
        )
    listed = git(folder, "rev-list", "--first-parent", f"{start}..{end}") or ""
    return [start, *listed.split()]


def _in_order(commits: Iterable[str], folder: Path) -> list[str]:
    wanted = set(commits)
    if not wanted:
        return []
    listed = (git(folder, "rev-list", "--date-order", "--reverse", *wanted) or "").split()
    return [commit for commit in listed if commit in wanted]


def _results(commits: Sequence[str], folder: Path) -> dict[str, str | None]:
    """Return what identifies the content of each commit's tables, by dvc.lock or, where git holds them, by git."""
    prefix = git(folder, "rev-parse", "--show-prefix") or ""
    objects = _objects([f"{commit}:{prefix}{name}" for commit in commits for name in (_LOCK, _TABLES)], folder)
    locks = {lock: _locked_tables(git(folder, "cat-file", "blob", lock) or "") for lock in set(objects[::2]) if lock}
    pairs = zip(commits, objects[::2], objects[1::2], strict=True)
    return {commit: (locks[lock] if lock else None) or tables for commit, lock, tables in pairs}


def _objects(names: Sequence[str], folder: Path) -> list[str | None]:
    """Return the object that git has under each name, in one call for thousands of them."""
    result = subprocess.run(
        ["git", "-C", str(folder), "cat-file", "--batch-check=%(objectname)"],
        input="".join(f"{name}\n" for name in names),
        capture_output=True,
        text=True,
        check=True,
    )
    return [None if line.endswith(" missing") else line for line in result.stdout.splitlines()]


def _locked_tables(lock: str) -> str | None:
    """Return the hash of the tables in the text of a dvc.lock.

    Found by their place in the text: parsed as YAML, the dvc.lock of 400 points takes seconds.
    """
    stages = re.split(r"^  (?=\S)", lock, flags=re.MULTILINE)
    for stage in stages:
        outputs = stage.partition("\n    outs:\n")[2]
        found = re.search(rf"^    - path: {_TABLES}\n((?:      .*\n?)+)", outputs, re.MULTILINE)
        md5 = found and re.search(r"^      md5: (\S+)", found[1], re.MULTILINE)
        if md5:
            return md5[1]
    return None
