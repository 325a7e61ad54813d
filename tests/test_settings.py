"""What a point depends on beside its axes: an edit changes just the settings of the points that use it."""

from pathlib import Path
from typing import Any

import pytest

from hfbench.foundation.configuration import Settings
from hfbench.foundation.errors import UserError
from hfbench.foundation.params import load_params
from hfbench.settings import folder_sha256, settings_name, settings_of
from tests.measurement.test_support import point
from tests.test_params import write

PLAIN = point()
COMPILED = point(compile_mode="default")
BATCHED = point(continuous_batching=True)
KERNELIZED = point(use_kernels=True)
HUB_ATTENTION = point(attn_implementation="kernels-community/flash-attn3")


def settings(tmp_path: Path, changes: dict[str, Any]) -> list[Settings]:
    params = load_params(write(tmp_path / "params.yaml", lambda content: content.update(changes)))
    return [settings_of(each, params) for each in (PLAIN, COMPILED, BATCHED, KERNELIZED, HUB_ATTENTION)]


@pytest.fixture
def kernel(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "kernel"
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "layers.py").write_text("x = 1\n")
    return {"layer": "RMSNorm", "device": "cpu", "path": str(folder), "layer_name": "Norm"}


def changed(before: list[Settings], after: list[Settings]) -> list[bool]:
    return [one != other for one, other in zip(before, after, strict=True)]


def test_an_edit_changes_the_settings_that_use_it(tmp_path: Path, kernel: dict[str, Any]) -> None:
    flash = {"layer": "x", "device": "cuda", "repository": "kernels-community/flash-attn3", "revision": "abc"}
    before = settings(tmp_path, {})
    assert before[0] == Settings()
    assert changed(before, settings(tmp_path, {"compile": {"dynamic": True}})) == [False, True, False, False, False]
    batching = {"continuous_batching": {"page_size": 128}}
    assert changed(before, settings(tmp_path, batching)) == [False, False, True, False, False]
    assert changed(before, settings(tmp_path, {"kernels": [kernel]})) == [False, False, False, True, False]
    pinned = settings(tmp_path, {"kernels": [{**flash, "layer_name": "y"}]})
    assert changed(before, pinned) == [False, False, False, True, True]


def test_an_edited_kernel_is_another(tmp_path: Path, kernel: dict[str, Any]) -> None:
    before = settings(tmp_path, {"kernels": [kernel]})
    folder = Path(kernel["path"])
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "layers.pyc").write_bytes(b"compiled")
    assert not any(changed(before, settings(tmp_path, {"kernels": [kernel]})))
    (folder / "build" / "layers.py").write_text("x = 2\n")
    assert changed(before, settings(tmp_path, {"kernels": [kernel]})) == [False, False, False, True, False]


def test_a_kernel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"kernels names the folder .*nowhere"):
        folder_sha256(tmp_path / "nowhere")


def test_settings_are_kept_in_files_that_dvc_can_name(tmp_path: Path, kernel: dict[str, Any]) -> None:
    assert settings_name(HUB_ATTENTION) == "kernels-community/flash-attn3-off-false-false.json"
    for each in settings(tmp_path, {"kernels": [kernel]}):
        each.save(tmp_path / "settings.json")
        assert Settings.load(tmp_path / "settings.json") == each
