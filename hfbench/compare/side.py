"""One side of a comparison: the tables of a git revision, of the workspace or of a folder, and what made them."""

import difflib
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import yaml

from hfbench.core.errors import UserError
from hfbench.core.point import AXES, CONFIGURATION_AXES, USUAL
from hfbench.core.results import RESULTS, TABLES
from hfbench.git import find_commit, prefix_of, references, try_git
from hfbench.params.schema import parse_yaml
from hfbench.tables.agreement import AGREEMENT_TYPES
from hfbench.tables.facts import FACT_TYPES
from hfbench.tables.metrics import AXIS_COLUMNS
from hfbench.tables.store import parse_filter

WORKSPACE = "workspace"
LOCK = "dvc.lock"
_AXES_OF = {
    "samples": AXES,
    "summary": CONFIGURATION_AXES,
    "points": AXES,
    "configurations": CONFIGURATION_AXES,
}
_UNREAD = ("token_seconds",)  # nine tenths of the samples' bytes, from which the columns beside it are computed
_POINT_TYPES = {**FACT_TYPES, **AGREEMENT_TYPES}
_PATH_STARTS = (".", "/", "~")
_WORKSPACE_REMEDY = "Run `dvc repro` to make the workspace's results, or name a revision that has some."
_FOLDER_REMEDY = (
    "Expected a folder with tables/samples.parquet, summary.parquet, points.parquet and configurations.parquet."
)


@dataclass(frozen=True)
class Side:
    """What was measured at one revision, in the workspace, or elsewhere.

    `label` is the name by which it was asked for; `revision` the full commit, None for the workspace and for a folder.
    The tables are those of `hfbench.tables.build.Tables`, the samples without `token_seconds`; a column that the
    hfbench of that revision did not know is null. `manifests` are by model name; `notes` say what to beware of.
    """

    label: str
    revision: str | None
    committed_at: datetime | None
    subject: str | None
    samples: pl.DataFrame
    summary: pl.DataFrame
    points: pl.DataFrame
    configurations: pl.DataFrame
    environment: dict[str, Any]
    manifests: dict[str, dict[str, Any]]
    params: dict[str, Any]
    notes: tuple[str, ...] = ()

    def filtered(self, condition: str, axes: Collection[str] = AXES) -> "Side":
        """Return the side with the points that a filter over these axes keeps. Raises `UserError` for a wrong one."""
        kept = self.points.filter(parse_filter(condition, axes)).select(AXES).unique()
        tables: dict[str, Any] = {}
        for name, keys in _AXES_OF.items():
            table: pl.DataFrame = getattr(self, name)
            tables[name] = table.join(kept.select(keys).unique(), on=keys, how="semi", maintain_order="left")
        return replace(self, **tables)

    def with_axis(self, axis: str, value: Any, stands_for: Any) -> "Side":
        """Return the points whose `axis` is `value`, called `stands_for`, so that they pair with those of it."""
        renamed = pl.lit(stands_for, dtype=self.points.schema[axis]).alias(axis)
        tables: dict[str, Any] = {
            name: getattr(self, name).filter(pl.col(axis) == value).with_columns(renamed) for name in _AXES_OF
        }
        return replace(self, label=f"{axis}={value}", **tables)


def read_side(name: str, folder: Path = Path()) -> Side:
    """Return the side called `name` in the project in `folder`.

    `name` is `workspace`, a git revision, a DVC experiment, or a folder with tables/*.parquet, tried in this order; a
    path that begins with ./ or / is always a folder. Tables of a revision come from DVC's cache or remote, through
    `dvc.api`. Raises `UserError` where the name is unknown or has no results.
    """
    if name == WORKSPACE:
        side = _read(name, None, _FolderFiles(folder, folder / RESULTS, _WORKSPACE_REMEDY))
        return replace(side, notes=_stale_notes(side.points, side.params))
    revision = None if is_path(name) else resolve_revision(name, folder)
    if revision is not None:
        return _read(name, revision, _RevisionFiles(folder, name, revision))
    path = folder / Path(name).expanduser()
    if (path / "tables").is_dir():
        return _read(name, None, _FolderFiles(path, path, _FOLDER_REMEDY))
    raise unknown_name(name, folder)


