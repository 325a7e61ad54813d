"""Reads the measurement records of the current sweep, each reduced to its facts and a frame of its iterations."""

import dataclasses
import gc
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic_core import from_json

from hfbench.core.errors import UserError
from hfbench.core.files import read_json
from hfbench.core.point import AXES, Configuration
from hfbench.core.record import SCHEMA_VERSION, Record, require_version
from hfbench.tables.agreement import Output
from hfbench.tables.facts import record_facts
from hfbench.tables.metrics import PHASE

ITERATION_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "phase": PHASE,
    "observed": pl.Boolean,
    "start_seconds": pl.Float64,
    "end_to_end_seconds": pl.Float64,
    "call_seconds": pl.Float64,
    "token_seconds": pl.List(pl.List(pl.Float64)),
    "arrival_seconds": pl.List(pl.Float64),
}
_RECORD_KEYS = {field.name for field in dataclasses.fields(Record)}


@dataclass(frozen=True)
class ReadRecord:
    """A record as the tables need it: `facts` are plain values, `iterations` a row each with `ITERATION_TYPES`.

    `timeline` has the seconds of each entry under the name of its column. `needs` is the record's `accounting`, empty
    where it has none, and `sampling` how it was to be measured. A `Record` would make a Python object of each token's
    time, of which there are millions.
    """

    configuration: Configuration
    facts: dict[str, Any]
    timeline: dict[str, float]
    iterations: pl.DataFrame
    output: Output
    needs: dict[str, Any]
    sampling: dict[str, Any]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's cycle collector from looking again and again through what is read, which has no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collector()
def read_records(folder: Path, points: Sequence[Configuration], *, may_lack: bool = False) -> list[ReadRecord]:
    """Return the record of each point, in the order of the points, from the JSON files under `folder`.

    Records of other configurations, which an earlier sweep left behind, are skipped, and points without a record where
    some may lack one. Raises `UserError` for a point without a record otherwise, or with two, and for a file that is no
    record.
    """
    wanted = frozenset(points)
    found: dict[Configuration, tuple[Path, ReadRecord]] = {}
    for path in sorted(folder.rglob("*.json")):
        content = read_json(path, from_json)  # in less than half the time of Python's own
        configuration = _configuration(path, content)
        if configuration is None or configuration not in wanted:
            continue
        if configuration in found:
            twin, _ = found[configuration]
            raise UserError(f"{twin} and {path} are records of the same point. Delete both and run `dvc repro`.")
        found[configuration] = path, _read_record(path, configuration, content)
    missing = [point for point in points if point not in found]
    if missing and not may_lack:
        others = f" and {len(missing) - 1} other{'s' * (len(missing) > 2)}" if len(missing) > 1 else ""
        name = json.dumps(vars(missing[0]))
        raise UserError(f"{folder} has no record of the point {name}{others}. Run `dvc repro` to measure it.")
    return [found[point][1] for point in points if point in found]


def _configuration(path: Path, content: Any) -> Configuration | None:
    """Return the record's configuration, or None for one of another version of hfbench, with other axes."""
    if not isinstance(content, dict):
        raise _broken(path, "it holds no JSON object")
    axes = content.get("configuration")
    if not isinstance(axes, dict):
        raise _broken(path, "it has no configuration")
    if axes.keys() != set(AXES):
        # An older hfbench had fewer.
        if content.get("schema_version") != SCHEMA_VERSION or axes.keys() < set(AXES):
            return None
        raise _broken(path, "its configuration has other axes")
    if not all(isinstance(value, str | int) for value in axes.values()):
        raise _broken(path, "its configuration has a value that is neither text nor a whole number")
    return Configuration(**axes)


def _read_record(path: Path, configuration: Configuration, content: dict[str, Any]) -> ReadRecord:
    require_version(path, content)
    if missing := sorted(_RECORD_KEYS - content.keys()):
        raise _broken(path, f"it lacks {', '.join(missing)}")
    try:
        return ReadRecord(
            configuration=configuration,
            facts=record_facts(content),
            timeline={
                f"timeline_{re.sub(r'[^A-Za-z0-9]+', '_', name)}_seconds": float(at)
                for name, at in content["timeline"].items()
            },
            iterations=_iterations(content["iterations"]),
            output=Output.read(content["output"], content["effective"].get("kernelized_layers")),
            needs=dict(content["accounting"]),
            sampling=dict(content["sampling"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error


def _iterations(iterations: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return a row for each; every list of token times has its arrival, that of the start where none is told."""
    columns = {name: [iteration[name] for iteration in iterations] for name in ITERATION_TYPES}
    pairs = zip(columns["arrival_seconds"], columns["token_seconds"], strict=True)
    columns["arrival_seconds"] = [arrivals or [0.0] * len(times) for arrivals, times in pairs]
    return pl.DataFrame(columns, schema=ITERATION_TYPES)


def _broken(path: Path, what: str) -> UserError:
    return UserError(f"{path} is no measurement record: {what}. Delete it and run `dvc repro`.")
