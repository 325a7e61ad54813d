"""What a commit of the checkout changes in the description of the environment, on which every measurement depends."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hfbench.checkouts.processes import run_to_end
from hfbench.compare.changes import differences
from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path, read_json
from hfbench.core.results import LOGS, PARAMS, RESULTS
from hfbench.git import Commit, run_git, uninterrupted

_LOCKS = (Path("dvc.lock"), Path("stages/dvc.lock"))


def dvc(*words: str) -> None:
    """Run DVC, as quietly as stages let it. Raises `UserError` where it fails, which says why by itself."""
    status = run_to_end([sys.executable, "-m", "dvc", *words, "--quiet"])
    if status:
        raise UserError(f"`dvc {' '.join(words)}` ended with exit status {status}; what it said stands above.")


@contextmanager
def lent_workspace() -> Iterator[None]:
    """Put params.yaml, the lock files and results/ back as they are now, whatever happens meanwhile.

    What git sees is kept here, byte for byte; what DVC holds comes back from its cache.
    """
    kept = {path: path.read_bytes() for path in _seen_by_git()}
    results = _results()
    try:
        yield
    finally:
        with uninterrupted():
            for path in _seen_by_git() - kept.keys():
                path.unlink(missing_ok=True)
            for path, content in kept.items():
                # What is as it was keeps its time, so that DVC need not read it again.
                if not path.is_file() or path.read_bytes() != content:
                    with atomic_path(path) as temporary:
                        temporary.write_bytes(content)
            dvc("checkout", "--force", "--allow-missing")
            for path in _results() - results:
                path.unlink()


def _seen_by_git() -> set[Path]:
    """Return the files of the pipeline's state that git has or would take."""
    words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--")
    listed = run_git(Path(), *words, str(PARAMS), *map(str, _LOCKS), str(RESULTS))
    if listed.returncode:
        raise UserError(f"{Path.cwd()} is in no git repository, in which experiments are kept. Run `git init`.")
    paths = {Path(name) for name in listed.stdout.split("\0") if name} | {PARAMS}
    return {path for path in paths if path.is_file()}


def _results() -> set[Path]:
    found = (Path(base, name) for base, _, names in os.walk(RESULTS) for name in names)
    return {path for path in found if not path.is_relative_to(LOGS)}  # written in place, and nothing depends on them


def describe_into(output: Path) -> bytes:
    """Describe the environment as the pipeline does, into `output`, and return what was written."""
    if run_to_end([sys.executable, "-m", "stages.environment", "--output", str(output)]):
        raise UserError("the environment could not be described; the reason stands above.")
    return output.read_bytes()


def require_same_environment(commit: Commit, before: bytes, after: bytes, remedy: str) -> None:
    """Raise `UserError` where a commit's environment, as it is described, is not what it was before."""
    if before != after:
        changed = "; ".join(each.sentence for each in differences(json.loads(before), json.loads(after)))
        raise UserError(
            f"The environment changed while {commit} was measured ({changed}): a package was installed, a setting of "
            f"the machine changed, or the checkout was edited. {remedy}"
        )


def require_measured(checkout: Path, described: Mapping[Commit, Path]) -> list[str]:
    """Return the packages in which the commits differ for a measurement; `described` has each one's description.

    Raises `UserError` where two commits have the same: either nothing that is measured comes from the checkout, or they
    do not differ in it.
    """
    versions = {commit: read_json(path)["packages"] for commit, path in described.items()}
    first, *others = versions
    old = versions[first]
    packages: set[str] = set()
    for other in others:
        new = versions[other]
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        if not changed:
            raise UserError(
                f"To a measurement, {first} and {other} are the same: no package that it runs on differs. Install the "
                f"checkout where hfbench is installed (`pip install --editable {checkout}`), and give commits that "
                "differ in it."
            )
        packages |= changed
    return sorted(packages)
