"""Reads the measurement records of the current sweep, each reduced to its facts and a frame of its iterations."""

import dataclasses
import gc
import json
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
from hfbench.core.record import SCHEMA_VERSION, Record
from hfbench.tables.facts import record_facts
from hfbench.tables.metrics import PHASE

# A float32 sum of n terms in another order is off by some sqrt(n) · 6e-8 of itself: far less, for any prompt.
_SAME_NLL = 1e-4


@dataclass(frozen=True)
class Output:
    """What a record holds of its output; None for what it lacks.

    `top1` has the most likely token at each position of the prompt, `nll` is the prompt's negative log-likelihood in
    nats a token, `tokens` are the first ones generated.
    """

    top1: pl.Series | None = None
    nll: float | None = None
    tokens: pl.Series | None = None

    @classmethod
    def read(cls, output: dict[str, Any]) -> "Output":
        """Return the output of a record. Raises `TypeError` or `ValueError` where it holds something else."""
        nll = output.get("prompt_nll")
        return cls(
            top1=_tokens(output.get("prompt_top1")),
            nll=None if nll is None else float(nll),
            tokens=_tokens(output.get("tokens")),
        )


@dataclass(frozen=True)
class Difference:
    """How far an output is from another; None where either lacks what is compared.

    `top1_agreement` is the share of prompt positions with the same top-1 token, `nll_difference` the absolute
    difference in nats a token, `first_different_token` the position of the first generated token that differs, counted
    from 0, and None also where none does.
    """

    top1_agreement: float | None
    nll_difference: float | None
    first_different_token: int | None

    @property
    def is_none(self) -> bool:
        """Whether nothing differs by more than the order of a sum would make it."""
        same_nll = self.nll_difference is None or self.nll_difference <= _SAME_NLL
        return self.top1_agreement in (None, 1.0) and same_nll and self.first_different_token is None


def difference(one: Output, other: Output) -> Difference:
    """Return how far two outputs of the same work are apart."""
    return Difference(
        top1_agreement=_agreement(one.top1, other.top1),
        nll_difference=None if one.nll is None or other.nll is None else abs(one.nll - other.nll),
        first_different_token=_first_difference(one.tokens, other.tokens),
    )


def _agreement(one: pl.Series | None, other: pl.Series | None) -> float | None:
    if one is None or other is None or len(one) != len(other) or one.is_empty():
        return None
    return int((one == other).sum()) / len(one)


def _first_difference(one: pl.Series | None, other: pl.Series | None) -> int | None:
    if one is None or other is None:
        return None
    length = min(len(one), len(other))
    different = (one.head(length) != other.head(length)).arg_true()
    if len(different):
        return int(different[0])
    return length if len(one) != len(other) else None


def _tokens(tokens: Any) -> pl.Series | None:
    return None if tokens is None else pl.Series("", tokens, dtype=pl.Int64)


ITERATION_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "phase": PHASE,
    "observed": pl.Boolean,
    "start_seconds": pl.Float64,
    "end_to_end_seconds": pl.Float64,
    "call_seconds": pl.Float64,
    "token_seconds": pl.List(pl.List(pl.Float64)),
}
_RECORD_KEYS = {field.name for field in dataclasses.fields(Record)}


@dataclass(frozen=True)
class ReadRecord:
    """A record as the tables need it: `facts` are plain values, `iterations` a row each with `ITERATION_TYPES`.

    `needs` is the record's `accounting`, empty where it has none. A `Record` would make a Python object of each token's
    time, of which there are millions.
    """

    configuration: Configuration
    facts: dict[str, Any]
    timeline: dict[str, float]
    iterations: pl.DataFrame
    output: Output
    needs: dict[str, Any]


def read_records(folder: Path, points: Sequence[Configuration]) -> list[ReadRecord]:
    """Return the record of each point, in the order of the points, from the JSON files under `folder`.

    Records of other configurations, which an earlier sweep left behind, are skipped. Raises `UserError` for a point
    without a record or with two, and for a file that is no record.
    """
    with _without_collector():
        return _read_all(folder, points)


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


def _read_all(folder: Path, points: Sequence[Configuration]) -> list[ReadRecord]:
    wanted = frozenset(points)
    found: dict[Configuration, ReadRecord] = {}
    paths: dict[Configuration, Path] = {}
    for path in sorted(folder.rglob("*.json")):
        content = _read_object(path)
        configuration = _configuration(path, content)
        if configuration is None or configuration not in wanted:
            continue
        if configuration in found:
            raise UserError(
                f"{paths[configuration]} and {path} are records of the same point. Delete both and run `dvc repro`."
            )
        found[configuration], paths[configuration] = _read_record(path, configuration, content), path
    _check_complete(folder, points, found.keys())
    return [found[point] for point in points]


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path, from_json)  # in less than half the time of Python's own
    if not isinstance(content, dict):
        raise _broken(path, "it holds no JSON object")
    return content


def _configuration(path: Path, content: dict[str, Any]) -> Configuration | None:
    """Return the record's configuration, or None for one of another version of hfbench, with other axes."""
    axes = content.get("configuration")
    if not isinstance(axes, dict):
        raise _broken(path, "it has no configuration")
    if axes.keys() != set(AXES):
        if content.get("schema_version") != SCHEMA_VERSION:
            return None
        raise _broken(path, "its configuration has other axes")
    if not all(isinstance(value, str | int) for value in axes.values()):
        raise _broken(path, "its configuration has a value that is neither text nor a whole number")
    return Configuration(**axes)


def _read_record(path: Path, configuration: Configuration, content: dict[str, Any]) -> ReadRecord:
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}, and this hfbench reads version {SCHEMA_VERSION}. "
            "Delete it and run `dvc repro`."
        )
    if missing := sorted(_RECORD_KEYS - content.keys()):
        raise _broken(path, f"it lacks {', '.join(missing)}")
    try:
        timeline = {str(key): float(value) for key, value in content["timeline"].items()}
        return ReadRecord(
            configuration=configuration,
            facts=record_facts(content),
            timeline=timeline,
            iterations=_iterations(content["iterations"]),
            output=Output.read(content["output"]),
            needs=dict(content["accounting"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error


def _iterations(iterations: list[dict[str, Any]]) -> pl.DataFrame:
    columns = {name: [iteration[name] for iteration in iterations] for name in ITERATION_TYPES}
    return pl.DataFrame(columns, schema=ITERATION_TYPES)


def _check_complete(folder: Path, points: Sequence[Configuration], found: Any) -> None:
    missing = [point for point in points if point not in found]
    if not missing:
        return
    others = f" and {len(missing) - 1} other{'s' * (len(missing) > 2)}" if len(missing) > 1 else ""
    raise UserError(
        f"{folder} has no record of the point {json.dumps(vars(missing[0]))}{others}. Run `dvc repro` to measure it."
    )


def _broken(path: Path, what: str) -> UserError:
    return UserError(f"{path} is no measurement record: {what}. Delete it and run `dvc repro`.")
