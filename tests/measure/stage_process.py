"""Real measurements of the tiny model: the stage's own command in a process, as DVC runs it."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hfbench.core.point import AXIS_TABLE, USUAL, Configuration
from hfbench.core.record import Record, Settings
from hfbench.core.results import assistant_path, inputs_path, manifest_path, settings_path
from hfbench.workers.forked import CHOSEN, FORKED
from tests.conftest import ROOT

AXES: dict[str, Any] = {
    "round": 1,
    "model": "tiny",
    "attn_implementation": "sdpa",
    **{axis: value for axis, value in USUAL.items() if not isinstance(value, bool)},
    "batch_size": 2,
    "sequence_length": 16,
    "max_new_tokens": 6,
}
SAMPLING: dict[str, Any] = {
    "stopping_rule": "fixed",
    "min_warmup_iterations": 1,
    "max_warmup_iterations": 1,
    "min_iterations": 4,
    "max_iterations": 4,
    "target_precision": 0.05,
    "max_seconds": 5,
    "unobserved_every": 3,
    "timeout_seconds": 120,
    "monitor_interval_seconds": 0.1,
}

_BEYOND_SECONDS = 60  # the measurement's own limit, for a machine that has other work


def is_worker(process: psutil.Process) -> bool:
    """Whether it measures: it was started to, or forked by the server of workers and given a log to print to."""
    with suppress(psutil.Error, OSError):
        if is_forked(process):
            return Path(f"/proc/{process.pid}/fd/1").readlink().suffix == ".log"
        return "hfbench.measure.worker" in process.cmdline()
    return False


def is_forked(process: psutil.Process) -> bool:
    """Whether the server of workers forked it, as a worker or as one that waits for what to measure."""
    parent = process.parent()
    return "hfbench.workers.forkserver" in process.cmdline() and parent is not None and is_server(parent)


def is_server(process: psutil.Process) -> bool:
    """Whether it forks workers."""
    words, parent = process.cmdline(), process.parent()
    return "hfbench.workers.forkserver" in words and (parent is None or parent.cmdline() != words)


@dataclass(frozen=True)
class Bench:
    """A folder with the inputs of a measurement, and how to run one in it."""

    folder: Path
    environment: Path
    temporary: Path | None = None  # for temporary files, instead of `folder`
    settings: Settings = field(default_factory=Settings)
    workers: str = FORKED  # or fresh
    drafting: Path | None = None  # the manifest of a model that drafts

    @property
    def output(self) -> Path:
        return self.folder / "record.json"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def command(self, *flags: str, **values: object) -> list[str]:
        options = {**AXES, **SAMPLING, "device": "cpu", **values}
        on = {flag.removeprefix("--"): True for flag in flags}
        point = Configuration(**{axis: value for axis, value in {**options, **on}.items() if axis in AXIS_TABLE})
        self.settings.save(self.folder / settings_path(point))
        shape = f"b{options['batch_size']}-s{options['sequence_length']}"
        for source, place in (("manifest.json", manifest_path("tiny")), (f"{shape}.safetensors", inputs_path(point))):
            (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / source, self.folder / place)
        if self.drafting is not None:
            (self.folder / assistant_path(point.assistant)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.drafting, self.folder / assistant_path(point.assistant))
        paths = {"environment": self.environment, "output": self.output, "log": self.log}
        pairs = [text for name, value in {**paths, **options}.items() for text in (f"--{name}", str(value))]
        return [sys.executable, "-m", "stages.measure", "--verbose", *pairs, *flags]

    def variables(self) -> dict[str, str]:
        temporary = str(self.temporary or self.folder)
        return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": temporary, CHOSEN: self.workers}

    def start(self, *flags: str, **values: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*flags, **values),
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.variables(),
        )

    def measure(self, *flags: str, **values: object) -> Record:
        process = self.start(*flags, **values)
        limit = float(str(values.get("timeout_seconds", SAMPLING["timeout_seconds"])))
        stderr = process.communicate(timeout=limit + _BEYOND_SECONDS)[1]
        assert process.returncode == 0, stderr
        return Record.load(Path(str(values.get("output", self.output))))
