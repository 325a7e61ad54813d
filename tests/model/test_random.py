"""The source `random`: any causal architecture, the same weights for the same seed, a tokenizer from elsewhere."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.core.sources import RandomSource
from hfbench.model.architecture import make_config, read_architecture_file
from hfbench.model.manifest import materialise
from hfbench.model.random import find_tokenizer, resolve_random
from tests.model.conftest import ROOT, Project
from tests.model.fake_hub import FakeHub, read_folder

pytestmark = pytest.mark.usefixtures("own_cache")

COMMON = {"vocab_size": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZE = {"hidden_size": 32, "num_hidden_layers": 2}
SMALL = {**SIZE, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
BETWEEN = {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False}
HEADS = {"num_heads": 4, "head_dim": 16, "n_groups": 1}
UNLIMITED = {"time_step_limit": [0.0, float("inf")]}  # not JSON, and in the config.json of the real ones
BESIDE = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
# model_type: (its keys, class, positions)
ARCHITECTURES: dict[str, tuple[dict[str, Any], str, int | None]] = {
    "llama": ({**SMALL, "max_position_embeddings": 77}, "LlamaForCausalLM", 77),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, "GPT2LMHeadModel", 64),
    "gpt_neox": (SMALL, "GPTNeoXForCausalLM", 2048),
    "gemma3_text": ({**SMALL, "head_dim": 8}, "Gemma3ForCausalLM", 131072),
    "qwen2_moe": ({**SMALL, **EXPERTS}, "Qwen2MoeForCausalLM", 32768),
    "phi3": (SMALL, "Phi3ForCausalLM", 4096),
    "opt": ({**SMALL, **OPT}, "OPTForCausalLM", 64),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "BloomForCausalLM", None),
    "mamba": ({**SIZE, "state_size": 4}, "MambaForCausalLM", None),
    "mamba2": ({**SIZE, "state_size": 4, **HEADS, **UNLIMITED}, "Mamba2ForCausalLM", None),
    "jamba": ({**SMALL, "num_experts": 2, **BETWEEN}, "JambaForCausalLM", 262144),
    "lfm2": ({**SMALL, "layer_types": ["conv", "full_attention"]}, "Lfm2ForCausalLM", 128000),
    "falcon_h1": ({**SMALL, **BESIDE}, "FalconH1ForCausalLM", 8192),
}


def _resolve(name: str, source: RandomSource, previous: Manifest | None) -> Manifest:
    return resolve_random(name, source, find_tokenizer(name, source.tokenizer, {}), previous)


def _source(tmp_path: Path, tokenizer: Path | str, content: dict[str, Any], seed: int = 0) -> RandomSource:
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(content))
    return RandomSource(source="random", config=str(path), tokenizer=str(tokenizer), seed=seed)


def _llama(**changes: Any) -> dict[str, Any]:
    return {"model_type": "llama", **COMMON, **SMALL, **changes}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_any_causal_architecture_loads_and_generates(tmp_path: Path, tiny_model: Path, model_type: str) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    keys, architecture, positions = ARCHITECTURES[model_type]
    source = _source(tmp_path, tiny_model, {"model_type": model_type, **COMMON, **keys})
    manifest = _resolve("any", source, None)
    assert (manifest.architecture, manifest.model_type) == (architecture, model_type)
    assert (manifest.vocab_size, manifest.max_position_embeddings) == (256, positions)
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest

    folder = materialise(manifest)
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    tokens = model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=3, min_new_tokens=3)
    assert tokens.shape == (1, 6)


def test_the_tokenizer_is_there_even_with_more_ids_than_the_model(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    folder = materialise(_resolve("any", _source(tmp_path, tiny_model, _llama()), None))
    for name in ("config.json", "generation_config.json"):
        noted = json.loads((folder / name).read_text())["transformers_version"]
        assert noted == "5.0.0", "the same bytes whichever transformers builds it, and no warning from its tokenizer"
    text = "the same ids as from the tokenizer's own folder"
    assert AutoTokenizer.from_pretrained(folder)(text) == AutoTokenizer.from_pretrained(tiny_model)(text)


def test_the_seed_decides_the_weights(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def weights(seed: int) -> Any:
        manifest = _resolve("any", _source(tmp_path, tiny_model, _llama(), seed), None)
        return next(file for file in manifest.files if file.path == "model.safetensors").sha256

    first = weights(7)
    state = torch.get_rng_state()
    monkeypatch.setenv("HFBENCH_CACHE", str(tmp_path / "another-cache"))
    assert weights(7) == first
    assert weights(8) != first
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on as they would have"


def test_what_is_unchanged_gives_the_previous_manifest(tmp_path: Path, model_folder: Path) -> None:
    source = _source(tmp_path, model_folder, _llama())
    first = _resolve("any", source, None)
    Path(source.config).write_text(json.dumps(_llama(), indent=4))
    assert _resolve("any", source, first) is first

    Path(source.config).write_text(json.dumps(_llama(num_hidden_layers=1)))
    assert _resolve("any", source, first).files != first.files
    Path(source.config).write_text(json.dumps(_llama()))
    with (model_folder / "tokenizer.json").open("a") as file:
        file.write("\n")
    changed = [file.path for file in _resolve("any", source, first).files if file not in first.files]
    assert changed == ["tokenizer.json"]


def test_the_manifest_alone_builds_the_model_again(tmp_path: Path, tiny_model: Path, own_cache: Path) -> None:
    source = _source(tmp_path, tiny_model, _llama())
    manifest = _resolve("any", source, None)
    before = read_folder(materialise(manifest))
    shutil.rmtree(own_cache)
    Path(source.config).unlink()
    assert read_folder(materialise(manifest)) == before

    elsewhere = dataclasses.replace(manifest.files[0], sha256="0" * 64)
    other = dataclasses.replace(manifest, files=(elsewhere, *manifest.files[1:]))
    with pytest.raises(
        UserError, match=rf"gives other files than its manifest says \({elsewhere.path}; torch .* Delete"
    ):
        materialise(other)


def test_of_a_hub_entry_only_the_tokenizer_is_fetched(
    project: Project, hub: FakeHub, tiny_model: Path, tmp_path: Path
) -> None:
    files = read_folder(tiny_model)
    hub.commit("someone/huge", files)
    source = _source(tmp_path, "huge", _llama())
    project.write(any=source.model_dump(), huge={"source": "hub", "repository": "someone/huge"})
    manifest = project.resolve("any")
    assert (materialise(manifest) / "tokenizer.json").read_bytes() == files["tokenizer.json"]
    assert not any("safetensors" in request for request in hub.requests)
    hub.requests.clear()
    assert project.resolve("any") == manifest
    assert hub.requests == []
    project.move_to(tmp_path / "another-machine")
    assert (materialise(manifest) / "tokenizer.json").read_bytes() == files["tokenizer.json"]


def test_two_projects_share_what_is_built(tmp_path: Path, tiny_model: Path, model_folder: Path) -> None:
    first = _resolve("one", _source(tmp_path, tiny_model, _llama()), None)
    second = _resolve("two", _source(tmp_path, model_folder, _llama()), None)
    assert materialise(first) == materialise(second)
    assert second.name == "two"
    assert second.provenance["tokenizer"]["folder"] == str(model_folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not valid JSON"),
        ("[]", "model_type is missing"),
        ({"hidden_size": 32}, "model_type is missing"),
        ({"model_type": "lama"}, "model_type is 'lama', which transformers does not know. Expected .*, perhaps llama"),
        ({"model_type": "vit"}, "model_type is 'vit', which transformers does not run as a causal language model"),
        ({"model_type": "t5"}, "model_type is 't5', which transformers does not run as a causal language model"),
        (
            {**COMMON, "model_type": "llama", "hiden_size": 32},
            "hiden_size is no key of LlamaConfig. Did you mean hidden",
        ),
        (_llama(hidden_size="wide"), 'hidden_size is "wide", with which .*expected int, got str'),
        (_llama(hidden_size=33), "hidden_size is 33, with which .*multiple of the number of attention heads"),
        (_llama(pad_token_id=256), "pad_token_id is 256, with which"),
        (_llama(pad_token_id=-1), "pad_token_id is -1, outside vocab_size, 256"),
        (_llama(hidden_act="sillu"), 'hidden_act is "sillu", with which'),
    ],
)
def test_a_file_that_is_no_causal_architecture_is_refused(
    tmp_path: Path, tiny_model: Path, content: Any, expected: str
) -> None:
    source = _source(tmp_path, tiny_model, {})
    path = Path(source.config)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=expected) as caught:
        _resolve("any", source, None)
    assert str(path) in str(caught.value)


def test_a_config_of_a_real_repository_is_taken_with_its_legacy_keys() -> None:
    legacy = {"torch_dtype": "float16", "rope_theta": 5e5, "rope_scaling": None, "n_ctx": 64, "_name_or_path": "x"}
    legacy |= {"architectures": ["LlamaForCausalLM"], "transformers_version": "4.31.0", "pretraining_tp": 1}
    config = make_config(json.dumps(_llama(**legacy)), "config.json")
    assert config.rope_parameters["rope_theta"] == 5e5


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ("absent", "'absent', which is neither another entry of models nor a folder"),
        ("any", "names 'any', a random model, which has no tokenizer of its own"),
        ("also-random", "names 'also-random', a random model"),
        (".", "has no tokenizer"),
    ],
)
def test_a_tokenizer_must_come_from_somewhere(project: Project, tmp_path: Path, tokenizer: str, expected: str) -> None:
    entry = _source(tmp_path, tokenizer, _llama()).model_dump()
    project.write(**{"any": entry, "also-random": entry})
    project.assert_fails("any", expected)


def test_a_missing_architecture_file(project: Project, tmp_path: Path) -> None:
    entry = {**_source(tmp_path, ".", _llama()).model_dump(), "config": "configs/absent.json"}
    project.write(any=entry)
    project.assert_fails("any", "the architecture file configs/absent.json cannot be read")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("stories-15m", 15_191_712),
        ("stories-36m-moe", 36_358_560),
        ("gpt2-124m", 124_439_808),
        ("gemma3-1b", 999_885_952),
    ],
)
def test_the_shipped_architectures_have_the_parameters_of_the_real_models(name: str, parameters: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = str(ROOT / "configs" / f"{name}.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_config(read_architecture_file(path), path))
    assert model.num_parameters() == parameters
    assert f"| `{name}.json` | {parameters:,} |" in (ROOT / "configs/README.md").read_text()
