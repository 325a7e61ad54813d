"""A stand-in for an editable checkout of transformers: the package as installed, made slower by its commits.

A real checkout would be a download of hundreds of megabytes. This one is a git repository whose folder `python/` holds
a package `transformers` that puts the installed one in its own place and makes each forward pass sleep; what describes
the environment finds it as it would the real one, by `direct_url.json` and the folder that an import takes.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.pipeline.checkout import Checkout

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
class StandIn:
    """The repository, and the folder that stands for site-packages."""

    repository: Path
    site: Path

    def variables(self, checkout: Checkout) -> dict[str, str]:
        """Return the variables with which the pipeline in `checkout` measures the stand-in."""
        paths = [checkout.folder, self.repository / "python" / "src", self.site]
        # One thread: on a busy machine, the threads of a tiny model wait for each other longer than it sleeps.
        return {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}

    def commit_code(self, subject: str, seconds: float, statement: str = "") -> str:
        """Commit a package whose forward pass sleeps so long; `statement` runs when it is imported."""
        folder = self.repository / "python" / "src" / "transformers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(_PACKAGE.format(seconds=seconds, statement=statement or f"# {subject}"))
        return self._commit(subject)

    def commit_notes(self, subject: str) -> str:
        """Commit something outside of the package."""
        with (self.repository / "NOTES").open("a") as notes:
            notes.write(f"{subject}\n")
        return self._commit(subject)

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, "-C", str(self.repository), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _commit(self, subject: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.git("rev-parse", "HEAD")


def make_stand_in(folder: Path) -> StandIn:
    """Make an empty repository on the branch `main`, installed in editable mode."""
    made = StandIn(folder / "transformers", folder / "site")
    made.repository.mkdir(parents=True)
    made.git("init", "--quiet", "--initial-branch", "main")
    (made.repository / ".gitignore").write_text("__pycache__/\n")
    installed = metadata.distribution("transformers")
    information = made.site / f"transformers-{installed.version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(installed.read_text("METADATA") or "")
    source = {"url": (made.repository / "python").as_uri(), "dir_info": {"editable": True}}
    (information / "direct_url.json").write_text(json.dumps(source))
    return made
