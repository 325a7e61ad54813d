"""What a measurement is asked to do, as command-line arguments and as JSON for the worker."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.core.point import Configuration, Settings
from hfbench.core.record import Sampling


@dataclass(frozen=True)
class Task:
    """One measurement: the configuration, how to sample it, and the files that it reads and writes."""

    configuration: Configuration
    sampling: Sampling
    settings: Settings
    device: str
    environment: Path
    manifest: Path
    inputs: Path
    output: Path
    log: Path

    def to_json(self) -> dict[str, Any]:
        """Return the task with plain values only."""
        content = dataclasses.asdict(self)
        return {key: str(value) if isinstance(value, Path) else value for key, value in content.items()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Task":
        """Return the task that `to_json` wrote."""
        paths = {name: Path(content[name]) for name in ("environment", "manifest", "inputs", "output", "log")}
        return cls(
            configuration=Configuration(**content["configuration"]),
            sampling=Sampling(**content["sampling"]),
            settings=Settings(**{**content["settings"], "kernels": tuple(content["settings"]["kernels"])}),
            device=content["device"],
            **paths,
        )


def parse_task(arguments: Sequence[str] | None = None) -> Task:
    """Read a task from the command line, as dvc.yaml composes it: an option a field. A bare boolean is true."""
    parser = argparse.ArgumentParser(description="Measure one configuration.")
    _add_fields(parser, Configuration)
    _add_fields(parser, Sampling)
    parser.add_argument("--device", required=True)
    for name in ("environment", "settings", "manifest", "inputs", "output", "log"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    values = vars(parser.parse_args(arguments))
    settings = Settings.load(values.pop("settings"))
    return Task(_take(values, Configuration), _take(values, Sampling), settings, **values)


def _add_fields(parser: argparse.ArgumentParser, record: type) -> None:
    for field in dataclasses.fields(record):
        if field.type is bool:
            parser.add_argument(f"--{field.name}", nargs="?", const=True, default=False, type=_boolean)
        else:
            assert isinstance(field.type, type)
            parser.add_argument(f"--{field.name}", required=True, type=field.type)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _take(values: dict[str, Any], record: type) -> Any:
    return record(**{field.name: values.pop(field.name) for field in dataclasses.fields(record)})
