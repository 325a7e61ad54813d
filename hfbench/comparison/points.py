"""What a comparison must know of a configuration on one side, beside its values."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from hfbench.comparison.side import Side
from hfbench.comparison.values import Axes
from hfbench.foundation.records import OK
from hfbench.tables.columns import CONFIGURATION_AXES


@dataclass(frozen=True)
class Point:
    """A configuration on one side.

    `statuses` are by round; `reason` is that of the first round that is not ok. `started` has the rounds that are ok
    and say when they started. `devices`, `threads` and `inputs` are what those rounds ran on; empty where none tells.
    """

    axes: dict[str, Any]
    statuses: dict[int, str]
    reason: str | None
    started: dict[int, datetime]
    devices: frozenset[str]
    threads: frozenset[int]
    inputs: frozenset[str]
    kernels: frozenset[str]
    output_differs: bool

    @property
    def rounds_ok(self) -> int:
        """How many rounds are ok."""
        return sum(status == OK for status in self.statuses.values())

    @property
    def status(self) -> str:
        """Return `ok` where any round is, else the most frequent status."""
        return OK if self.rounds_ok else Counter(self.statuses.values()).most_common(1)[0][0]


def points_of(side: Side) -> dict[Axes, Point]:
    """Return the points of a side by their axes, in the order of its table."""
    columns = ["round", "status", "reason", "started_at", "device_name", "intra_op_threads", "inputs_sha256", "kernels"]
    groups = side.points.group_by(CONFIGURATION_AXES, maintain_order=True).agg(columns)
    differing = _differing(side.configurations)
    return {
        axes: _point(dict(zip(CONFIGURATION_AXES, axes, strict=True)), row, axes in differing)
        for axes, row in zip(
            groups.select(CONFIGURATION_AXES).iter_rows(), groups.select(columns).to_dicts(), strict=True
        )
    }


def _point(axes: dict[str, Any], row: dict[str, list[Any]], output_differs: bool) -> Point:
    rounds = [dict(zip(row, values, strict=True)) for values in zip(*row.values(), strict=True)]
    ok = [each for each in rounds if each["status"] == OK]
    started = {each["round"]: _time(each["started_at"]) for each in ok}
    return Point(
        axes=axes,
        statuses={each["round"]: each["status"] for each in rounds},
        reason=next((each["reason"] for each in rounds if each["status"] != OK), None),
        started={number: time for number, time in started.items() if time is not None},
        devices=_values(ok, "device_name"),
        threads=_values(ok, "intra_op_threads"),
        inputs=_values(ok, "inputs_sha256"),
        kernels=frozenset(kernel for each in ok for kernel in each["kernels"] or ()),
        output_differs=output_differs,
    )


def _values(rounds: list[dict[str, Any]], column: str) -> frozenset[Any]:
    return frozenset(each[column] for each in rounds if each[column] is not None)


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


def _differing(configurations: pl.DataFrame) -> set[Axes]:
    if "output_differs" not in configurations.columns:
        return set()
    return set(configurations.filter("output_differs").select(CONFIGURATION_AXES).iter_rows())
