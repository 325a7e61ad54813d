"""The source `local`: a folder is used where it is, and an edit of it is noticed."""

import ast
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.core.sources import LocalSource
from hfbench.model.cache import size_text
from hfbench.model.folder import (
    REMEMBERED_FROM_BYTES,
    TOKENIZER_FILES,
    remembered_sha256,
    sha256_of,
    support_files,
    tokenizer_files,
    weight_files,
)
from hfbench.model.manifest import materialise, resolve_local
from tests.model.conftest import ROOT, Project

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
        (_config(model_type="lama"), "config.json: model_type is 'lama', which transformers does not know"),
        (_config(model_type=None), "config.json: model_type is missing"),
        (_config(num_attention_heads="many"), 'config.json: num_attention_heads is "many", with which'),
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
    project.assert_fails("mine", f"the model mine cannot be had now: {model_folder} has no config.json")


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


def test_every_vocabulary_file_that_transformers_reads_is_known() -> None:
    """Its tokenizers name them in a dictionary at the top of their modules."""
    read: set[str] = set()
    for path in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "VOCAB_FILES_NAMES" for target in node.targets
            ):
                values = node.value.values if isinstance(node.value, ast.Dict) else []
                read |= {str(value.value) for value in values if isinstance(value, ast.Constant)}
    assert {"vocab.json", "spiece.model"} <= read
    assert read <= TOKENIZER_FILES


def test_a_single_weights_file_goes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    names = {"model.safetensors", "model.safetensors.index.json", "model-00001-of-00001.safetensors"}
    assert weight_files(names, "here", lambda: tmp_path / "not read") == ["model.safetensors"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}'])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(UserError, match="is no index of weights"):
        weight_files({index.name}, "here", lambda: index)


def test_code_and_its_vocabulary_count_only_where_code_is_trusted() -> None:
    names = ["config.json", "tokenizer.json", "own.py", "kernels/fast.py", "qwen.tiktoken", "pytorch_model.bin"]
    assert support_files(names, "here", trust_remote_code=False) == ["config.json", "tokenizer.json"]
    trusted = support_files(names, "here", trust_remote_code=True)
    assert trusted == ["config.json", "kernels/fast.py", "own.py", "qwen.tiktoken", "tokenizer.json"]
    assert tokenizer_files(names) == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (269_060_552, "269 MB"),
        (4_900_000_000, "4.9 GB"),
        (2e12, "2000 GB"),
    ],
)
def test_sizes_as_people_write_them(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text
