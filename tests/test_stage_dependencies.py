"""A stage depends on the rooms that it imports, whole: all that it imports is under its `deps`, and no more rooms."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# One runs at every `dvc repro` and needs no dependencies.
HASHED = sorted(name for name, stage in STAGES.items() if not stage.get("always_changed"))


def _module_file(module: str) -> Path | None:
    """The file of a module of ours, or None for a package (its __init__ is empty) and for anybody else's."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if module.split(".")[0] in {"hfbench", "stages"} and path.is_file() else None


@cache
def _named_modules(path: Path) -> frozenset[str]:
    """Every module that a file imports anywhere in it, or names in a string, as for `python -m`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that a reader and this test can follow them"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return frozenset(names)


def _imported(path: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += [file for name in _named_modules(current) if (file := _module_file(name))]
    return found


def _declared(stage: dict[str, Any]) -> set[Path]:
    files: set[Path] = set()
    for dependency in stage["deps"]:
        path = ROOT / dependency
        if path.is_dir() and dependency.startswith(("hfbench", "stages")):
            files |= set(path.rglob("*.py"))
        elif path.suffix == ".py":
            files.add(path)
    return {file for file in files if file.read_text().strip()}


def _rooms(files: set[Path]) -> set[str]:
    return {file.relative_to(ROOT).parts[1] for file in files}


def _script(stage: dict[str, Any]) -> Path:
    words = stage["cmd"].split()
    assert words[:2] == ["python", "-m"], "stages run as modules: as a script, stages/ would come first on the path"
    script = _module_file(words[2])
    assert script is not None
    return script


@pytest.mark.parametrize("name", HASHED)
def test_dependencies_are_the_imports(name: str) -> None:
    stage = STAGES[name]
    imported, declared = _imported(_script(stage)), _declared(stage)
    assert not imported - declared, "imported, and not under deps: an edit would go unnoticed"
    assert _rooms(declared) <= _rooms(imported), "a room under deps of which nothing is imported"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_stage_scripts_are_thin(name: str) -> None:
    source = _script(STAGES[name]).read_text()
    assert len(source.splitlines()) <= 40
    arithmetic = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.BinOp)]
    assert all(isinstance(node.op, ast.Div) for node in arithmetic), "a stage script only joins paths"


def test_only_the_rooms_that_may_import_torch_and_polars_do() -> None:
    allowed = {
        "torch": ("hfbench/measure/", "hfbench/ceilings/", "hfbench/model/", "hfbench/profile/"),
        "polars": ("hfbench/tables/", "hfbench/compare/", "hfbench/report/", "hfbench/profile/", "hfbench/checkouts/"),
    }
    for path in [*(ROOT / "hfbench").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        place = path.relative_to(ROOT).as_posix()
        packages = {name.split(".")[0] for name in _named_modules(path)}
        for package, rooms in allowed.items():
            if package in packages:
                assert place.startswith(rooms), f"{place} imports {package}"
