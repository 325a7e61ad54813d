"""The workspace of the pipeline, lent to measurements of other commits and put back as it was."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hfbench.checkouts.processes import run_to_end, uninterrupted
from hfbench.checkouts.repository import run_git
from hfbench.foundation.errors import UserError
from hfbench.foundation.files import atomic_path
from hfbench.params_file import rewrite

PARAMS = Path("params.yaml")
RESULTS = Path("results")
ENVIRONMENT = RESULTS / "environment.json"
_LOCK = Path("dvc.lock")
_LOGS = RESULTS / "logs"  # nothing depends on them, and a measurement writes into them in place


def dvc(*words: str, folder: Path = Path()) -> None:
    """Run DVC in `folder`, as quietly as stages let it. Raises `UserError` where it fails, which says why by itself."""
    status = run_to_end([sys.executable, "-m", "dvc", *words, "--quiet"], folder)
    if status:
        raise UserError(f"`dvc {' '.join(words)}` ended with exit status {status}; what it said stands above.")


def set_rounds(path: Path, rounds: Sequence[int]) -> None:
    """Write `sweep.round` into params.yaml; all else in it stays, the comments too."""
    rewrite(path, {"sweep.round": list(rounds)})


@contextmanager
def lent_workspace(folder: Path = Path()) -> Iterator[None]:
    """Put params.yaml, dvc.lock and results/ back as they are now, whatever happens meanwhile.

    What git sees is kept here, byte for byte; what DVC holds comes back from its cache.
    """
    kept = {name: (folder / name).read_bytes() for name in _seen_by_git(folder)}
    names = _results(folder)
    try:
        yield
    finally:
        with uninterrupted():
            for name in _seen_by_git(folder) - kept.keys():
                (folder / name).unlink(missing_ok=True)
            for name, content in kept.items():
                _put_back(folder / name, content)
            dvc("checkout", "--force", "--allow-missing", folder=folder)
            for name in _results(folder) - names:
                (folder / name).unlink()


def _seen_by_git(folder: Path) -> set[Path]:
    """Return the files of the pipeline's state that git has or would take."""
    words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--")
    listed = run_git(folder, *words, str(PARAMS), str(_LOCK), str(RESULTS))
    if listed.returncode:
        raise UserError(f"{folder.resolve()} is in no git repository, in which experiments are kept. Run `git init`.")
    names = {Path(name) for name in listed.stdout.split("\0") if name} | {PARAMS}
    return {name for name in names if (folder / name).is_file()}


def _results(folder: Path) -> set[Path]:
    found = (Path(base, name).relative_to(folder) for base, _, names in os.walk(folder / RESULTS) for name in names)
    return {path for path in found if not path.is_relative_to(_LOGS)}


def _put_back(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return  # with its time, so that DVC need not read it again
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
