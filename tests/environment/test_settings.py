"""What a point depends on beside its axes: an edit changes just the settings of the points that use it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.record import Settings
from hfbench.core.results import settings_path
from hfbench.environment.settings import settings_of
from hfbench.params.schema import load_params
from tests.conftest import ROOT
from tests.measure.test_support import point
from tests.params.test_schema import write

PLAIN = point()
COMPILED = point(compile_mode="default")
BATCHED = point(continuous_batching=True)
KERNELIZED = point(use_kernels=True)
HUB_ATTENTION = point(attn_implementation="kernels-community/flash-attn3")


def settings(tmp_path: Path, changes: dict[str, Any], *, on_cpu: bool = True) -> list[Settings]:
    params = load_params(write(tmp_path / "params.yaml", lambda content: content.update(changes)))
    return [settings_of(each, params, on_cpu=on_cpu) for each in (PLAIN, COMPILED, BATCHED, KERNELIZED, HUB_ATTENTION)]


@pytest.fixture
def kernel(tmp_path: Path) -> dict[str, Any]:
    """An entry of the shipped kernel, in a copy."""
    folder = shutil.copytree(ROOT / "examples/kernels/rmsnorm-cpu", tmp_path / "kernel")
    return {"layer": "RMSNorm", "device": "cpu", "path": str(folder), "layer_name": "RMSNorm"}


def layers(kernel: dict[str, Any]) -> Path:
    return Path(kernel["path"]) / "build/torch-universal/layers.py"


def changed(before: list[Settings], after: list[Settings]) -> list[bool]:
    return [one != other for one, other in zip(before, after, strict=True)]


def test_an_edit_changes_the_settings_that_use_it(tmp_path: Path, kernel: dict[str, Any]) -> None:
    flash = {"repository": "kernels-community/flash-attn3", "revision": "0" * 40}
    norm = {**flash, "layer": "RMSNorm", "device": "cuda", "layer_name": "RMSNorm"}
    before = settings(tmp_path, {})
    assert before[0] == Settings()
    assert changed(before, settings(tmp_path, {"compile": {"dynamic": True}})) == [False, True, False, False, False]
    batching = {"continuous_batching": {"page_size": 128}}
    assert changed(before, settings(tmp_path, batching)) == [False, False, True, False, False]
    assert changed(before, settings(tmp_path, {"kernels": [kernel]})) == [False, False, False, True, False]
    pinned = settings(tmp_path, {"kernels": [flash]})
    assert changed(before, pinned) == [False, False, False, False, True]
    assert changed(before, settings(tmp_path, {"kernels": [norm]})) == [False, False, False, True, True]
    moved = settings(tmp_path, {"kernels": [{**flash, "revision": "1" * 40}]})
    assert changed(pinned, moved) == [False, False, False, False, True]
    path = settings_path(HUB_ATTENTION)  # as DVC can name it
    assert path.as_posix() == "results/settings/kernels-community/flash-attn3-off-auto-false-none-false-none-inf.json"
    for each in [*pinned, *settings(tmp_path, {"kernels": [kernel]})]:
        each.save(tmp_path / path)
        assert Settings.load(tmp_path / path) == each


def test_an_edited_kernel_is_another(tmp_path: Path, kernel: dict[str, Any]) -> None:
    before = settings(tmp_path, {"kernels": [kernel]})
    bytecode = layers(kernel).parent / "__pycache__" / "layers.pyc"
    bytecode.parent.mkdir()
    bytecode.write_bytes(b"compiled")
    assert not any(changed(before, settings(tmp_path, {"kernels": [kernel]})))
    with layers(kernel).open("a") as source:
        source.write("# edited\n")
    assert changed(before, settings(tmp_path, {"kernels": [kernel]})) == [False, False, False, True, False]


def test_a_kernel_for_another_device_is_no_part_of_a_point(tmp_path: Path, kernel: dict[str, Any]) -> None:
    other = {**kernel, "device": "cuda", "path": str(tmp_path / "nowhere")}
    before = settings(tmp_path, {"kernels": [kernel, other]})
    assert before[3].kernels[1] == {"layer": "RMSNorm", "device": "cuda"}
    assert settings(tmp_path, {"kernels": [kernel, {**other, "path": str(tmp_path / "elsewhere")}]}) == before
    with layers(kernel).open("a") as source:
        source.write("# edited\n")
    entries = {"kernels": [kernel, {**kernel, "device": "cuda"}]}
    assert changed(before, settings(tmp_path, entries)) == [False, False, False, True, False]
    on_accelerator = settings(tmp_path, entries, on_cpu=False)[3].kernels
    assert ["sha256" in each for each in on_accelerator] == [False, True]


def test_of_a_kernel_counts_what_can_be_loaded(tmp_path: Path, kernel: dict[str, Any]) -> None:
    before = settings(tmp_path, {"kernels": [kernel]})
    build = layers(kernel).parent
    for beside in (
        ".git/index",
        "README.md",
        "build/torch-universal/.layers.py.swp",
        "build/torch-universal/layers.py~",
    ):
        path = Path(kernel["path"]) / beside
        path.parent.mkdir(exist_ok=True)
        path.write_text("not loaded\n")
    build.rename(tmp_path / "elsewhere")
    build.symlink_to(tmp_path / "elsewhere")
    (build / "itself").symlink_to(build)
    assert settings(tmp_path, {"kernels": [kernel]}) == before
    with (tmp_path / "elsewhere" / "layers.py").open("a") as source:
        source.write("# edited\n")
    assert changed(before, settings(tmp_path, {"kernels": [kernel]})) == [False, False, False, True, False]


def test_a_kernel_that_is_not_there_is_told_before_anything_is_measured(tmp_path: Path, kernel: dict[str, Any]) -> None:
    def told(**changes: str) -> str:
        with pytest.raises(UserError) as error:
            settings(tmp_path, {"kernels": [{**kernel, **changes}]})
        return str(error.value)

    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "readme").write_text("no kernel\n")
    assert "nowhere, which has no build/VARIANT/metadata.json" in told(path=str(tmp_path / "nowhere"))
    assert "plain, which has no build/VARIANT/metadata.json" in told(path=str(tmp_path / "plain"))
    assert "layer_name Norm, which" in told(layer_name="Norm")
    assert "defines RMSNorm." in told(layer_name="Norm")
    layers(kernel).write_text("class RMSNorm(:\n")
    assert "layers.py is not valid Python" in told()
    layers(kernel).write_text("from .elsewhere import *\n")
    settings(tmp_path, {"kernels": [kernel]})  # what it defines can only be known by importing it
