"""The stage as DVC runs it: a real process, on this machine."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfbench.core.results import DTYPES, ENVIRONMENT
from hfbench.environment.accelerators import describe_accelerators
from tests.conftest import ROOT, run_stage
from tests.environment.conftest import commit_all


def describe(folder: Path, *words: str, **variables: str) -> dict[str, Any]:
    """Have the stage describe this machine in `folder`, with these variables alone, and return what it wrote."""
    command = [sys.executable, "-m", "stages.environment", "--output", "environment.json", *words]
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    subprocess.run(command, cwd=folder, env=inherited, check=True)
    return dict(json.loads((folder / "environment.json").read_bytes()))


def strings(value: Any) -> Iterator[str]:
    """Yield each key and each text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return describe(tmp_path_factory.mktemp("description"))


def test_two_processes_in_different_places_write_equal_bytes(tmp_path: Path) -> None:
    outputs = []
    for place, seed in (("first", "1"), ("second", "2")):
        folder = tmp_path / place
        folder.mkdir()
        variables = {
            "HOME": str(folder),
            "HOSTNAME": place,
            "USER": place,
            "TMPDIR": str(folder),
            "LANG": f"{place}.UTF-8",
        }
        variables |= {"PYTHONHASHSEED": seed, "HF_HOME": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder)}
        describe(folder, **variables)
        outputs.append((folder / "environment.json").read_bytes())
    assert outputs[0] == outputs[1]


def test_description_names_neither_a_place_nor_the_host(description: dict[str, Any]) -> None:
    texts = list(strings(description))
    assert "machine" in texts
    assert not [text for text in texts if text.startswith(("/", "~")) or str(Path.home()) in text or str(ROOT) in text]
    assert socket.gethostname() not in texts


def test_description_is_of_this_machine(description: dict[str, Any]) -> None:
    assert description["system"]["kernel"] == os.uname().release
    assert description["python"]["version"] == sys.version.split()[0]
    assert description["cpu"]["available_logical_cores"] == len(os.sched_getaffinity(0))
    assert description["cpu"]["brand"]
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert description["memory"]["total_gib"] == pytest.approx(physical / 2**30, abs=0.5)
    assert "hfbench" not in description["packages"]
    assert {"torch", "transformers", "tokenizers", "huggingface-hub"} <= set(description["packages"])
    assert list(description["packages"]) == sorted(description["packages"])


def test_missing_drivers_are_no_devices_and_no_notes(tmp_path: Path) -> None:
    from hfbench.environment.vendors import AmdProbe, IntelProbe

    assert describe_accelerators([AmdProbe(tmp_path), IntelProbe(tmp_path)]) == ([], [])


def test_variables_that_matter_are_all_that_a_variable_changes(tmp_path: Path, description: dict[str, Any]) -> None:
    found = describe(tmp_path, OMP_NUM_THREADS="1", HF_TOKEN="hf_secret")
    assert found == {**description, "variables": {"OMP_NUM_THREADS": "1"}}


def test_affinity_of_the_process_counts(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})  # a child inherits it
        found = describe(tmp_path)
    finally:
        os.sched_setaffinity(0, allowed)
    assert found["cpu"]["available_logical_cores"] == 1


def test_library_from_a_checkout_on_pythonpath_is_told_by_its_commit(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    repository = tmp_path / "checkout"
    package = repository / "src" / "accelerate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    commit = commit_all(repository)
    shadowed = describe(tmp_path, PYTHONPATH=os.pathsep.join([str(package.parent), str(ROOT)]))["packages"]

    installed = description["packages"]["accelerate"]
    assert set(installed) == {"version"}, "a virtual environment within a git checkout is no checkout"
    assert shadowed == {**description["packages"], "accelerate": {**installed, "commit": commit, "uncommitted": None}}


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("sweep", "dtype", ["bfloat17"], "sweep.dtype.0 is 'bfloat17'"),
        ("sweep", "model", ["nobody"], "sweep.model names 'nobody'"),
        ("sampling", "min_iterations", "six", "sampling.min_iterations is 'six'"),
    ],
)
def test_bad_params_end_the_run_before_anything_is_written(
    tmp_path: Path, section: str, key: str, value: object, expected: str
) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content[section][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    result = run_stage("environment", tmp_path)

    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()


def test_the_stage_imports_no_heavy_library(tmp_path: Path) -> None:
    program = """
import runpy, sys
sys.argv = ["environment"]
runpy.run_module("stages.environment", run_name="__main__")
print(sorted({"torch", "transformers", "polars", "numpy", "huggingface_hub"} & set(sys.modules)))
"""
    for name in ("params.yaml", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    assert json.loads((tmp_path / DTYPES).read_text()) == ["bfloat16"]
    assert (tmp_path / ENVIRONMENT).is_file()
