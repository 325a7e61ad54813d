"""The stage runs at every `dvc repro`: where nothing changed it is quick, and leaves its file's bytes as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import Manifest
from tests.model.conftest import ROOT, Project

HEAVY = {"torch", "transformers", "huggingface_hub", "numpy", "safetensors", "tokenizers", "polars"}
REPORT_IMPORTS = (
    "-c",
    "import runpy, sys\n"
    "sys.argv[0] = 'stages.model'\n"
    "runpy.run_module('stages.model', run_name='__main__')\n"
    "print(*{name.split('.')[0] for name in sys.modules})",
)
RANDOM = {"source": "random", "config": str(ROOT / "configs/stories-15m.json"), "seed": 0}


def _of_smollm2(smollm2: Manifest, _: Path) -> dict[str, Any]:
    return {"model": smollm2.source}


def _of_folder(_: Manifest, folder: Path) -> dict[str, Any]:
    return {"model": {"source": "local", "path": str(folder)}}


def _random_of_smollm2(smollm2: Manifest, _: Path) -> dict[str, Any]:
    return {"model": {**RANDOM, "tokenizer": "smollm2"}, "smollm2": smollm2.source}


def _random_of_folder(_: Manifest, folder: Path) -> dict[str, Any]:
    return {"model": {**RANDOM, "tokenizer": str(folder)}}


@pytest.mark.parametrize("make", [_of_smollm2, _of_folder, _random_of_smollm2, _random_of_folder])
def test_nothing_heavy_is_imported_and_the_file_stays(
    project_on_this_machine: Project,
    smollm2: Manifest,
    model_folder: Path,
    make: Callable[[Manifest, Path], dict[str, Any]],
) -> None:
    project = project_on_this_machine
    project.write(**make(smollm2, model_folder))
    project.resolve("model")
    path = project.manifest_path("model")
    before = (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes())
    result = project.run("model", REPORT_IMPORTS)
    assert result.returncode == 0, result.stderr
    assert not HEAVY & set(result.stdout.split())
    assert result.stderr == ""
    assert (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) == before


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 1}', '{"schema_version": 0, "name": "model"}'])
def test_a_previous_file_that_is_no_manifest_is_replaced(project: Project, model_folder: Path, content: str) -> None:
    project.write(**{"model": {"source": "local", "path": str(model_folder)}})
    project.manifest_path("model").parent.mkdir(parents=True)
    project.manifest_path("model").write_text(content)
    assert project.resolve("model").model_type == "llama"
