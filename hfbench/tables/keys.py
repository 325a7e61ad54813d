"""Where the record of a point lies, and the records of the points that the tables know."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.point import AXES, CONFIGURATION_AXES, Configuration, telling_axes, token_of
from hfbench.core.record import Record


def configuration_keys(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a readable key for each, such as `smollm2-135m-instruct eager b1 s128 n32`.

    A key depends on its configuration alone, and leaves out what is usual, so that adding a value to an axis renames no
    point. Dots and slashes, which mean levels in DVC's paths, become hyphens; where that makes two keys equal, a digest
    tells them apart.
    """
    keys = [_key(configuration) for configuration in configurations]
    shared = {key for key, count in Counter(keys).items() if count > 1}
    return [
        f"{key} {_digest(configuration['attn_implementation'])}" if key in shared else key
        for key, configuration in zip(keys, configurations, strict=True)
    ]


def point_label(configuration: Mapping[str, Any], axes: Iterable[str]) -> str:
    """Return the tokens of these axes that are not usual, of all of them where every one is, or else of the model."""
    wanted = set(axes)
    asked = [axis for axis in CONFIGURATION_AXES if axis in wanted]
    kept = [axis for axis in telling_axes(configuration) if axis in wanted] or asked
    return " ".join(token_of(axis, configuration[axis]) for axis in kept or ["model"])


def _key(configuration: Mapping[str, Any]) -> str:
    tokens = (token_of(axis, configuration[axis]) for axis in telling_axes(configuration))
    return " ".join(re.sub(r"[^A-Za-z0-9_-]+", "-", token) for token in tokens)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


@dataclass(frozen=True)
class MeasuredPoint:
    """A point: the key of its configuration, its axes, and the name of its files."""

    key: str
    axes: dict[str, Any]
    name: str

    @property
    def configuration(self) -> dict[str, Any]:
        """The axes without the round."""
        return {axis: self.axes[axis] for axis in CONFIGURATION_AXES}


def measured_points(points: pl.DataFrame) -> list[MeasuredPoint]:
    """Return a point for each row of the table of points, in its order."""
    axes = points.select(AXES).to_dicts()
    distinct = points.select(CONFIGURATION_AXES).unique(maintain_order=True).to_dicts()
    keys = dict(zip((tuple(row.values()) for row in distinct), configuration_keys(distinct), strict=True))
    return [
        MeasuredPoint(
            key=keys[tuple(row[axis] for axis in CONFIGURATION_AXES)],
            axes=row,
            name=Configuration(**row).file_name,
        )
        for row in axes
    ]


def load_records(points: Sequence[MeasuredPoint], measurements: Path) -> list[Record]:
    """Return the records of the points. Raises `UserError` where one is missing."""
    records = []
    for point in points:
        path = measurements / f"{point.name}.json"
        if not path.exists():
            raise UserError(
                f"{path} does not exist, though the tables know the point. `dvc checkout` or `dvc pull` brings back a "
                "record that was measured, `dvc repro` measures it."
            )
        records.append(Record.load(path))
    return records
