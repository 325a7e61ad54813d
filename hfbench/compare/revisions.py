"""What a side's name means to git: a commit, by any name that git or DVC has for it."""

import difflib
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hfbench.core.errors import UserError

# DVC keeps an experiment at refs/exps/AB/CDEF…/NAME, with the commit that it started from in the middle. Where it keeps
# what it is doing, the names have fewer levels.
_EXPERIMENTS = "refs/exps/"
_EXPERIMENT_LEVELS = 5


@dataclass(frozen=True)
class Revision:
    """A commit: its full hash, when it was committed, and the first line of its message."""

    commit: str
    committed_at: datetime
    subject: str
    is_experiment: bool = False


def resolve_revision(name: str, folder: Path) -> Revision | None:
    """Return the commit that git or, failing that, DVC's experiments call `name`; None where there is none.

    Raises `UserError` where several experiments have the name and none of them started from HEAD.
    """
    named = _commit(name, folder)
    commit = named or _experiment(name, folder)
    if commit is None:
        return None
    committed_at, _, subject = (git(folder, "show", "--no-patch", "--format=%cI%n%s", commit) or "").partition("\n")
    return Revision(commit, datetime.fromisoformat(committed_at), subject.strip(), is_experiment=named is None)


def unknown_name(name: str, folder: Path) -> UserError:
    """Return the error that says what `name` could have been."""
    if git(folder, "rev-parse", "--git-dir") is None:
        what, hint = "no folder that holds tables, and here is no git repository", "Run this in the project's folder."
    else:
        what = "no git revision, no DVC experiment and no folder that holds tables"
        close = difflib.get_close_matches(name, [*_names(folder), "workspace"], n=3)
        hint = "`git log --oneline` and `dvc exp list` show what there is."
        hint = f"Did you mean {' or '.join(close)}?" if close else hint
    return UserError(f"{name!r} is {what}. {hint}")


def git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where it is missing or fails."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.rstrip("\n") if result.returncode == 0 else None


def _commit(name: str, folder: Path) -> str | None:
    # A name that begins with a hyphen would be an option.
    if name.startswith("-"):
        return None
    return git(folder, "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}") or None


def _experiment(name: str, folder: Path) -> str | None:
    found = [(ref, commit) for ref, commit in _experiments(folder) if ref.rsplit("/", 1)[-1] == name]
    if len(found) > 1:
        head = _commit("HEAD", folder) or ""
        found = [(ref, commit) for ref, commit in found if "".join(ref.split("/")[2:4]) == head] or found
    if len(found) > 1:
        commits = " or ".join(commit[:12] for _, commit in found)
        raise UserError(f"{name!r} is the name of {len(found)} DVC experiments. Name one by its commit: {commits}.")
    return found[0][1] if found else None


def _experiments(folder: Path) -> list[tuple[str, str]]:
    lines = (git(folder, "for-each-ref", "--format=%(refname) %(objectname)", _EXPERIMENTS) or "").splitlines()
    pairs = [line.split(" ") for line in lines]
    return [(ref, commit) for ref, commit in pairs if len(ref.split("/")) == _EXPERIMENT_LEVELS]


def _names(folder: Path) -> list[str]:
    branches = git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes") or ""
    return [*branches.splitlines(), *(ref.rsplit("/", 1)[-1] for ref, _ in _experiments(folder)), "HEAD"]


_LOCK, _STAGE, _TABLES = "dvc.lock", "aggregate", "results/tables"  # as dvc.yaml names them


def open_commit(folder: Path, commit: str, below_top: str) -> Any:
    """Return the `dvc.api.DVCFileSystem` of a commit, whose paths begin at the top of the git repository.

    `below_top` is where the project lies in it, empty for the top. DVC takes five seconds to read a dvc.lock of a
    thousand stages; so, where the file is as DVC writes it, only the stage that makes the tables is cut out of it.
    Raises `DvcException` where DVC cannot read the commit.
    """
    from dvc.api import DVCFileSystem

    config = _remote(folder)
    outs = _tables_in(git(folder, "show", f"{commit}:{_LOCK}") or "") if not below_top else []
    if not outs:
        return DVCFileSystem(str(folder), rev=commit, subrepos=bool(below_top), config=config)
    from dvc.output import loadd_from
    from dvc.repo import Repo
    from dvc.repo.index import Index
    from dvc.stage import Stage

    repo = Repo.open(str(folder), rev=commit, config=config)
    stage = Stage(repo, path="dvc.yaml", wdir="/")
    stage.outs = loadd_from(stage, outs)
    repo.index = Index(repo, stages=[stage])
    return DVCFileSystem(repo=repo)


def _remote(folder: Path) -> dict[str, Any]:
    """Return the default remote of now: the one that the commit names, if any, may be gone."""
    from dvc.repo import Repo

    with Repo(str(folder), uninitialized=True) as repo:
        name = repo.config["core"].get("remote")
    return {"core": {"remote": name}} if name else {}


def _tables_in(lock: str) -> list[dict[str, Any]]:
    """Return the tables as a dvc.lock has them; nothing where it has none, or is not as DVC writes it."""
    lines = lock.splitlines()
    start = f"  {_STAGE}:"
    if start not in lines:
        return []
    first = lines.index(start) + 1
    last = next((place for place in range(first, len(lines)) if not lines[place].startswith("   ")), len(lines))
    content = YAML(typ="safe").load("\n".join(lines[first:last]))
    outs = content.get("outs", []) if isinstance(content, dict) else []
    return [out for out in outs if out.get("path") == _TABLES]
