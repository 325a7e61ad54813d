"""The source `local`: a folder is used where it is, and an edit of it is noticed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.sources import LocalSource
from hfbench.model.folder import REMEMBERED_FROM_BYTES, remembered_sha256, sha256_of
from hfbench.model.local import resolve_local
from hfbench.model.manifest import materialise
from tests.model.conftest import Project

pytestmark = pytest.mark.usefixtures("own_cache")


def _source(folder: Path) -> LocalSource:
    return LocalSource(source="local", path=str(folder))


def test_resolves_the_folder_and_materialises_it_in_place(model_folder: Path) -> None:
    (model_folder / "optimizer.pt").write_bytes(b"not the model")
    manifest = resolve_local("mine", _source(model_folder), None)
    assert (manifest.name, manifest.architecture, manifest.vocab_size) == ("mine", "LlamaForCausalLM", 600)
    assert {file.path: file.sha256 for file in manifest.files} == {
        path.name: sha256_of(path) for path in model_folder.iterdir() if path.name != "optimizer.pt"
    }
    assert materialise(manifest) == model_folder


def test_an_unchanged_folder_gives_the_previous_manifest(model_folder: Path) -> None:
    first = resolve_local("mine", _source(model_folder), None)
    (model_folder / "trainer_state.json").write_text("{}")
    assert resolve_local("mine", _source(model_folder), first) is first


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_edit_gives_a_new_manifest_and_the_old_one_is_refused(model_folder: Path, name: str) -> None:
    first = resolve_local("mine", _source(model_folder), None)
    content = bytearray((model_folder / name).read_bytes())
    content[-2] ^= 1 if name == "model.safetensors" else 0
    (model_folder / name).write_bytes(content + (b"" if name == "model.safetensors" else b"\n"))
    with pytest.raises(UserError, match=f"{name} changed since the manifest of 'mine' was written; run `dvc repro`"):
        materialise(first)
    second = resolve_local("mine", _source(model_folder), first)
    assert [new.path for new, old in zip(second.files, first.files, strict=True) if new != old] == [name]
    assert materialise(second) == model_folder


def test_a_new_weights_file_that_would_be_loaded_instead_is_noticed(model_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(sharded, max_shard_size="100KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_folder / name, sharded)
    manifest = resolve_local("mine", _source(sharded), None)
    assert len([file for file in manifest.files if file.path.startswith("model-")]) > 1
    assert materialise(manifest) == sharded
    shutil.copy(model_folder / "model.safetensors", sharded)
    with pytest.raises(UserError, match="run `dvc repro`"):
        materialise(manifest)


def test_a_big_file_is_read_again_only_when_its_size_or_mtime_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * REMEMBERED_FROM_BYTES)
    known = remembered_sha256(path)
    assert known == sha256_of(path)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"b" * REMEMBERED_FROM_BYTES)
    os.utime(path, ns=times)
    assert remembered_sha256(path) == known, "it was not read again"
    os.utime(path, ns=(times[0], times[1] + 1))
    assert remembered_sha256(path) == sha256_of(path) != known
    link = tmp_path / "link"
    link.symlink_to(path)
    assert remembered_sha256(link) == sha256_of(path)


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def _only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _lost_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (shutil.rmtree, "does not exist"),
        (_without("config.json"), "has no config.json"),
        (_without("model.safetensors"), r"no safetensors weights \(model.safetensors\). Save"),
        (
            _only_pickled,
            r"only PyTorch ones \(pytorch_model.bin\). Load and convert them with transformers' save_pretr",
        ),
        (_without("tokenizer.json"), "has no tokenizer"),
        (_lost_shard, "names model-00001-of-00002.safetensors, which is not there"),
        (_config(model_type="vit"), "'vit', which transformers does not run as a causal language model"),
        (_config(model_type="lama"), "transformers cannot read config.json"),
        (_config(model_type=None), "no model_type"),
        (_config(num_attention_heads="many"), "cannot read config.json .*num_attention_heads"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    model_folder: Path, damage: Callable[[Path], object], expected: str
) -> None:
    damage(model_folder)
    with pytest.raises(UserError, match=expected) as caught:
        resolve_local("mine", _source(model_folder), None)
    assert str(model_folder) in str(caught.value)


@pytest.mark.usefixtures("own_modules")
def test_code_in_the_folder_runs_only_where_params_allow_it(model_folder: Path, tmp_path: Path) -> None:
    _config(model_type="own-llama", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnLM"})(
        model_folder
    )
    ran = tmp_path / "ran"
    (model_folder / "own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import LlamaConfig\n"
        "class Own(LlamaConfig):\n    model_type = 'own-llama'\n"
    )
    with pytest.raises(UserError, match="Set trust_remote_code: true for it"):
        resolve_local("mine", _source(model_folder), None)
    assert not ran.exists()
    trusted = LocalSource(source="local", path=str(model_folder), trust_remote_code=True)
    manifest = resolve_local("mine", trusted, None)
    assert ran.exists()
    assert manifest.architecture == "OwnLM"
    (model_folder / "own.py").write_text("# edited")
    with pytest.raises(UserError, match=r"own\.py changed"):
        materialise(manifest)


def test_the_stage_says_so_in_a_sentence(project: Project, model_folder: Path) -> None:
    (model_folder / "config.json").unlink()
    project.write(mine={"source": "local", "path": str(model_folder)})
    project.fails("mine", f"hfbench: {model_folder} has no config.json")
