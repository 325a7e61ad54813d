"""How long `hfbench compare` takes for two commits of 400 points with 7 rounds of 20 iterations each.

`python -m benchmarks.compare` makes both in a temporary repository with DVC, and prints how long the process took.
"""

import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.synthetic_tables import START, Plan, sweep
from tests.compare.project import Project

_LIMIT_SECONDS = 10.0
_REPEATS = 3
_PROCESS = "import sys; from hfbench.cli import main; sys.argv[0] = 'hfbench'; main()"


def main() -> None:
    """Make the repository, compare its two commits, and print how long that took."""
    table = Table("figure", "seconds", "at most", "")
    with tempfile.TemporaryDirectory(prefix="hfbench-compare-") as folder:
        project = two_commits(Path(folder) / "project")
        for form in ("table", "json"):
            seconds = min(_seconds(project.folder, form) for _ in range(_REPEATS))
            mark = "✓" if seconds <= _LIMIT_SECONDS else "✗"
            table.add_row(
                f"compare, 400 points, 7 rounds, 20 iterations ({form})", f"{seconds:.2f}", f"{_LIMIT_SECONDS:g}", mark
            )
    Console().print(table)


def two_commits(folder: Path) -> Project:
    """Return a repository whose HEAD~1 and HEAD hold 400 points each, a quarter of them 5% slower at HEAD."""
    configurations = sweep(
        attn_implementation=["eager", "sdpa"],
        batch_size=[1, 2, 4, 8],
        sequence_length=[64 * (1 + index) for index in range(50)],
    )
    assert len(configurations) == 400
    project = Project.create(folder)
    for seed, effect in enumerate((lambda _: 1.0, lambda each: 1.05 if each.batch_size == 8 else 1.0)):
        started = START + timedelta(minutes=5 * seed)
        project.measure(Plan(configurations, iterations=20, effect=effect, seed=seed, started=started))
        project.commit(f"side {seed}")
    return project


def _seconds(folder: Path, form: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-c", _PROCESS, "compare", "HEAD~1", "HEAD", "--format", form]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
