"""What a measurement is asked to do, as command-line arguments and as JSON for the worker."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hfbench.core.files import read_json
from hfbench.core.point import Configuration
from hfbench.core.record import Sampling, Settings, Stored
from hfbench.core.results import ENVIRONMENT, log_path, record_path, settings_path
from hfbench.monitoring.devices import TakenDevice


@dataclass(frozen=True)
class Task(Stored):
    """One measurement: the configuration, what it uses of params.yaml, how to sample it, and what it leaves where.

    `environment` is the description of the machine, `output` becomes the record, `log` the worker's log. `verbose` is
    whether each phase is told.
    """

    configuration: Configuration
    sampling: Sampling
    settings: Settings
    device: str
    environment: Path
    output: Path
    log: Path
    verbose: bool = False

    def on(self, taken: TakenDevice) -> Self:
        """Return the same on the device that was taken; one that no driver here tells of, torch finds by itself."""
        return dataclasses.replace(self, device=taken.device) if taken.watched else self


def parse_task(arguments: Sequence[str] | None = None) -> Task:
    """Read a task from the command line, as dvc.yaml composes it: an option a field; a boolean is true by being there.

    What measures outside of the pipeline, as a bisection does, names the files beside. Raises `UserError` where the
    settings that the point depends on are not there.
    """
    parser = argparse.ArgumentParser(description="Measure one configuration.")
    _add_fields(parser, Configuration)
    _add_fields(parser, Sampling)
    parser.add_argument("--device", required=True)
    for name in ("environment", "output", "log"):
        parser.add_argument(f"--{name}", type=Path, help="where it is, if not in results/")
    parser.add_argument("--verbose", action="store_true", help="tell each phase")
    values = vars(parser.parse_args(arguments))
    point, sampling = _take(values, Configuration), _take(values, Sampling)
    return Task(
        configuration=point,
        sampling=sampling,
        settings=Settings(**read_json(settings_path(point))),
        device=values["device"],
        environment=values["environment"] or ENVIRONMENT,
        output=values["output"] or record_path(point),
        log=values["log"] or log_path(point),
        verbose=values["verbose"],
    )


def _add_fields(parser: argparse.ArgumentParser, record: type) -> None:
    for field in dataclasses.fields(record):
        if field.type is bool:
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, default=False)
        else:
            assert isinstance(field.type, type)
            is_needed = field.default is dataclasses.MISSING
            default = None if is_needed else field.default
            parser.add_argument(f"--{field.name}", required=is_needed, default=default, type=field.type)


def _take(values: dict[str, Any], record: type) -> Any:
    return record(**{field.name: values.pop(field.name) for field in dataclasses.fields(record)})
