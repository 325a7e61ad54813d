"""Configs as people publish them: each is measured, or refused in a sentence with the key, before there are weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hfbench.core.errors import UserError
from hfbench.core.record import OK
from hfbench.core.sources import LocalSource
from hfbench.measure.loading import load_model
from hfbench.model.architecture import make_config, read_architecture, read_architecture_file
from hfbench.model.manifest import resolve_local
from tests.measure.conftest import bench  # noqa: F401, a fixture
from tests.measure.stage_process import Bench
from tests.measure.test_support import point
from tests.model.conftest import Project
from tests.model.fake_hub import FakeHub, read_folder

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
GEMMA: dict[str, Any] = {**LLAMA, "head_dim": 8, "sliding_window": 8}
GEMMA4: dict[str, Any] = {
    **GEMMA,
    "model_type": "gemma4_text",
    "vocab_size_per_layer_input": 600,
    "hidden_size_per_layer_input": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "per_layer_config": {"1": {"head_dim": 16}},  # as transformers 5 saves its wider heads of full attention
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GEMMA3 = {
    "model_type": "gemma3",
    "text_config": {**GEMMA, "model_type": "gemma3_text", "torch_dtype": "float16"},
    "vision_config": {**VISION, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14},
    "mm_tokens_per_image": 4,
}
INFINITE = {"model_type": "mamba2", "vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
INFINITE |= {"num_heads": 4, "head_dim": 16, "n_groups": 1}
MPT = {"model_type": "mpt", "vocab_size": 600, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}

PUBLISHED: dict[str, dict[str, Any]] = {
    "two dtypes": {**LLAMA, "dtype": "float16", "torch_dtype": "bfloat16"},
    "nulls": {
        **LLAMA,
        "num_key_value_heads": None,
        "rope_scaling": None,
        "head_dim": None,
        "quantization_config": None,
    },
    "rope as in old files": {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}},
    "rope as in new files": {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "rope of two kinds of layers": {
        **GEMMA,
        "model_type": "gemma3_text",
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        },
    },
    "keys of generation": {**LLAMA, "do_sample": True, "num_beams": 4, "eos_token_id": [1, 2], "max_length": 4096},
    "keys of a classifier": {**LLAMA, "id2label": {"0": "a"}, "num_labels": 1, "pruned_heads": {}, "torchscript": True},
    "attention of another machine": {**LLAMA, "_attn_implementation": "flash_attention_2"},
    "experts in a file": {**LLAMA, "model_type": "mixtral", "num_local_experts": 2, "output_router_logits": True},
    "no cache": {**LLAMA, "use_cache": False},
    "tuples": {**LLAMA, "return_dict": False},
    "all hidden states": {**LLAMA, "output_hidden_states": True},
    "all attentions": {**LLAMA, "output_attentions": True},
    "feed forward in chunks": {**LLAMA, "model_type": "bert", "is_decoder": True, "chunk_size_feed_forward": 4},
    "skipped per layer": {**LLAMA, "per_layer_config": {"1": {"skip": ["mlp"]}}},
    "gemma 4": GEMMA4,
    "gemma 4 with its vision": {"model_type": "gemma4", "text_config": GEMMA4, "vision_config": None},
    "gemma 3 with its vision": GEMMA3,
    "a pattern of layers as a number": {**GEMMA, "model_type": "cohere2", "sliding_window_pattern": 2},
    "layer types by their old names": {**LLAMA, "model_type": "qwen2", "layer_types": ["attention", "attention"]},
    "infinity as JSON has it not": {**INFINITE, "time_step_limit": [0.0, float("inf")]},
    "infinity as transformers saves it": {**INFINITE, "time_step_limit": [0.0, {"__float__": "Infinity"}]},
    "mpt": MPT,
    "a decoder of another name": {**LLAMA, "model_type": "gpt_neox", "is_decoder": False},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_loads_with_its_cache_and_no_more(tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM

    content = PUBLISHED[name]
    AutoModelForCausalLM.from_config(make_config(json.dumps(content), name)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(content))  # not as transformers saves it anew
    described = read_architecture(tmp_path, "here", trust_remote_code=False)
    assert described.vocab_size == 600
    assert described.max_position_embeddings == {"mpt": 64, "mamba2": None}.get(described.model_type, 128)
    asked = point(attn_implementation="eager", dtype="float32")
    model, loading = load_model(tmp_path, asked, torch.device("cpu"), False)
    assert not any(loading.values())
    with torch.no_grad():
        output = model(torch.tensor([[3, 4, 5]]), attention_mask=torch.ones(1, 3, dtype=torch.int64))
    assert output.logits.isfinite().all()
    assert output.get("past_key_values", output.get("cache_params")) is not None
    assert not {"hidden_states", "attentions", "router_logits"} & output.keys()


def test_positions_that_the_padding_takes_are_not_among_those_of_a_prompt(tmp_path: Path) -> None:
    content = {**LLAMA, "model_type": "roberta", "is_decoder": True, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert read_architecture(tmp_path, "here", trust_remote_code=False).max_position_embeddings == 126
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(make_config(json.dumps(content), "roberta")).eval()
    with torch.no_grad():
        assert model(torch.full((1, 126), 5)).logits.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):  # torch has both for an index that is too large
            model(torch.full((1, 127), 5))


@pytest.mark.parametrize(
    "content",
    [
        {
            **{**LLAMA, "use_cache": False, "output_hidden_states": True, "output_attentions": True},
            **{"return_dict": False, "_attn_implementation": "eager"},
        },
        {"model_type": "gemma4", "text_config": GEMMA4, "vision_config": None},
    ],
    ids=["what changes the time", "gemma 4"],
)
def test_a_point_of_what_is_published(
    bench: Bench,  # noqa: F811, the fixture
    model_folder: Path,
    content: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(make_config(json.dumps(content), "here"), dtype=torch.bfloat16)
    model.save_pretrained(model_folder)
    (model_folder / "config.json").write_text(json.dumps(content))
    capsys.readouterr()
    manifest = resolve_local("tiny", LocalSource(source="local", path=str(model_folder)), None)
    said = capsys.readouterr().err
    if "use_cache" in content:
        assert "hfbench sets use_cache, return_dict, output_attentions, output_hidden_states, _attn_imple" in said
    else:
        assert said == ""
    manifest.save(bench.folder / "manifest.json")
    record = bench.measure()
    assert (record.status, record.reason) == (OK, None)
    assert record.effective["cache"] == "DynamicCache"
    assert record.effective["sdpa_calls"] > 0


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"quantization_config": {}}, "quantization_config has no quant_method"),
        ({"text_config": {"quantization_config": {"bits": 4}}}, r"text_config\.quantization_config has no"),
        ({"model_type": "exaone4", "sliding_window_pattern": "LLLG"}, 'sliding_window_pattern is "LLLG"'),
        ({"per_layer_config": {"1": {"num_key_value_heads": 4}}}, "per_layer_config is "),
        ({"per_layer_config": {"7": {"intermediate_size": 48}}}, "per_layer_config is "),
        ({"hidden_size": "32"}, 'hidden_size is "32"'),
        ({"num_hidden_layers": 2.0}, r"num_hidden_layers is 2\.0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_attention_heads": None}, "num_attention_heads is null"),
        ({"tie_word_embeddings": "false"}, 'tie_word_embeddings is "false"'),
        ({"use_return_dict": True}, "use_return_dict is true"),
        ({"rope_theta": "10000.0"}, 'rope_theta is "10000.0"'),
        ({"rope_theta": None}, "rope_theta is null"),
        ({"rope_scaling": "linear"}, 'rope_scaling is "linear"'),
        ({"rope_scaling": {"type": "linear"}}, 'rope_scaling is {"type": "linear"}'),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}, "rope_scaling is {"),
        ({"model_type": "qwen2", "layer_types": ["sliding", "full"]}, r'layer_types is \["sliding", "full"\]'),
        ({"text_config": {"hidden_size": 16}}, "text_config is "),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is true"),
        ({"model_type": "bert"}, "is_decoder is false, which makes BertLMHeadModel an encoder"),
        ({"model_type": "roberta", "is_decoder": False}, "is_decoder is false"),
        ({"model_type": "xlm"}, "causal is false"),
    ],
)
def test_the_key_that_is_at_fault_is_named(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    with pytest.raises(UserError, match=f"^someone/model: config.json: {key}"):
        read_architecture(tmp_path, "someone/model", trust_remote_code=False)


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        ({"compression_config": {"format": "pack-quantized"}}, "compressed-tensors"),
        ({"quantization_config": None}, None),
    ],
)
def test_how_weights_are_quantised_stands_in_the_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], method: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    assert read_architecture(tmp_path, "someone/model", trust_remote_code=False).quant_method == method
    assert ("its weights are quantised" in capsys.readouterr().err) == (method is not None)
    if method is not None:
        with pytest.raises(UserError, match="random ones are none"):
            read_architecture_file(str(tmp_path / "config.json"))


def test_a_fault_deep_in_a_long_part_is_found(tmp_path: Path) -> None:
    content = {**GEMMA3, "text_config": {**GEMMA3["text_config"], "intermediate_size": "wide"}}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'config.json: text_config\.intermediate_size is "wide", with which'):
        read_architecture(tmp_path, "here", trust_remote_code=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quantization_config": {"bits": 4}}, "config.json: quantization_config has no quant_method"),
        ({"rope_scaling": {"type": "mystery"}}, "config.json: rope_scaling is"),
    ],
)
def test_of_a_refused_repository_only_its_config_is_fetched(
    project: Project, hub: FakeHub, tiny_model: Path, changes: dict[str, Any], expected: str
) -> None:
    files = read_folder(tiny_model)
    files["config.json"] = json.dumps({**json.loads(files["config.json"]), **changes}).encode()
    hub.commit("someone/model", files)
    project.write(tiny={"source": "hub", "repository": "someone/model"})
    with pytest.raises(UserError, match=f"someone/model: {expected}"):
        project.resolve("tiny")
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"config.json"}
