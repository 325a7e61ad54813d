"""The plan of the house, held: a stage is a room, imports run down one list, and one name is one thing."""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

# From the ground up: a room imports from those before it, and within a line nobody imports another.
FLOORS = (
    ("core",),
    ("statistics", "git"),
    ("params", "model", "monitoring", "workers"),
    ("environment", "inputs", "ceilings", "measure", "tables"),
    ("report",),
    ("compare", "exchange", "doctor", "retry"),
    ("checkouts",),
    ("profile", "fleet"),
    ("cli",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MOST_ROOMS, MOST_LINES_OF_DVC_YAML, MOST_CHARACTERS = 5, 130, 130
MOST_FILES, MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 120, 400, 50
STAGES: dict[str, dict[str, Any]] = {
    name: stage
    for file in ("stages/dvc.yaml", "dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}
# One runs at every `dvc repro` and needs no dependencies.
HASHED = sorted(name for name, stage in STAGES.items() if not stage.get("always_changed"))
FILES = sorted((ROOT / "hfbench").rglob("*.py"))


def _module_file(module: str) -> Path | None:
    """The file of a module of ours, or None for a package (its __init__ is empty) and for anybody else's."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if module.split(".")[0] in {"hfbench", "stages"} and path.is_file() else None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _imported_modules(path: Path) -> frozenset[str]:
    """Every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that a reader and this test can follow them"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _started_modules(path: Path) -> set[str]:
    """Every module that a file names in a string, as for `python -m`."""
    constants = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _files(modules: Iterable[str]) -> set[Path]:
    return {file for name in modules if (file := _module_file(name)) is not None}


def _imported(path: Path) -> set[Path]:
    return _files(_imported_modules(path)) - {path}


def _reached(path: Path, *, started: bool = False) -> set[Path]:
    """All that a file imports, and what that imports in turn, and what they start where that counts too."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += [*_imported(current), *(_files(_started_modules(current)) if started else ())]
    return found


def _room(path: Path) -> str:
    """The folder under hfbench that a file is in, or the name of a file that is a room by itself."""
    return path.relative_to(ROOT / "hfbench").parts[0].removesuffix(".py")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _script(stage: dict[str, Any]) -> Path:
    words = stage["cmd"].split()
    assert words[:2] == ["python", "-m"], "stages run as modules: as a script, stages/ would come first on the path"
    script = _module_file(words[2])
    assert script is not None
    return script


@pytest.mark.parametrize("name", HASHED)
def test_a_stage_depends_on_its_script_and_on_the_rooms_that_it_imports_whole(name: str) -> None:
    stage = STAGES[name]
    script = _script(stage)
    code = {each for each in stage["deps"] if each.startswith(("hfbench", "stages"))}
    reached = {_room(path) for path in _reached(script, started=True) if path.is_relative_to(ROOT / "hfbench")}
    # A file below a room, as the standard prompt, is data.
    rooms = {each.removeprefix("hfbench/") for each in code if (ROOT / each).is_dir()}
    assert rooms == reached, "rooms imported are rooms named: no edit goes unnoticed, none runs a stage for nothing"
    assert len(rooms) <= MOST_ROOMS
    assert _name(script) in code


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_script_only_calls(name: str) -> None:
    source = _script(STAGES[name]).read_text()
    assert len(source.splitlines()) <= 40
    arithmetic = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.BinOp)]
    assert all(isinstance(node.op, ast.Div) for node in arithmetic), "a stage script only joins paths"


def test_the_pipeline_fits_on_two_pages() -> None:
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert len(lines) <= MOST_LINES_OF_DVC_YAML
    assert max(map(len, lines)) <= MOST_CHARACTERS


def test_imports_run_down_the_list() -> None:
    up = [
        f"{_name(path)} imports {_name(other)}"
        for path in FILES
        for other in _imported(path) - set((ROOT / "stages").glob("*.py"))
        if _room(path) != _room(other) and FLOOR_OF[_room(other)] >= FLOOR_OF[_room(path)]
    ]
    assert not up


def test_imports_have_no_circles() -> None:
    circles = [_name(path) for path in FILES if any(path in _reached(other) for other in _imported(path))]
    assert not circles


def test_only_the_rooms_that_may_import_torch_and_polars_do() -> None:
    allowed = {
        "torch": {"measure", "ceilings", "model", "profile", "workers"},
        "polars": {"tables", "report", "compare", "checkouts", "profile", "exchange"},
    }
    for path in [*FILES, *(ROOT / "stages").glob("*.py")]:
        packages = {name.split(".")[0] for name in _imported_modules(path)}
        for package in allowed.keys() & packages:
            assert path.is_relative_to(ROOT / "hfbench"), _name(path)
            assert _room(path) in allowed[package], f"{_name(path)} imports {package}"


def _definitions(kind: type[ast.AST]) -> Iterator[tuple[str, Any]]:
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, kind):
                yield _name(path), node


def test_one_name_is_one_thing() -> None:
    classes = Counter(node.name for _, node in _definitions(ast.ClassDef))
    files = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert [name for name, count in chain(classes.items(), files.items()) if count > 1] == []


def test_a_file_is_a_subject_and_a_function_a_thought() -> None:
    lines = {_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert [name for name, count in lines.items() if count > MOST_LINES_OF_A_FILE] == []
    functions = chain(_definitions(ast.FunctionDef), _definitions(ast.AsyncFunctionDef))
    long = [
        f"{name}:{node.name}" for name, node in functions if node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []
    assert len([path for path in FILES if path.stem != "__init__"]) <= MOST_FILES
