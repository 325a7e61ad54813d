"""The results at any moment: those of the last run while nothing is newer, or else those of what is measured so far."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.point import AXES, Configuration
from hfbench.core.results import CEILINGS, ENVIRONMENT, MEASUREMENTS, PARAMS, TABLES, record_path
from hfbench.params.schema import Params, load_params
from hfbench.report.frames import Results, read_results
from hfbench.report.html import read_ceilings
from hfbench.report.words import counted
from hfbench.tables.build import build_tables
from hfbench.tables.facts import start_time
from hfbench.tables.reading import ReadRecord, read_records
from hfbench.tables.store import point_label, read_table

_MOST_NAMED = 3  # points that are missing


@dataclass(frozen=True)
class SoFar:
    """What is known now; `note` says what is missing of what params.yaml asks for, and is empty where nothing is."""

    results: Results
    samples: pl.DataFrame
    note: str = ""


def read_so_far(tables: Path = TABLES) -> SoFar:
    """Return the results as they are now, be it during a run or after one that was interrupted.

    Other tables than the pipeline's are read as they are. Raises `UserError` where nothing is measured.
    """
    if tables != TABLES or not PARAMS.exists():
        return SoFar(read_results(tables), read_table(tables, "samples"))
    params = load_params(PARAMS)
    points = params.points()
    if _is_up_to_date(points):
        return SoFar(read_results(tables), read_table(tables, "samples"))
    records = read_records(MEASUREMENTS, points, may_lack=True) if MEASUREMENTS.exists() else []
    if not records:
        many = counted(len(points), "point")
        raise UserError(f"nothing is measured yet of the {many} in {PARAMS}. Run `dvc repro`.")
    built = build_tables(records, read_ceilings(CEILINGS), params.limits)
    results = Results(built.summary, built.points, built.configurations, built.warnings)
    return SoFar(results, built.samples, _note(points, records, params))


def _is_up_to_date(points: Sequence[Configuration]) -> bool:
    """Return whether the tables hold just these points, and no record is newer, or gone to be measured again.

    Where none is there, DVC holds them elsewhere.
    """
    path = TABLES / "points.parquet"
    if not path.exists():
        return False
    try:
        known = pl.read_parquet(path, columns=list(AXES))
    except pl.exceptions.PolarsError:  # of another version of hfbench, or cut off
        return False
    if set(known.rows()) != {tuple(vars(point).values()) for point in points}:
        return False
    times = [record.stat().st_mtime for record in map(record_path, points) if record.exists()]
    return not times or (len(times) == len(points) and max(times) <= path.stat().st_mtime)


def _note(points: Sequence[Configuration], records: Sequence[ReadRecord], params: Params) -> str:
    environment = hashlib.sha256(ENVIRONMENT.read_bytes()).hexdigest() if ENVIRONMENT.exists() else None
    asked = params.sampling.model_dump()
    settings = ((each.sampling, each.facts["device"], each.facts["environment_sha256"]) for each in records)
    older = sum(each != (asked, params.device, environment) for each in settings)
    started = [time for each in records if (time := start_time(each.facts["started_at"])) is not None]
    ago = f", the last one begun {ago_text(datetime.now(UTC) - max(started))} ago" if started else ""
    present = {each.configuration for each in records}
    missing = [f"{point_label(vars(each), AXES)} in round {each.round}" for each in points if each not in present]
    told = [f"So far: {len(records)} of {counted(len(points), 'point')} measured{ago}"]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        told.append(f"missing: {', '.join(missing[:_MOST_NAMED])}{more}")
    if older:
        told.append(f"{older} from an earlier run, under other settings or on another machine")
    return f"{'; '.join(told)}. `dvc repro` goes on with them."


def ago_text(time: timedelta) -> str:
    """Return a time that has passed in its largest unit: 40 seconds, 3 minutes, 2 hours, 5 days."""
    seconds = max(0, int(time.total_seconds()))
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return counted(seconds // length, name)
    return counted(seconds, "second")
