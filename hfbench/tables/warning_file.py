"""The file that keeps the warnings of all configurations."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.foundation.files import read_json, write_json
from hfbench.warnings.warning import MeasurementWarning

_FILE = "warnings.json"
_SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class ConfigurationWarning:
    """A warning, and whose: the configuration's key in metrics_by_point.json and its axes."""

    point: str
    configuration: dict[str, Any]
    warning: MeasurementWarning


def write_warnings(warnings: Sequence[ConfigurationWarning], folder: Path) -> None:
    """Write the warnings to `folder` as JSON."""
    entries = [
        {**dataclasses.asdict(each.warning), "point": each.point, "configuration": each.configuration}
        for each in warnings
    ]
    write_json(folder / _FILE, {"schema_version": _SCHEMA_VERSION, "warnings": entries})


def read_warnings(folder: Path) -> list[ConfigurationWarning]:
    """Read the warnings that `write_warnings` wrote. Raises `UserError` where there are none of this version."""
    content = read_json(folder / _FILE)
    if not isinstance(content, dict) or content.get("schema_version") != _SCHEMA_VERSION:
        raise UserError(f"{folder / _FILE} is of another version of hfbench. Delete it and run `dvc repro`.")
    return [
        ConfigurationWarning(
            entry["point"],
            entry["configuration"],
            MeasurementWarning(entry["code"], entry["what"], entry["remedy"]),
        )
        for entry in content["warnings"]
    ]
