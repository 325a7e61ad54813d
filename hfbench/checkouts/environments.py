"""What a commit of the checkout changes in the description of the environment, on which every measurement depends."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfbench.checkouts.processes import run_to_end
from hfbench.checkouts.repository import Commit
from hfbench.checkouts.workspace import PARAMS
from hfbench.comparison.differences import differences
from hfbench.foundation.errors import UserError
from hfbench.foundation.files import read_json


def describe_into(folder: Path, output: Path) -> bytes:
    """Run the stage `environment` of the pipeline in `folder` into `output`, and return what it wrote."""
    folders = [word for name in ("sources", "settings") for word in (f"--{name}", str(output.parent / name))]
    words = ["--params", str(PARAMS), "--output", str(output), *folders]
    if run_to_end([sys.executable, "-m", "stages.environment", *words], folder, own_group=False):
        raise UserError("the environment could not be described; the reason stands above.")
    return output.read_bytes()


def changed_packages(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the packages whose commit or version differs between two descriptions of the environment."""
    old, new = before["packages"], after["packages"]
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def what_changed(before: bytes, after: bytes) -> str:
    """Return in words where two descriptions of the environment differ."""
    return "; ".join(each.sentence for each in differences(json.loads(before), json.loads(after)))


def require_measured(checkout: Path, described: Mapping[Commit, Path]) -> list[str]:
    """Return the packages in which the commits differ for a measurement; `described` has each one's description.

    Raises `UserError` where two commits have the same: either nothing that is measured comes from the checkout, or they
    do not differ in it.
    """
    contents = {commit: read_json(path) for commit, path in described.items()}
    first, *others = contents
    packages: set[str] = set()
    for other in others:
        changed = changed_packages(contents[first], contents[other])
        if not changed:
            raise UserError(
                f"To a measurement, {first} and {other} are the same: no package that it runs on differs. Install the "
                f"checkout where hfbench is installed (`pip install --editable {checkout}`), and give commits that "
                "differ in it."
            )
        packages.update(changed)
    return sorted(packages)
