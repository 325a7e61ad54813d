"""The source `hub`, against a hub on loopback; what fails runs as the stage, in a process of its own."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.model.manifest import materialise
from tests.model.conftest import Project
from tests.model.fake_hub import MEMBER_TOKEN, FakeHub, read_folder

REPOSITORY = "someone/tiny-llama"
TINY: dict[str, Any] = {"source": "hub", "repository": REPOSITORY}
NOT_THE_MODEL = {
    "README.md": b"a card",
    "pytorch_model.bin": b"a pickle",
    "consolidated.safetensors": b"the weights again",
    "onnx/model.safetensors": b"the weights once more",
    "tf_model.h5": b"and again",
    "training_args.json": b"{}",
}


@pytest.fixture
def files(tiny_model: Path) -> dict[str, bytes]:
    return read_folder(tiny_model)


def test_resolves_a_branch_to_its_commit_and_fetches_the_model_alone(
    project: Project, hub: FakeHub, files: dict[str, bytes]
) -> None:
    commit = hub.commit(REPOSITORY, {**files, **NOT_THE_MODEL})
    project.write(tiny=TINY)
    manifest = project.resolve("tiny")
    assert manifest.provenance == {"commit": commit}
    assert manifest.source == {**TINY, "revision": "main", "trust_remote_code": False}
    assert {file.path: file.sha256 for file in manifest.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    assert {file.path: file.size_bytes for file in manifest.files} == {
        name: len(content) for name, content in files.items()
    }
    assert (manifest.architecture, manifest.model_type) == ("LlamaForCausalLM", "llama")
    assert (manifest.vocab_size, manifest.max_position_embeddings) == (600, 128)
    assert not [request for request in hub.requests if any(name in request for name in NOT_THE_MODEL)]


def test_an_unchanged_entry_asks_the_hub_nothing(project: Project, hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.commit(REPOSITORY, files)
    project.write(tiny=TINY)
    project.resolve("tiny")
    before = project.manifest_path("tiny").stat()
    hub.commit(REPOSITORY, {**files, "generation_config.json": b"{}"})  # the branch moves on
    hub.requests.clear()
    project.resolve("tiny")
    after = project.manifest_path("tiny").stat()
    assert hub.requests == []
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_another_revision_in_params_is_resolved_anew(project: Project, hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.commit(REPOSITORY, files)
    changed = hub.commit(REPOSITORY, {**files, "generation_config.json": b'{"eos_token_id": 3}'}, branch="pr/1")
    project.write(tiny=TINY)
    project.resolve("tiny")
    project.write(tiny={**TINY, "revision": "pr/1"})
    assert project.resolve("tiny").provenance == {"commit": changed}
    project.write(tiny={**TINY, "revision": changed})
    assert project.resolve("tiny").provenance == {"commit": changed}


def test_of_sharded_weights_those_in_the_index_are_fetched(
    project: Project, hub: FakeHub, files: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(sharded, max_shard_size="100KB")
    del files["model.safetensors"]
    shards = {name for name in read_folder(sharded) if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)}
    assert len(shards) > 1
    stray = {"model-00009-of-00009.safetensors": b"of another time"}
    hub.commit(REPOSITORY, {**files, **read_folder(sharded), **stray})
    project.write(tiny=TINY)
    weights = {file.path for file in project.resolve("tiny").files if ".safetensors" in file.path}
    assert weights == {*shards, "model.safetensors.index.json"}
    AutoModelForCausalLM.from_pretrained(materialise(project.resolve("tiny")), use_safetensors=True)


def test_another_machine_makes_the_same_folder_from_the_manifest(
    project: Project, hub: FakeHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, files)
    project.write(tiny=TINY)
    manifest = project.resolve("tiny")
    hub.commit(REPOSITORY, {**files, "config.json": b"{}"})  # the branch moves on
    project.move_to(tmp_path / "another-machine")
    folder = materialise(manifest)
    assert read_folder(folder) == files

    (folder / "model.safetensors").resolve().write_bytes(b"cut short")
    assert read_folder(materialise(manifest)) == files
    hub.requests.clear()
    assert materialise(manifest) == folder
    assert hub.requests == []
    hub.close()
    project.move_to(tmp_path / "offline-machine")
    start = time.perf_counter()
    with pytest.raises(UserError, match="'tiny' are not all on this machine, and the hub cannot be reached"):
        materialise(manifest)
    assert time.perf_counter() - start < 5, "huggingface_hub alone would retry for half a minute"


def test_content_that_is_not_what_the_hub_announced_is_refused(
    project: Project, hub: FakeHub, files: dict[str, bytes]
) -> None:
    hub.commit(REPOSITORY, files)
    hub.corrupt.add("model.safetensors")
    project.write(tiny=TINY)
    for _ in range(2):  # the second run must not believe what the first left
        project.assert_fails("tiny", "model.safetensors of someone/tiny-llama arrived with other content than expected")
    hub.corrupt.clear()
    assert read_folder(materialise(project.resolve("tiny"))) == files


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"repository": "someone/absent"}, ["no model someone/absent", "HF_TOKEN"]),
        ({"revision": "v9"}, ["no revision 'v9'"]),
        ({"repository": "someone/gated"}, ["gated", "Accept its conditions", "HF_TOKEN"]),
        ({"repository": "someone/pickled"}, ["no safetensors weights", "pytorch_model.bin", "save_pretrained"]),
        ({"repository": "someone/adapter"}, ["no config.json"]),
        ({"repository": "someone/mute"}, ["no tokenizer"]),
    ],
)
def test_what_the_hub_cannot_give_is_said_in_a_sentence(
    project: Project, hub: FakeHub, files: dict[str, bytes], entry: dict[str, str], expected: list[str]
) -> None:
    hub.commit(REPOSITORY, files)
    hub.commit("someone/gated", files)
    hub.repositories["someone/gated"].gated = True
    weights = files.pop("model.safetensors")
    hub.commit("someone/pickled", {**files, "pytorch_model.bin": weights})
    hub.commit("someone/adapter", {"adapter_model.safetensors": weights})
    hub.commit("someone/mute", {"config.json": files["config.json"], "model.safetensors": weights})
    project.write(tiny={**TINY, **entry})
    project.assert_fails("tiny", *expected)


def test_a_gated_model_is_there_for_who_accepted_its_conditions(
    project: Project, hub: FakeHub, files: dict[str, bytes]
) -> None:
    hub.commit(REPOSITORY, files)
    hub.repositories[REPOSITORY].gated = True
    project.write(tiny=TINY)
    project.assert_fails("tiny", "gated")
    project.set("HF_TOKEN", MEMBER_TOKEN)
    assert read_folder(materialise(project.resolve("tiny"))) == files


def test_without_its_manifest_a_branch_is_looked_up_anew(
    project: Project, hub: FakeHub, files: dict[str, bytes]
) -> None:
    first = hub.commit(REPOSITORY, files)
    project.write(tiny=TINY)
    assert project.resolve("tiny").provenance["commit"] == first
    second = hub.commit(REPOSITORY, {**files, "README.md": b"now with words"})
    assert project.resolve("tiny").provenance["commit"] == first, "a branch is resolved once"
    project.manifest_path("tiny").unlink()
    assert project.resolve("tiny").provenance["commit"] == second


def test_what_answers_without_being_a_hub(project: Project, hub: FakeHub) -> None:
    hub.status = 404
    project.write(tiny=TINY)
    project.assert_fails("tiny", "answered 404 where someone/tiny-llama was asked for. If HF_ENDPOINT is set")
    hub.status = 200  # with a page that is no JSON, as a login page of a network
    project.assert_fails("tiny", "cannot be reached (JSONDecodeError")


def test_a_token_that_the_hub_refuses(project: Project, hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.commit(REPOSITORY, files)
    hub.token_is_valid = False
    project.environment["HF_TOKEN"] = "hf_expired"
    project.write(tiny=TINY)
    project.assert_fails("tiny", "refused access to someone/tiny-llama (401)", "HF_TOKEN")


@pytest.mark.parametrize("how", ["closed port", "HF_HUB_OFFLINE", "out of order"])
def test_without_the_hub_its_cache_must_do(
    project: Project, hub: FakeHub, files: dict[str, bytes], how: str, tmp_path: Path
) -> None:
    hub.commit(REPOSITORY, files)
    project.write(tiny=TINY)
    online = project.resolve("tiny")
    project.manifest_path("tiny").unlink()
    if how == "closed port":
        hub.close()
    elif how == "HF_HUB_OFFLINE":
        project.set("HF_HUB_OFFLINE", "1", HF_HUB_OFFLINE=True)
    else:
        hub.status = 503
    assert project.resolve("tiny") == online
    project.manifest_path("tiny").unlink()
    next(project.huggingface.rglob("snapshots/*/model.safetensors")).unlink()
    project.assert_fails("tiny", "cannot be reached", "not whole in its cache", "no safetensors")
    project.move_to(tmp_path / "another-machine")
    project.assert_fails("tiny", "cannot be reached", "someone/tiny-llama at main is not whole in its cache")


@pytest.mark.usefixtures("own_modules")
def test_code_of_the_repository_runs_only_where_params_allow_it(
    project: Project, hub: FakeHub, files: dict[str, bytes]
) -> None:
    config = {
        **json.loads(files["config.json"]),
        "model_type": "own-llama",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    files["config.json"] = json.dumps(config).encode()
    files["own.py"] = (
        b"from transformers import LlamaConfig, LlamaForCausalLM\n"
        b"class OwnConfig(LlamaConfig):\n    model_type = 'own-llama'\n"
        b"class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    hub.commit(REPOSITORY, files)
    project.write(tiny=TINY)
    project.assert_fails("tiny", "own-llama", "Set trust_remote_code: true")
    project.write(tiny={**TINY, "trust_remote_code": True})
    manifest = project.resolve("tiny")
    assert manifest.architecture == "OwnForCausalLM"
    assert "own.py" in {file.path for file in manifest.files}

    config["auto_map"]["AutoModelForCausalLM"] = "someone/elsewhere--own.OwnForCausalLM"
    hub.commit(REPOSITORY, {**files, "config.json": json.dumps(config).encode()}, branch="v2")
    project.write(tiny={**TINY, "trust_remote_code": True, "revision": "v2"})
    project.assert_fails("tiny", "code is that of another repository", "someone/elsewhere--own.OwnForCausalLM")