def is_path(name: str) -> bool:
    """Return whether the name of a side can only be a folder."""
    return name.startswith(_PATH_STARTS)


def _stale_notes(points: pl.DataFrame, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence where the sweep in params.yaml is not the one that was measured.

    This is a quick look at the sweep; `dvc status` knows everything else that could be out of date.
    """
    sweep = params.get("sweep")
    if not isinstance(sweep, Mapping) or not all(isinstance(sweep.get(axis), list) for axis in AXES):
        return ()
    listed = [each for each in params.get("configurations") or () if isinstance(each, Mapping)]
    has_product = all(sweep[axis] for axis in AXES)
    changed = [
        axis
        for axis in AXES
        if {*(sweep[axis] if has_product or axis == "round" else ()), *(each[axis] for each in listed if axis in each)}
        != set(points[axis].unique())
    ]
    if not changed:
        return ()
    keys = ", ".join(f"sweep.{axis}" for axis in changed)
    return (f"The workspace's results are older than params.yaml: {keys} changed since. Run `dvc repro`.",)


# DVC keeps an experiment at refs/exps/AB/CDEF…/NAME, with the commit that it started from in the middle. Where it keeps
# what it is doing, the names have fewer levels.
_EXPERIMENTS = "refs/exps/"
_EXPERIMENT_LEVELS = 5


@dataclass(frozen=True)
class NamedCommit:
    """What a name stands for: the full hash of the commit, when it was committed, and the first line of its message."""

    commit: str
    committed_at: datetime
    subject: str
    is_experiment: bool = False


def resolve_revision(name: str, folder: Path) -> NamedCommit | None:
    """Return the commit that git or, failing that, DVC's experiments call `name`; None where there is none.

    Raises `UserError` where several experiments have the name and none of them started from HEAD.
    """
    named = find_commit(folder, name)
    commit = named or _experiment(name, folder)
    if commit is None:
        return None
    committed_at, _, subject = (try_git(folder, "show", "--no-patch", "--format=%cI%n%s", commit) or "").partition("\n")
    return NamedCommit(commit, datetime.fromisoformat(committed_at), subject.strip(), is_experiment=named is None)


def unknown_name(name: str, folder: Path) -> UserError:
    """Return the error that says what `name` could have been."""
    if try_git(folder, "rev-parse", "--git-dir") is None:
        what, hint = "no folder that holds tables, and here is no git repository", "Run this in the project's folder."
    else:
        what = "no git revision, no DVC experiment and no folder that holds tables"
        named = (each.split("/", 2)[2] for each in references(folder, "refs/heads", "refs/tags", "refs/remotes"))
        experiments = (each.rpartition("/")[2] for each in _experiments(folder))
        close = difflib.get_close_matches(name, [*named, *experiments, "HEAD", WORKSPACE], n=3)
        hint = "`git log --oneline` and `dvc exp list` show what there is."
        hint = f"Did you mean {' or '.join(close)}?" if close else hint
    return UserError(f"{name!r} is {what}. {hint}")


def _experiment(name: str, folder: Path) -> str | None:
    found = {ref: commit for ref, commit in _experiments(folder).items() if ref.rpartition("/")[2] == name}
    if len(found) > 1:
        head = find_commit(folder, "HEAD") or ""
        found = {ref: commit for ref, commit in found.items() if "".join(ref.split("/")[2:4]) == head} or found
    if len(found) > 1:
        commits = " or ".join(commit[:12] for commit in found.values())
        raise UserError(f"{name!r} is the name of {len(found)} DVC experiments. Name one by its commit: {commits}.")
    return next(iter(found.values()), None)


def _experiments(folder: Path) -> dict[str, str]:
    found = references(folder, _EXPERIMENTS)
    return {ref: commit for ref, commit in found.items() if len(ref.split("/")) == _EXPERIMENT_LEVELS}


class _FolderFiles:
    """Files on this machine. `root` is the folder of params.yaml and `results` that of the results, in its paths."""

    def __init__(self, root: Path, results: Path, remedy: str) -> None:
        self.root = str(root)
        self.results = str(results)
        self._remedy = remedy

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises `FileNotFoundError` where there is none."""
        return Path(path).read_bytes()

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no such folder."""
        return [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []

    def missing(self, path: str) -> UserError:
        """Return the error for a file that should be there: what to run to make it."""
        return UserError(f"{path} does not exist. {self._remedy}")


class _RevisionFiles:
    """Files at a commit, as `_FolderFiles` has them: from git, and those of DVC from its cache, or else its remote.

    Raises `UserError` where DVC cannot read the commit.
    """

    def __init__(self, folder: Path, name: str, revision: NamedCommit) -> None:
        from dvc.exceptions import DvcException

        # DVC's paths at a revision begin at the top of the git repository.
        prefix = prefix_of(folder)
        self.root = prefix.rstrip("/") or "."
        self.results = f"{prefix}{RESULTS}"
        commit = revision.commit
        self._called = name if name.startswith(commit[:7]) else f"{name} ({commit[:7]})"
        take = f"dvc exp apply {name} && " if revision.is_experiment else f"git checkout {name} && "
        self._make = f"{'' if name == 'HEAD' else take}dvc repro"
        try:
            self._files = _open_commit(folder, commit, prefix)
            self._files.exists("dvc.yaml")  # opens the repository
        except DvcException as error:
            raise UserError(f"DVC cannot read {self._called}: {error}.") from None

    def read(self, path: str) -> bytes:
        """See `_FolderFiles`. Raises `UserError` where DVC knows the file, and neither cache nor remote has it."""
        with suppress(*_unreadable()):
            if self._files.isfile(path):
                with self._files.open(path, mode="rb") as file:
                    content: bytes = file.read()
                    return content
        if not self._was_made(path):
            raise FileNotFoundError(path)
        raise UserError(
            f"{self._called} has results, but {path} is neither in DVC's cache nor in a remote. `dvc pull` gets it "
            f"where a remote holds it; else make it again: `{self._make}`."
        )

    def names(self, folder: str) -> list[str]:
        """See `_FolderFiles`."""
        if not self._files.isdir(folder):
            return []
        return [str(path).rsplit("/", 1)[-1] for path in self._files.ls(folder, detail=False)]

    def missing(self, path: str) -> UserError:
        """See `_FolderFiles`."""
        return UserError(
            f"{self._called} has no results: {path} is not in it. To make them: `{self._make}`, then commit dvc.lock."
        )

    def _was_made(self, path: str) -> bool:
        """Whether DVC has a hash of the file, or of the folder that it lies in, of which no more may be known."""
        for known in (path, path.rpartition("/")[0]):
            with suppress(*_unreadable()):
                if self._files.info(known).get("md5"):
                    return True
        return False


_Files: TypeAlias = _FolderFiles | _RevisionFiles


def _unreadable() -> tuple[type[Exception], ...]:
    """Return what DVC raises for a file that is not there, in git, cache or remote."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    return (DvcException, DataIndexDirError, OSError)


def _open_commit(folder: Path, commit: str, prefix: str) -> Any:
    """Return the `dvc.api.DVCFileSystem` of a commit, whose paths begin at the top of the git repository.

    DVC takes five seconds to read a dvc.lock of a thousand stages; so, where the project is at the top and the file as
    DVC writes it, DVC is given only the tables of it. Raises `DvcException` where DVC cannot read the commit.
    """
    from dvc.api import DVCFileSystem
    from dvc.output import loadd_from
    from dvc.repo import Repo
    from dvc.repo.index import Index
    from dvc.stage import Stage

    with Repo(str(folder), uninitialized=True) as here:  # the remote that the commit names may be gone
        remote = here.config["core"].get("remote")
    config = {"core": {"remote": remote}} if remote else {}
    tables = None if prefix else locked_tables(try_git(folder, "show", f"{commit}:{LOCK}") or "")
    if tables is None:
        return DVCFileSystem(str(folder), rev=commit, subrepos=bool(prefix), config=config)
    repo = Repo.open(str(folder), rev=commit, config=config)
    stage = Stage(repo, path="dvc.yaml", wdir="/")
    stage.outs = loadd_from(stage, [tables])
    repo.index = Index(repo, stages=[stage])
    return DVCFileSystem(repo=repo)


def locked_tables(lock: str) -> dict[str, Any] | None:
    """Return what the text of a dvc.lock says of the tables, whatever the stage's name: `path`, `md5`, `size`.

    None where it has none, or is not as DVC writes it. Of the file only the stage that makes them is parsed: even with
    libyaml, all of it would take half a second for 400 points, at each commit.
    """
    for stage in re.split(r"^  (?=\S)", lock, flags=re.MULTILINE):
        if f"- path: {TABLES}\n" in stage.partition("\n    outs:\n")[2]:
            content = yaml.load(stage, yaml.CSafeLoader)
            outs = [out for made in content.values() if isinstance(made, dict) for out in made.get("outs") or ()]
            return next((out for out in outs if out.get("path") == str(TABLES)), None)
    return None


def _read(label: str, revision: NamedCommit | None, files: _Files) -> Side:
    names = sorted(name for name in files.names(f"{files.results}/models") if name.endswith(".json"))
    tables: dict[str, Any] = {name: _table(files, name) for name in _AXES_OF}
    return Side(
        label=label,
        revision=revision.commit if revision else None,
        committed_at=revision.committed_at if revision else None,
        subject=revision.subject if revision else None,
        **tables,
        environment=_json(files, f"{files.results}/environment.json"),
        manifests={name.removesuffix(".json"): _json(files, f"{files.results}/models/{name}") for name in names},
        params=_params(files),
    )


def _table(files: _Files, name: str) -> pl.DataFrame:
    """Return a table with all that this hfbench knows of. Raises `UserError` where it is missing, broken or foreign."""
    path = f"{files.results}/tables/{name}.parquet"
    try:
        content = BytesIO(files.read(path))
    except FileNotFoundError:
        raise files.missing(path) from None
    try:
        columns = [column for column in pl.read_parquet_schema(content) if column not in _UNREAD]
        content.seek(0)
        table = pl.read_parquet(content, columns=columns)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no readable table ({error}). Make it again.") from None
    absent = [axis for axis in _AXES_OF[name] if axis not in columns]
    # An axis that has come since: what ran then ran as is usual now.
    usual = (pl.lit(USUAL[axis], dtype=AXIS_COLUMNS[axis]).alias(axis) for axis in absent if axis in USUAL)
    table = table.with_columns(usual)
    if missing := [axis for axis in absent if axis not in USUAL]:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: it is of another version of hfbench. Make it again with this "
            "one."
        )
    if name == "points":
        unknown = {column: dtype for column, dtype in _POINT_TYPES.items() if column not in columns}
        table = table.with_columns(pl.lit(None, dtype=dtype).alias(column) for column, dtype in unknown.items())
    return table


def _params(files: _Files) -> dict[str, Any]:
    """Return what params.yaml holds, or else params.json; empty where there is neither."""
    path = f"{files.root}/params.yaml"
    try:
        content = parse_yaml(files.read(path), path)
    except FileNotFoundError:
        return _json(files, f"{files.root}/params.json")
    return content if isinstance(content, dict) else {}


def _json(files: _Files, path: str) -> dict[str, Any]:
    """Return what a JSON file holds, empty where there is none. Raises `UserError` for a broken one."""
    try:
        content = json.loads(files.read(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Make it again.") from None
    return content if isinstance(content, dict) else {}
