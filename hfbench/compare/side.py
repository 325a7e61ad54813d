"""One side of a comparison: the tables of a git revision, of the workspace or of a folder, and what made them."""

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from hfbench.compare.revisions import Revision, git, open_commit, resolve_revision, unknown_name
from hfbench.core.errors import UserError
from hfbench.core.point import AXES, CONFIGURATION_AXES, USUAL
from hfbench.tables.agreement import AGREEMENT_TYPES
from hfbench.tables.facts import FACT_TYPES
from hfbench.tables.metrics import AXIS_COLUMNS

_REMEDY = "Run `dvc repro`."


def stale_notes(points: pl.DataFrame, params: Mapping[str, Any]) -> tuple[str, ...]:
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
    return (f"The workspace's results are older than params.yaml: {keys} changed since. {_REMEDY}",)


class Files(Protocol):
    """The files of one side. `root` is the folder of params.yaml and `results` that of the results, in its paths."""

    root: str
    results: str

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises `FileNotFoundError` where there is none."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no such folder."""

    def missing(self, path: str) -> UserError:
        """Return the error for a file that should be there: what to run to make it."""


class FolderFiles:
    """Files on this machine."""

    def __init__(self, root: Path, results: Path, remedy: str) -> None:
        self.root = str(root)
        self.results = str(results)
        self._remedy = remedy

    def read(self, path: str) -> bytes:
        """See `Files`."""
        return Path(path).read_bytes()

    def names(self, folder: str) -> list[str]:
        """See `Files`."""
        return [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []

    def missing(self, path: str) -> UserError:
        """See `Files`."""
        return UserError(f"{path} does not exist. {self._remedy}")


class RevisionFiles:
    """Files at a commit: those in git from git, those of DVC from its cache, or else its remote."""

    def __init__(self, folder: Path, results: str, name: str, commit: str, is_experiment: bool) -> None:
        # DVC's paths at a revision begin at the top of the git repository.
        prefix = (git(folder, "rev-parse", "--show-prefix") or "").rstrip("/")
        self.root = prefix or "."
        self.results = f"{prefix}/{results}" if prefix else results
        self._called = name if name.startswith(commit[:7]) else f"{name} ({commit[:7]})"
        take = "" if name == "HEAD" else f"dvc exp apply {name} && " if is_experiment else f"git checkout {name} && "
        self._make = f"{take}dvc repro"
        self._files = _open(folder, commit, prefix, self._called)

    def read(self, path: str) -> bytes:
        """See `Files`. Raises `UserError` where DVC knows the file, and neither cache nor remote has it."""
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
        """See `Files`."""
        if not self._files.isdir(folder):
            return []
        return [str(path).rsplit("/", 1)[-1] for path in self._files.ls(folder, detail=False)]

    def missing(self, path: str) -> UserError:
        """See `Files`."""
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


def _unreadable() -> tuple[type[Exception], ...]:
    """Return what DVC raises for a file that is not there, in git, cache or remote."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    return (DvcException, DataIndexDirError, OSError)


def _open(folder: Path, commit: str, below_top: str, called: str) -> Any:
    from dvc.exceptions import DvcException

    try:
        files = open_commit(folder, commit, below_top)
        files.exists("dvc.yaml")  # opens the repository
    except DvcException as error:
        raise UserError(f"DVC cannot read {called}: {error}.") from None
    return files


def read_table(files: Files, name: str, without: Collection[str] = ()) -> pl.DataFrame:
    """Return a table of the results, without these columns. Raises `UserError` where it is missing or broken."""
    path = f"{files.results}/tables/{name}.parquet"
    try:
        content = BytesIO(files.read(path))
    except FileNotFoundError:
        raise files.missing(path) from None
    try:
        columns = [column for column in pl.read_parquet_schema(content) if column not in without]
        content.seek(0)
        return pl.read_parquet(content, columns=columns)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no readable table ({error}). Make it again.") from None


def read_mapping(files: Files, name: str) -> dict[str, Any]:
    """Return what a JSON file of the results holds, empty where there is none. Raises `UserError` for a broken one."""
    return _json(files, f"{files.results}/{name}")


def read_mappings(files: Files, folder: str) -> dict[str, dict[str, Any]]:
    """Return what each JSON file in a folder of the results holds, by its name without suffix."""
    names = sorted(name for name in files.names(f"{files.results}/{folder}") if name.endswith(".json"))
    return {name.removesuffix(".json"): read_mapping(files, f"{folder}/{name}") for name in names}


def read_params(files: Files) -> dict[str, Any]:
    """Return what params.yaml holds, or else params.json; empty where there is neither. Raises `UserError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = f"{files.root}/params.yaml"
    try:
        content = YAML(typ="safe").load(files.read(path).decode())
    except FileNotFoundError:
        return _json(files, f"{files.root}/params.json")
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    return content if isinstance(content, dict) else {}


def _json(files: Files, path: str) -> dict[str, Any]:
    try:
        content = json.loads(files.read(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Make it again.") from None
    return content if isinstance(content, dict) else {}


WORKSPACE = "workspace"
_RESULTS = "results"
_UNREAD = ("token_seconds",)  # nine tenths of the samples' bytes, from which the columns beside it are computed
_POINT_TYPES = {**FACT_TYPES, **AGREEMENT_TYPES}
_PATH_STARTS = ("./", "../", "/", "~")
_TABLES_REMEDY = (
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
    ceilings: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_side(name: str, folder: Path = Path()) -> Side:
    """Return the side called `name` in the project in `folder`.

    `name` is `workspace`, a git revision, a DVC experiment, or a folder with tables/*.parquet, tried in this order; a
    path that begins with ./ or / is always a folder. Tables of a revision come from DVC's cache or remote, through
    `dvc.api`. Raises `UserError` where the name is unknown or has no results.
    """
    if name == WORKSPACE:
        remedy = "Run `dvc repro` to make the workspace's results, or name a revision that has some."
        side = _read(name, None, FolderFiles(folder, folder / _RESULTS, remedy))
        return replace(side, notes=stale_notes(side.points, side.params))
    revision = None if name.startswith(_PATH_STARTS) else resolve_revision(name, folder)
    if revision is not None:
        files = RevisionFiles(folder, _RESULTS, name, revision.commit, revision.is_experiment)
        return _read(name, revision, files)
    path = folder / Path(name).expanduser()
    if (path / "tables").is_dir():
        return _read(name, None, FolderFiles(path, path, _TABLES_REMEDY))
    raise unknown_name(name, folder)


def _read(label: str, revision: Revision | None, files: Files) -> Side:
    return Side(
        label=label,
        revision=revision.commit if revision else None,
        committed_at=revision.committed_at if revision else None,
        subject=revision.subject if revision else None,
        samples=_table(files, "samples", AXIS_COLUMNS),
        summary=_table(files, "summary", CONFIGURATION_AXES),
        points=_table(files, "points", AXIS_COLUMNS),
        configurations=_table(files, "configurations", CONFIGURATION_AXES),
        environment=read_mapping(files, "environment.json"),
        manifests=read_mappings(files, "models"),
        params=read_params(files),
        ceilings=read_mapping(files, "ceilings.json"),
    )


def _table(files: Files, name: str, axes: Iterable[str]) -> pl.DataFrame:
    table = read_table(files, name, without=_UNREAD)
    absent = [axis for axis in axes if axis not in table.columns]
    # An axis that has come since: what ran then ran as is usual now.
    table = table.with_columns(
        pl.lit(USUAL[axis], dtype=AXIS_COLUMNS[axis]).alias(axis) for axis in absent if axis in USUAL
    )
    if missing := [axis for axis in absent if axis not in USUAL]:
        raise UserError(
            f"{files.results}/tables/{name}.parquet has no column {', '.join(missing)}: it is of another version of "
            "hfbench. Make it again with this one."
        )
    if name == "points":
        unknown = {column: dtype for column, dtype in _POINT_TYPES.items() if column not in table.columns}
        table = table.with_columns(pl.lit(None, dtype=dtype).alias(column) for column, dtype in unknown.items())
    return table
