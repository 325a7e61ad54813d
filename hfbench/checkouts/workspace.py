"""What a commit of the checkout changes in the description of the environment, on which every measurement depends."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfbench.checkouts.processes import HERE, run_to_end
from hfbench.compare.changes import differences
from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path, require_readable_lock
from hfbench.core.results import LOGS, PARAMS, RESULTS
from hfbench.git import Commit, run_git, uninterrupted

_LOCKS = (Path("dvc.lock"), Path("stages/dvc.lock"))


def dvc(*words: str, python: Path = HERE) -> None:
    """Run DVC, as quietly as stages let it, which run with this interpreter.

    Raises `UserError` where it fails, which says why by itself.
    """
    require_readable_lock()
    status = run_to_end([sys.executable, "-m", "dvc", *words, "--quiet"], python=python)
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


def describe_into(output: Path, python: Path = HERE) -> bytes:
    """Describe the environment as the pipeline does, into `output`, and return what was written."""
    if run_to_end([str(python), "-m", "stages.environment", "--output", str(output)], python=python):
        raise UserError("the environment could not be described; the reason stands above.")
    return output.read_bytes()


def require_same_environment(commit: Commit | str, before: bytes, after: bytes, remedy: str) -> None:
    """Raise `UserError` where a commit's environment, as it is described, is not what it was before."""
    if before != after:
        changed = "; ".join(each.sentence for each in differences(json.loads(before), json.loads(after)))
        raise UserError(
            f"The environment changed while {commit} was measured ({changed}): a package was installed, a setting of "
            f"the machine changed, or the checkout was edited. {remedy}"
        )


def require_measured(described: Mapping[str, Mapping[str, Any]], remedy: str) -> list[str]:
    """Return in what the sides differ for a measurement: packages, and other parts of their environments.

    `described` is the environment of each, by its name. Raises `UserError`, which ends in the remedy, where two have
    the same: either nothing that is measured comes from what was given, or the two do not differ in it.
    """
    first, *others = described
    found: set[str] = set()
    for other in others:
        old, new = described[first], described[other]
        changed = {name for name in old["packages"].keys() | new["packages"].keys() if _differ(name, old, new)}
        changed |= {part for part in old.keys() | new.keys() if part != "packages" and old.get(part) != new.get(part)}
        if not changed:
            raise UserError(f"To a measurement, {first} and {other} are the same: no package differs. {remedy}")
        found |= changed
    return sorted(found)


def _differ(package: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return bool(old["packages"].get(package) != new["packages"].get(package))
