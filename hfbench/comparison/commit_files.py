"""DVC's view of a commit, opened without reading what a comparison has no use for."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hfbench.comparison.revisions import git

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
