"""A real Git and DVC repository whose results are tables of known truth, and sides without one around them."""

import json
import shutil
import subprocess
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from benchmarks.synthetic_tables import Plan, SyntheticTables, synthetic_tables, write_tables
from hfbench.cli import parse_arguments
from hfbench.compare.side import Side

MACHINE: dict[str, Any] = {
    "schema_version": 1,
    "system": {"os": "Linux", "kernel": "6.1.0", "machine": "x86_64"},
    "cpu": {"brand": "Synthetic CPU", "physical_cores": 2},
    "memory": {"total_gib": 24},
    "accelerators": [],
    "accelerator_notes": [],
    "python": {"version": "3.11.7"},
    "compiler": "g++ 12.2.0",
    "packages": {"torch": {"version": "2.13.0"}, "transformers": {"version": "5.22.2"}},
    "variables": {},
}
MANIFEST: dict[str, Any] = {
    "name": "synthetic",
    "source": {"source": "hub", "repository": "owner/synthetic", "revision": "main"},
    "provenance": {"revision": "a" * 40},
    "architecture": "LlamaForCausalLM",
    "model_type": "llama",
    "vocab_size": 600,
    "max_position_embeddings": 128,
    "files": [{"path": "model.safetensors", "size_bytes": 1_000_000, "sha256": "0" * 64}],
}
PARAMS = "device: cpu\nsampling:\n  min_iterations: 12\n"
# `dvc commit` takes the tables as they lie there; the command never runs.
_PIPELINE = "stages:\n  tables:\n    cmd: python -m stages.tables\n    outs:\n      - results/tables\n"


@dataclass(frozen=True)
class Project:
    """A repository in `folder`, which may lie below the top of the git repository."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, below: str = "") -> "Project":
        from dvc.repo import Repo

        folder.mkdir(parents=True, exist_ok=True)
        project = cls(folder / below)
        _run(folder, "git", "init", "--quiet", "--initial-branch", "main")
        _run(folder, "git", "config", "user.email", "tests@example.org")
        _run(folder, "git", "config", "user.name", "tests")
        project.folder.mkdir(parents=True, exist_ok=True)
        Repo.init(str(project.folder), subdir=bool(below)).close()
        (project.folder / "dvc.yaml").write_text(_PIPELINE)
        (project.folder / "params.yaml").write_text(PARAMS)
        (project.folder / "hfbench" / "measurement").mkdir(parents=True)
        (project.folder / "hfbench" / "measurement" / "loop.py").write_text("pass\n")
        return project

    def copy(self, folder: Path) -> "Project":
        """Return a copy to change, which lies in `folder`."""
        return Project(Path(shutil.copytree(self.folder, folder / "project", symlinks=True)))

    def git(self, *words: str) -> str:
        return _run(self.folder, "git", *words)

    def measure(
        self,
        plans: Plan | list[Plan],
        environment: dict[str, Any] | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> None:
        """Leave the results of a plan in the workspace; those of several below each other."""
        built = [synthetic_tables(plan) for plan in (plans if isinstance(plans, list) else [plans])]
        tables = SyntheticTables(
            *(pl.concat(some) for some in zip(*(vars(each).values() for each in built), strict=True))
        )
        results = self.folder / "results"
        shutil.rmtree(results / "tables", ignore_errors=True)
        write_tables(tables, results / "tables")
        (results / "models").mkdir(exist_ok=True)
        (results / "environment.json").write_text(json.dumps(MACHINE if environment is None else environment))
        (results / "models" / "synthetic.json").write_text(json.dumps(manifest or MANIFEST))

    def commit(self, message: str, tag: str | None = None) -> str:
        """Give the tables to DVC, commit everything, and return the commit."""
        from dvc.repo import Repo

        with Repo(str(self.folder)) as repo:
            repo.commit(force=True)
        return self.commit_alone(message, tag)

    def commit_alone(self, message: str, tag: str | None = None) -> str:
        """Commit everything but the tables, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        if tag:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD").strip()

    def compare(self, *words: str) -> "Outcome":
        """Run `hfbench compare` with these words in the project."""
        out, err = StringIO(), StringIO()
        status = 0
        with chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            try:
                arguments = parse_arguments(["compare", *words])
                arguments.run(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        return Outcome(status, out.getvalue(), err.getvalue())

    def compare_json(self, *words: str) -> Any:
        """Return what `hfbench compare` prints as JSON."""
        return json.loads(self.compare(*words, "--format", "json").out)


class Outcome(NamedTuple):
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


def side(plan: Plan, label: str = "side", **fields: Any) -> Side:
    """The tables of a plan as a side of the standard machine and model; `fields` replace others."""
    tables = synthetic_tables(plan)
    built = Side(
        label, None, None, None, **vars(tables), environment=MACHINE, manifests={"synthetic": MANIFEST}, params={}
    )
    return replace(built, **fields)


def _run(folder: Path, *words: str) -> str:
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout
