"""One side of a comparison: the tables of a git revision, of the workspace or of a folder, and what made them."""

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from fsspec.implementations.local import LocalFileSystem  # as DVC's file systems are fsspec's

from hfbench.core.errors import UserError
from hfbench.core.point import AXES, CONFIGURATION_AXES, USUAL, value_text
from hfbench.core.results import RESULTS, TABLES
from hfbench.git import find_commit, prefix_of, references, try_git
from hfbench.params.schema import parse_yaml
from hfbench.tables.agreement import AGREEMENT_TYPES
from hfbench.tables.facts import FACT_TYPES
from hfbench.tables.metrics import AXIS_COLUMNS
from hfbench.tables.store import parse_filter

WORKSPACE = "workspace"
LOCK = "dvc.lock"
_AXES_OF = {"samples": AXES, "summary": CONFIGURATION_AXES, "points": AXES, "configurations": CONFIGURATION_AXES}
# Nine tenths of the samples' bytes, from which the columns beside them are computed.
_UNREAD = ("token_seconds", "arrival_seconds")
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
        tables: dict[str, Any] = {
            name: getattr(self, name).join(kept.select(keys).unique(), on=keys, how="semi", maintain_order="left")
            for name, keys in _AXES_OF.items()
        }
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
        side = _read(name, None, _files_of_folder(folder, folder / RESULTS, _WORKSPACE_REMEDY))
        return replace(side, notes=_stale_notes(side.points, side.params))
    revision = None if is_path(name) else resolve_revision(name, folder)
    if revision is not None:
        return _read(name, revision, _files_of_commit(folder, name, revision))
    path = folder / Path(name).expanduser()
    if (path / "tables").is_dir():
        return _read(name, None, _files_of_folder(path, path, _FOLDER_REMEDY))
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
        if {
            *map(value_text, sweep[axis] if has_product or axis == "round" else ()),
            *(value_text(each[axis]) for each in listed if axis in each),
        }
        != set(map(value_text, points[axis].unique()))
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


@dataclass(frozen=True)
class _Files:
    """The files of a side in `system`, a file system of fsspec that raises `errors` where it cannot read one.

    `root` is the folder of params.yaml and `results` that of the results, in its paths. `absent` and `lost` say what to
    do where a file was never made, and where DVC knows it and neither its cache nor a remote has it.
    """

    system: Any
    root: str
    results: str
    absent: Callable[[str], str]
    lost: Callable[[str], str] = str
    errors: tuple[type[Exception], ...] = (OSError,)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None where there is none. Raises `UserError` where it is lost."""
        with suppress(*self.errors):
            if self.system.isfile(path):
                content: bytes = self.system.cat_file(path)
                return content
        # DVC may know the folder that it lies in, and no more.
        for known in (path, path.rpartition("/")[0]):
            with suppress(*self.errors):
                if self.system.info(known).get("md5"):
                    raise UserError(self.lost(path))
        return None

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no such folder."""
        if not self.system.isdir(folder):
            return []
        return [str(path).rsplit("/", 1)[-1] for path in self.system.ls(folder, detail=False)]


def _files_of_folder(root: Path, results: Path, remedy: str) -> _Files:
    return _Files(LocalFileSystem(), str(root), str(results), lambda path: f"{path} does not exist. {remedy}")


def _files_of_commit(folder: Path, name: str, revision: NamedCommit) -> _Files:
    """Return the files at a commit: from git, and those of DVC from its cache, or else its remote.

    Raises `UserError` where DVC cannot read the commit.
    """
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    prefix, commit = prefix_of(folder), revision.commit  # DVC's paths begin at the top of the git repository
    called = name if name.startswith(commit[:7]) else f"{name} ({commit[:7]})"
    take = f"dvc exp apply {name} && " if revision.is_experiment else f"git checkout {name} && "
    make = f"{'' if name == 'HEAD' else take}dvc repro"
    try:
        system = _open_commit(folder, commit, prefix)
        system.exists("dvc.yaml")  # opens the repository
    except DvcException as error:
        raise UserError(f"DVC cannot read {called}: {error}.") from None
    return _Files(
        system,
        prefix.rstrip("/") or ".",
        f"{prefix}{RESULTS}",
        lambda path: f"{called} has no results: {path} is not in it. To make them: `{make}`, then commit dvc.lock.",
        lambda path: (
            f"{called} has results, but {path} is neither in DVC's cache nor in a remote. `dvc pull` gets it "
            f"where a remote holds it; else make it again: `{make}`."
        ),
        (DvcException, DataIndexDirError, OSError),
    )


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
    params_path = f"{files.root}/params.yaml"
    written = files.read(params_path)
    params = parse_yaml(written, params_path) if written is not None else _json(files, f"{files.root}/params.json")
    tables: dict[str, Any] = {name: _table(files, name) for name in _AXES_OF}
    return Side(
        label=label,
        revision=revision.commit if revision else None,
        committed_at=revision.committed_at if revision else None,
        subject=revision.subject if revision else None,
        **tables,
        environment=_json(files, f"{files.results}/environment.json"),
        manifests={name.removesuffix(".json"): _json(files, f"{files.results}/models/{name}") for name in names},
        params=params if isinstance(params, dict) else {},
    )


def _table(files: _Files, name: str) -> pl.DataFrame:
    """Return a table with all that this hfbench knows of. Raises `UserError` where it is missing, broken or foreign."""
    path = f"{files.results}/tables/{name}.parquet"
    if (content := files.read(path)) is None:
        raise UserError(files.absent(path))
    try:
        columns = [column for column in pl.read_parquet_schema(BytesIO(content)) if column not in _UNREAD]
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


def _json(files: _Files, path: str) -> dict[str, Any]:
    """Return what a JSON file holds, empty where there is none. Raises `UserError` for a broken one."""
    written = files.read(path)
    try:
        content = {} if written is None else json.loads(written)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Make it again.") from None
    return content if isinstance(content, dict) else {}
