"""One side of a comparison: the tables of a git revision, of the workspace or of a folder, and what made them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.comparison.contents import read_mapping, read_mappings, read_params, read_table
from hfbench.comparison.revisions import Revision, resolve_revision, unknown_name
from hfbench.comparison.sources import Files, FolderFiles, RevisionFiles
from hfbench.comparison.workspace import stale_notes
from hfbench.foundation.errors import UserError
from hfbench.tables.agreement import AGREEMENT_TYPES
from hfbench.tables.columns import AXIS_TYPES, CONFIGURATION_AXES
from hfbench.tables.record_facts import FACT_TYPES

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
        samples=_table(files, "samples", AXIS_TYPES),
        summary=_table(files, "summary", CONFIGURATION_AXES),
        points=_table(files, "points", AXIS_TYPES),
        configurations=_table(files, "configurations", CONFIGURATION_AXES),
        environment=read_mapping(files, "environment.json"),
        manifests=read_mappings(files, "models"),
        params=read_params(files),
        ceilings=read_mapping(files, "ceilings.json"),
    )


def _table(files: Files, name: str, axes: Iterable[str]) -> pl.DataFrame:
    table = read_table(files, name, without=_UNREAD)
    missing = [axis for axis in axes if axis not in table.columns]
    if missing:
        raise UserError(
            f"{files.results}/tables/{name}.parquet has no column {', '.join(missing)}: it is of another version of "
            "hfbench. Make it again with this one."
        )
    if name == "points":
        unknown = {column: dtype for column, dtype in _POINT_TYPES.items() if column not in table.columns}
        table = table.with_columns(pl.lit(None, dtype=dtype).alias(column) for column, dtype in unknown.items())
    return table
