"""A pipeline with one quick point, and a history of a stand-in for transformers in which a slowdown is planted.

A real checkout of transformers would be a download of hundreds of megabytes. The stand-in is a git repository whose
folder `python/` holds a package `transformers` that puts the installed one in its own place and makes each forward pass
sleep; what describes the environment finds it as it would the real one, by `direct_url.json` and the folder that an
import takes.
"""

import json
import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.environment.conftest import git
from tests.pipeline.checkout import Checkout, Running, clone, start
from tests.pipeline.conftest import small_sweep

FAST_SECONDS, SLOW_SECONDS = 0.08, 0.2  # of sleep in each forward pass; what the tiny model computes takes 2 ms
# None is a commit of something outside of the package.
HISTORY = {
    "Start": FAST_SECONDS,
    "Notes on Start": None,
    "Tidy up": FAST_SECONDS,
    "Rework the mask": SLOW_SECONDS,
    **dict.fromkeys(("Notes 1", "Notes 2", "Notes 3", "Notes 4")),
}
_PACKAGE = '''\
"""transformers as installed; each forward pass takes longer."""
import importlib.machinery
import importlib.util
import sys
import time
from pathlib import Path

{statement}
SECONDS = {seconds}
_here = str(Path(__file__).parent.parent)
_spec = importlib.machinery.PathFinder.find_spec(__name__, [path for path in sys.path if path != _here])
_installed = importlib.util.module_from_spec(_spec)
sys.modules[__name__] = _installed
_spec.loader.exec_module(_installed)  # which puts a module of its own into sys.modules
_model = sys.modules[__name__].PreTrainedModel
_call = _model.__call__
_depth = 0


def _slowed(self, *arguments, **options):
    global _depth
    _depth += 1
    try:
        return _call(self, *arguments, **options)
    finally:
        _depth -= 1
        if _depth == 0:  # a causal model calls its decoder, which is such a model too
            time.sleep(SECONDS)


_model.__call__ = _slowed
'''


@dataclass(frozen=True)
class Bench:
    """A pipeline, the checkout whose commits it measures, and a folder that stands for site-packages."""

    pipeline: Checkout
    repository: Path
    site: Path
    commits: dict[str, str]  # by subject

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which the pipeline measures the stand-in."""
        paths = [self.pipeline.folder, self.repository / "python" / "src", self.site]
        # One thread: on a busy machine, the threads of a tiny model wait for each other longer than it sleeps.
        return {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}

    def hfbench(self, *words: str, check: bool = True) -> Any:
        """Run a command of hfbench in the pipeline."""
        return self.pipeline.run("python", "-m", "hfbench.cli", *words, check=check, **self.variables)

    def start(self, log: Path, *words: str) -> Running:
        """Start a command of hfbench in the pipeline; `log` takes its standard error."""
        return start(self.pipeline, log, "python", "-m", "hfbench.cli", *words, **self.variables)

    def git(self, *words: str) -> str:
        """Run git in the checkout."""
        return git(self.repository, *words)

    def commit(self, subject: str, seconds: float | None, statement: str = "") -> str:
        """Commit a package whose forward pass sleeps so long; `statement` runs when it is imported."""
        file = self.repository / "NOTES"
        if seconds is not None:
            file = self.repository / "python" / "src" / "transformers" / "__init__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_PACKAGE.format(seconds=seconds, statement=statement or f"# {subject}"))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.git("rev-parse", "HEAD")

    def state(self) -> tuple[str, ...]:
        """Return what must be as before after a command: three values of the checkout, and two of the workspace."""
        return (
            self.git("symbolic-ref", "HEAD"),
            self.git("status", "--porcelain"),
            self.git("for-each-ref"),
            self.pipeline.run("git", "status", "--porcelain").stdout,
            (self.pipeline.folder / "params.yaml").read_text(),
        )


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    shutil.copytree(tiny_model, folder / "model")
    pipeline = clone(folder / "pipeline")
    pipeline.change_params(lambda content: _one_point(content, folder / "model"))
    pipeline.commit("one point")
    made = Bench(pipeline, folder / "transformers", folder / "site", {})
    _install_editable(made.repository, made.site)
    made.commits.update({subject: made.commit(subject, seconds) for subject, seconds in HISTORY.items()})
    return made


def _one_point(content: Any, model: Path) -> None:
    small_sweep(content, model)
    content["sweep"]["attn_implementation"] = ["sdpa"]


def _install_editable(repository: Path, site: Path) -> None:
    """Make an empty repository on the branch `main`, and install it in editable mode."""
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch", "main")
    (repository / ".gitignore").write_text("__pycache__/\n")
    installed = metadata.distribution("transformers")
    information = site / f"transformers-{installed.version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(installed.read_text("METADATA") or "")
    source = {"url": (repository / "python").as_uri(), "dir_info": {"editable": True}}
    (information / "direct_url.json").write_text(json.dumps(source))
