"""A real clone of this repository in a temporary folder, with DVC run in it as a user runs it.

Also a `dvc repro` that runs while the test does something to it.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from ruamel.yaml import YAML

from hfbench.core.point import Configuration
from tests.conftest import ROOT
from tests.measure.stage_process import is_worker

BIN = Path(sys.executable).parent
# A first call and two samples.
QUICK_SAMPLING = {
    "stopping_rule": "fixed",
    "min_warmup_iterations": 0,
    "max_warmup_iterations": 0,
    "min_iterations": 2,
    "unobserved_every": 0,
}


def tiny_point(attn_implementation: str, number: int = 1) -> Configuration:
    """Return a point of the small sweep: the tiny model, a row of 16 prompt tokens and 4 new ones."""
    lengths: dict[str, Any] = {"batch_size": 1, "sequence_length": 16, "max_new_tokens": 4}
    return Configuration(round=number, model="tiny", attn_implementation=attn_implementation, **lengths)


@dataclass(frozen=True)
class Checkout:
    """A Git and DVC repository."""

    folder: Path

    def variables(self) -> dict[str, str]:
        """Return the environment variables of a process in this clone."""
        return {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),  # this clone's hfbench, not the installed one
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, *command: str, check: bool = True, **environment: str) -> "subprocess.CompletedProcess[str]":
        variables = {**self.variables(), **environment}
        result = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
        return result

    def repro(self, **environment: str) -> list[str]:
        """Run `dvc repro` and return the stages that ran a command, but for the one that always does."""
        return ran(self.run("dvc", "repro", check=True, **environment).stdout)

    def stages(self) -> list[str]:
        """The names of the stages."""
        return self.run("dvc", "stage", "list", "--name-only").stdout.split()

    def change_params(self, change: Callable[[Any], None]) -> None:
        yaml = YAML()
        path = self.folder / "params.yaml"
        content = yaml.load(path)
        change(content)
        yaml.dump(content, path)

    def append(self, file: str, text: str) -> None:
        with (self.folder / file).open("a") as stream:
            stream.write(text)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def ran(stdout: str) -> list[str]:
    """Return the stages in DVC's output that ran, but for `environment`, which runs every time."""
    stages = re.findall(r"^Running stage '(.+)':$", stdout, re.MULTILINE)
    return [stage for stage in stages if stage != "stages/dvc.yaml:environment"]


def measurements(stages: list[str]) -> list[str]:
    """Return those of the stages that measure a point of the sweep."""
    return [stage for stage in stages if stage.startswith("measure@")]


def clone(folder: Path) -> Checkout:
    """Copy what git knows of this working tree (new files too) to `folder` and commit it there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    checkout = Checkout(folder)
    checkout.run("git", "init", "--quiet")
    checkout.run("git", "config", "user.email", "tests@example.org")
    checkout.run("git", "config", "user.name", "tests")
    checkout.commit("as it is")
    return checkout


T = TypeVar("T")


@dataclass(frozen=True)
class Running:
    """A command in a clone, in a process group of its own, as a shell starts it."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    stderr: Path

    def worker(self, seconds: float = 60) -> psutil.Process:
        """Wait for a worker of the clone."""
        found = wait_until(lambda: [item for item in processes_in(self.folder) if is_worker(item)], seconds, self)
        return found[0]

    def wait_for_phase(self, phase: str, seconds: float = 60) -> None:
        """Wait until a worker says that it begins this phase."""
        self.wait_for(rf"  {phase}\n", seconds)

    def wait_for(self, pattern: str, seconds: float = 90) -> None:
        """Wait until a pattern is found in what the command says."""
        wait_until(lambda: re.search(pattern, self.stderr.read_text()), seconds, self)


def start(checkout: Checkout, log: Path, *command: str, **environment: str) -> Running:
    """Start a command in the clone with the variables of `Checkout.run`; `log` takes its standard error."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=checkout.folder,
            env={**checkout.variables(), **environment},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    return Running(process, checkout.folder, log)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working directory is `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder.resolve()):
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or is another user's
    return found


def wait_until(condition: Callable[[], T], seconds: float, running: Running) -> T:
    """Return what `condition` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if running.process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"it never came to that:\n{running.stderr.read_text()}")
