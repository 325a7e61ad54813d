"""The warnings of a sweep: the doubts that each configuration raises, and the file that keeps them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.errors import UserError
from hfbench.core.files import read_json, write_json
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.tables.configurations import Facts
from hfbench.tables.doubts import CHECKS, POINT
from hfbench.tables.store import configuration_keys


@dataclass(frozen=True)
class MeasurementWarning:
    """What makes a configuration's numbers doubtful.

    `code` names the kind, such as `few_rounds`; `what` is a clause with the numbers; `remedy` a sentence; `point` the
    configuration's key in metrics_by_point.json, and `configuration` its axes.
    """

    code: str
    what: str
    remedy: str
    point: str
    configuration: dict[str, Any]

    @property
    def title(self) -> str:
        """The code as words: `few rounds`."""
        return self.code.replace("_", " ")


_FILE = "warnings.json"
_SCHEMA_VERSION = 1


def write_warnings(warnings: Sequence[MeasurementWarning], folder: Path) -> None:
    """Write the warnings to `folder` as JSON."""
    write_json(folder / _FILE, {"schema_version": _SCHEMA_VERSION, "warnings": [vars(each) for each in warnings]})


def read_warnings(folder: Path) -> list[MeasurementWarning]:
    """Read the warnings that `write_warnings` wrote. Raises `UserError` where there are none of this version."""
    content = read_json(folder / _FILE)
    if not isinstance(content, dict) or content.get("schema_version") != _SCHEMA_VERSION:
        raise UserError(f"{folder / _FILE} is of another version of hfbench. Delete it and run `dvc repro`.")
    return [MeasurementWarning(**entry) for entry in content["warnings"]]


def configuration_warnings(configurations: pl.DataFrame) -> list[MeasurementWarning]:
    """Return all warnings, in the order of the checks and then of the sweep.

    A configuration without a round that is ok has none: that it failed is all there is to say of it.
    """
    rows = configurations.to_dicts()
    names = [field.name for field in dataclasses.fields(Facts)]
    measured = [
        (key, row, Facts(**{name: row[name] for name in names}))
        for key, row in zip(configuration_keys(rows), rows, strict=True)
        if row["rounds_ok"]
    ]
    return [
        MeasurementWarning(
            check.__name__,
            what,
            remedy.replace(POINT, f"'{key}'"),
            key,
            {axis: row[axis] for axis in CONFIGURATION_AXES},
        )
        for check in CHECKS
        for key, row, facts in measured
        for what, remedy in check(facts)
    ]
