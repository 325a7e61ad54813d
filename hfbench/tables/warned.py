"""The warnings of all configurations, from the table of configurations."""

import dataclasses
from typing import Any

import polars as pl

from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import configuration_keys
from hfbench.tables.warning_file import ConfigurationWarning
from hfbench.warnings.check import CHECKS
from hfbench.warnings.facts import Facts

_FACTS = tuple(field.name for field in dataclasses.fields(Facts))


def configuration_warnings(configurations: pl.DataFrame) -> list[ConfigurationWarning]:
    """Return all warnings, in the order of the checks and then of the sweep.

    A configuration without a round that is ok has none: that it failed is all there is to say of it.
    """
    rows = configurations.to_dicts()
    keys = configuration_keys(rows)
    measured = [(key, row, _facts(row)) for key, row in zip(keys, rows, strict=True) if row["rounds_ok"]]
    return [
        ConfigurationWarning(key, {axis: row[axis] for axis in CONFIGURATION_AXES}, warning)
        for check in CHECKS
        for key, row, facts in measured
        if (warning := check(facts)) is not None
    ]


def _facts(row: dict[str, Any]) -> Facts:
    return Facts(**{name: row[name] for name in _FACTS})
