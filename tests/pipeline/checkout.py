"""A real clone of this repository in a temporary folder, with DVC run in it as a user runs it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hfbench.core.point import Configuration
from tests.conftest import ROOT

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
