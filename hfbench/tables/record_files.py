"""Where the record of a point lies, and the records of the points that the tables know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.foundation.configuration import AXES, Configuration
from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Record
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import configuration_keys


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
