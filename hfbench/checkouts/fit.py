"""What keeps an interpreter, and a commit of a checkout that it imports, from measuring: found out before anything is.

`python -m hfbench.checkouts.fit [CHECKOUT]` runs in that interpreter, in the folder of the pipeline.
"""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from os import environ
from pathlib import Path

from hfbench.checkouts.processes import stage_variables
from hfbench.core.errors import UserError

# What a worker imports, all of it.
_IMPORTED = ("torch", "transformers", "hfbench.measure.phases")
# Where transformers' releases are made from: the ranges of all that it can use, installed or not.
_TABLE = "dependency_versions_table.py"
# Those of them that a measurement runs through.
_MEASURED = {"torch", "kernels", "huggingface-hub", "accelerate", "safetensors", "tokenizers", "numpy"}


def require_fit(who: str, python: Path, checkout: Path | None = None) -> None:
    """Raise `UserError` with what to install where the interpreter cannot measure; `who` is what is to be measured."""
    words = [str(python), "-m", "hfbench.checkouts.fit", *([str(checkout)] if checkout else [])]
    try:
        run = subprocess.run(words, env=stage_variables(environ, python), capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{python} cannot be run ({error.strerror}). Name the python of an environment.") from None
    told = run.stdout.strip().splitlines()
    if run.returncode or not told:
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        raise UserError(
            f"{who} cannot be measured: {last}. Install hfbench there: {python} -m pip install --editable ."
        )
    unmet, reasons = json.loads(told[-1])
    if unmet or reasons:
        remedy = f" To install what is asked for: {python} -m pip install {' '.join(map(repr, unmet))}" if unmet else ""
        raise UserError(f"{who} cannot be measured: {'; '.join(reasons)}.{remedy}")


def main() -> None:
    """Print as JSON the requirements that are not met, and in words all that keeps this interpreter from measuring."""
    unmet: list[str] = []
    reasons: list[str] = []
    for whose, line, is_optional in _requirements(Path("pyproject.toml"), Path(sys.argv[1]) if sys.argv[1:] else None):
        if (found := _unmet(line, is_optional=is_optional)) is not None:
            unmet.append(line)
            reasons.append(f"{whose} needs {line}, and {found}")
    for module in _IMPORTED:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a package raises when it is imported
            text = (str(error).strip().splitlines() or [""])[0]
            reasons.append(f"{module} cannot be imported ({type(error).__name__}: {text})")
            break
    print(json.dumps([unmet, reasons]))


def _requirements(pyproject: Path, checkout: Path | None) -> Iterator[tuple[str, str, bool]]:
    """Yield whose requirement each is, and whether it is one only of what is installed."""
    yield from (("hfbench", line, False) for line in _dependencies(pyproject))
    if checkout is None:
        return
    # Of a repository with several projects, such as kernels', the one that is installed may lie below.
    for file in [*checkout.glob("pyproject.toml"), *checkout.glob("*/pyproject.toml")]:
        yield from ((checkout.name, line, False) for line in _dependencies(file))
    for file in checkout.glob(f"src/*/{_TABLE}"):
        yield from ((checkout.name, line, True) for line in _table(file))


def _dependencies(pyproject: Path) -> Sequence[str]:
    content = tomllib.loads(pyproject.read_text(encoding="utf-8")) if pyproject.is_file() else {}
    found: Sequence[str] = content.get("project", {}).get("dependencies", [])
    return found


def _table(file: Path) -> Iterator[str]:
    """Yield the requirements in the dictionary `deps` of a module, which is not run."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from (str(each.value) for each in node.value.values if isinstance(each, ast.Constant))


def _unmet(line: str, *, is_optional: bool) -> str | None:
    """Return in words how a requirement is not met here, or None."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    requirement = Requirement(line)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    if is_optional and canonicalize_name(requirement.name) not in _MEASURED:
        return None
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None if is_optional else "it is not installed"
    is_met = requirement.specifier.contains(version, prereleases=True)
    return None if is_met else f"{requirement.name} {version} is installed"


if __name__ == "__main__":
    main()
