"""A real git and DVC repository in a temporary folder, whose commits have tables of invented measurements."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hfbench.core.record import Record
from tests.tables.hand_records import observed, ok_record, point, tables_of

MACHINE: dict[str, Any] = {
    "cpu": {"brand": "Test CPU", "available_logical_cores": 4},
    "memory": {"total_gib": 16},
    "accelerators": [],
}
OTHER_MACHINE = {**MACHINE, "cpu": {"brand": "Other CPU", "available_logical_cores": 8}}
_STAGES = "stages:\n  aggregate:\n    cmd: python -m stages.aggregate\n    outs:\n    - results/tables\n"
_TOKEN_SECONDS = (0.1, 0.12, 0.14, 0.16)


def records(level: float, day: int, *, rounds: int = 3, noise: float = 0.002, **axes: Any) -> list[Record]:
    """Rounds of six iterations whose times are `level` times 0.16 s, with this relative noise between rounds."""
    generator = np.random.default_rng(day)
    found = []
    for number in range(1, rounds + 1):
        scale = level * float(np.exp(generator.normal(0, noise)))
        times = [np.array(_TOKEN_SECONDS) * scale * float(np.exp(generator.normal(0, 0.001))) for _ in range(6)]
        iterations = [observed(each.tolist()) for each in times]
        started_at = f"2025-01-{day:02}T00:00:00+00:00"
        found.append(ok_record(point(round=number, **axes), *iterations, started_at=started_at, load_seconds=0.5))
    return found


class Repository:
    """Commits are made a day apart, from 1 January 2025."""

    def __init__(self, folder: Path) -> None:
        from dvc.repo import Repo

        self.folder = folder
        self._day = 0
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("config", "user.email", "tests@example.org")
        self.git("config", "user.name", "tests")
        Repo.init(str(folder)).close()
        (folder / "dvc.yaml").write_text(_STAGES)
        (folder / ".gitignore").write_text("/results/tables\n")

    def git(self, *arguments: str) -> str:
        date = f"2025-01-{self._day:02}T12:00:00+00:00"
        variables = {**os.environ, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=variables, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self, subject: str) -> str:
        """Commit everything and return the commit."""
        self._day += 1
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        return self.git("rev-parse", "HEAD")

    def measure(self, subject: str, measured: Sequence[Record], machine: dict[str, Any] = MACHINE) -> str:
        """Commit the tables of these records, tracked by DVC as the pipeline's are, and return the commit."""
        self.write(measured, machine)
        self.track()
        return self.commit(subject)

    def write(self, measured: Sequence[Record], machine: dict[str, Any] = MACHINE) -> None:
        """Write the tables of these records into the workspace."""
        shutil.rmtree(self.folder / "results/tables", ignore_errors=True)
        scratch = self.folder.parent / f"{self.folder.name}-measurements"
        shutil.rmtree(scratch, ignore_errors=True)
        tables_of(scratch, *measured).write(self.folder / "results/tables")
        (self.folder / "results/environment.json").write_text(json.dumps(machine))

    def track(self) -> None:
        """Put the workspace's tables into DVC's cache and dvc.lock."""
        from dvc.repo import Repo

        with Repo(str(self.folder)) as repo:
            repo.commit(force=True)
