"""What loaded models need, counted by hand for some and against torch's own counters for others."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, StaticCache

from hfbench.measure.accounting import cache_layout, count_weights, describe_needs, fill_cache
from hfbench.measure.prompt import Prompt
from hfbench.tables.roofline import decode_bytes_per_step, prefill_flops

TOKENS = 24
BASE: dict[str, Any] = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS: dict[str, dict[str, Any]] = {
    "tied": {"model_type": "llama", **BASE, "tie_word_embeddings": True},
    "untied": {"model_type": "llama", **BASE, "tie_word_embeddings": False},
    "gpt2": {"model_type": "gpt2", "vocab_size": 600, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "mixtral": {"model_type": "mixtral", **BASE, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        **BASE,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        **BASE,
        "num_hidden_layers": 3,
        "sliding_window": 10,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "mamba": {"model_type": "mamba", "vocab_size": 600, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 16},
}
DENSE = ("tied", "untied", "gpt2", "gemma3", "mamba")

_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GROUPS = {"n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_LATENT = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 24}
_ZAMBA = {
    "num_mem_blocks": 1,
    "hybrid_layer_ids": [1, 3],
    "layers_block_type": ["mamba", "hybrid"] * 2,
    "mamba_d_state": 8,
    "mamba_headdim": 16,
    "n_mamba_heads": 8,
    "mamba_ngroups": 1,
    "attention_head_dim": 32,
    "use_shared_attention_adapter": False,
}
# Small models of many architectures, beside BASE. Of some the FLOPs are not known, and this is what their reason says.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gptj": {"rotary_dim": 8},
    "bloom": {"n_head": 4},
    "mpt": {"d_model": 64, "n_heads": 4},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "phi3": {},
    "cohere2": {},
    "gemma3_text": {"sliding_window": 10},
    "modernbert-decoder": {},
    # Its cross-attention to an image rests.
    "trocr": {"d_model": 64, "decoder_layers": 4, "decoder_attention_heads": 4, "decoder_ffn_dim": 96},
    "mixtral": {"num_local_experts": 8, **_EXPERTS},
    "gpt_oss": {"num_local_experts": 8, **_EXPERTS},
    "jetmoe": {"num_local_experts": 8, **_EXPERTS},
    "qwen2_moe": {"num_experts": 8, "shared_expert_intermediate_size": 48, **_EXPERTS},
    "ernie4_5_moe": {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 32},
    # One number for each layer.
    "hunyuan_v1_moe": {"num_experts": 8, "num_experts_per_tok": [1, 2, 3, 2], "head_dim": 16},
    # Keys and values that are made of what is cached.
    "deepseek_v3": {**_GROUPS, **_EXPERTS, **_LATENT, "head_dim": 8, "num_key_value_heads": 4},
    "minicpm3": {**_LATENT, "head_dim": 8, "num_key_value_heads": 4},
    # Blocks that a step goes through several times.
    "hrm_text": {},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "zamba2": _ZAMBA,
    "qwen3_next": {"num_experts": 8, "shared_expert_intermediate_size": 48, "head_dim": 16, **_EXPERTS},
    "diffllama": {},
    "llama4_text": {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": 16},
    "bert": {},
}
UNKNOWN = {
    "zamba2": "layers with a constant state",
    "qwen3_next": "layers with a constant state",
    "diffllama": "torch counts",
    "llama4_text": "torch counts",
    "bert": "the cache (NoneType) is of a form",
}


def _model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**MODELS[name])
    arguments = {"attn_implementation": "eager"} if name != "mamba" else {}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, **arguments).eval()
    if "experts" in str(MODELS[name]):
        model.set_experts_implementation("eager")
    return model


def _family(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    base = {name: value for name, value in BASE.items() if name != "head_dim"} | {"num_hidden_layers": 4, **TOKEN_IDS}
    config = AutoConfig.for_model(name, **(base | FAMILIES[name]))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return model


def _needs(model: PreTrainedModel) -> dict[str, Any]:
    return describe_needs(model, fill_cache(model, _prompt()), _prompt())


def _prompt(rows: int = 2) -> Prompt:
    ids = torch.arange(1, 1 + rows * TOKENS).reshape(rows, TOKENS)
    return Prompt(ids, torch.ones_like(ids), pad_token_id=0)


def _cache(model: PreTrainedModel, **options: Any) -> Any:
    """The cache of 2 rows of 24 prompt tokens and one new one that was fed back."""
    prompt = _prompt()
    return model.generate(  # type: ignore[operator]
        prompt.input_ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, pad_token_id=0, **options
    ).past_key_values


class _Reads(TorchDispatchMode):
    """Notes the memory of every tensor that an operator other than a view or a table lookup takes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pointers: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "embedding" not in str(func):
            flat = [item for argument in args for item in (argument if isinstance(argument, list) else [argument])]
            self.pointers |= {item.untyped_storage().data_ptr() for item in flat if isinstance(item, torch.Tensor)}
        return result


@pytest.mark.parametrize("name", DENSE)
def test_a_decoding_step_reads_the_dense_weights_and_no_others(name: str) -> None:
    model = _model(name)
    cache = _cache(model)
    keyword = "cache_params" if name == "mamba" else "past_key_values"
    with torch.no_grad(), _Reads() as reads:
        model(torch.tensor([[3], [4]]), **{keyword: cache}, use_cache=True)
    read = [tensor for tensor in model.parameters() if tensor.untyped_storage().data_ptr() in reads.pointers]
    assert count_weights(model)["dense_weight_bytes"] == sum(tensor.nbytes for tensor in read)


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_sum_up_to_the_weights_in_memory(name: str) -> None:
    model = _model(name)
    counts = count_weights(model)
    total = sum(value for key, value in counts.items() if key.endswith("_bytes"))
    total += sum(each["weight_bytes"] for each in counts["routed_experts"])
    assert total == sum(parameter.nbytes for parameter in model.parameters())
    assert counts["unread_weight_bytes"] == 0


def test_llama_by_hand() -> None:
    # A layer: q 64 × 64, k and v 64 × 32, o 64 × 64; gate, up and down 64 × 96; two norms of 64. And a last norm.
    matrices = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    table, norms = 600 * 64, 2 * 2 * 64 + 64
    tied, untied = count_weights(_model("tied")), count_weights(_model("untied"))
    for counts in (tied, untied):
        assert counts["dense_matmul_parameters"] == matrices
        assert counts["head_matmul_parameters"] == table
        assert counts["dense_weight_bytes"] == 2 * (matrices + norms + table)
        assert counts["routed_experts"] == []
    assert tied["embedding_table_bytes"] == 0
    assert untied["embedding_table_bytes"] == 2 * table


def test_a_vision_tower_is_not_read() -> None:
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {name: value for name, value in MODELS["gemma3"].items() if name != "model_type"}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config={**vision, "image_size": 28})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    counts, only_text = count_weights(model), count_weights(_model("gemma3"))
    parts = [model.model.vision_tower, model.model.multi_modal_projector]
    assert counts["unread_weight_bytes"] == sum(tensor.nbytes for part in parts for tensor in part.parameters())
    assert counts["dense_weight_bytes"] == only_text["dense_weight_bytes"]


def test_gpt2_position_table_is_looked_up() -> None:
    assert count_weights(_model("gpt2"))["embedding_table_bytes"] == 2 * 128 * 64


def test_mixture_of_experts_by_hand() -> None:
    counts = count_weights(_model("qwen2_moe"))
    expert = 3 * 64 * 32
    shared = 3 * 64 * 48 + 64  # with its gate
    attention = 2 * 64 * 64 + 2 * 64 * 32
    all_experts = {"matmul_parameters": 2 * 6 * expert, "weight_bytes": 2 * 2 * 6 * expert}
    assert counts["routed_experts"] == [{**all_experts, "experts": 6, "experts_per_token": 3}]
    assert counts["dense_matmul_parameters"] == 2 * (attention + 6 * 64 + shared)


def test_numbers_of_experts_that_differ_from_layer_to_layer() -> None:
    counts = count_weights(_family("hunyuan_v1_moe"))
    # Layers whose tokens go through 1, 2, 3 and 2 of 8 experts, each of 3 × 64 × 96 in float32.
    found = {each["experts_per_token"]: (each["experts"], each["weight_bytes"]) for each in counts["routed_experts"]}
    layer = 4 * 8 * 3 * 64 * 96
    assert found == {1: (8, layer), 2: (8, 2 * layer), 3: (8, layer)}


def test_a_block_that_is_used_twice_multiplies_twice() -> None:
    """The two hybrid layers of this Zamba2 share a transformer block, in which each has adapters of its own."""
    model = _family("zamba2").requires_grad_(requires_grad=False)  # FlopCounterMode asks for gradients
    needs, block = _needs(model), model.model.layers[1].shared_transformer
    shared = [parameter.nbytes for name, parameter in block.named_parameters() if "adapter" not in name]
    assert needs["repeated_weight_bytes"] == sum(shared) > 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(_prompt().input_ids, use_cache=False, logits_to_keep=1)
    by_operator = counter.get_flop_counts()["Global"]
    linear = sum(flops for operator, flops in by_operator.items() if str(operator) in ("aten.mm", "aten.addmm"))
    convolutions = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Conv1d))
    multiplied = needs["dense_matmul_parameters"] - convolutions
    assert linear == 2 * 2 * TOKENS * multiplied  # without the head, which torch multiplies by another operator here


def test_packed_weights_are_unknown() -> None:
    model = _model("tied")
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(torch.ones(96, 32, dtype=torch.uint8), requires_grad=False)
    unknown = describe_needs(model, None, _prompt())["unknown"]
    assert set(unknown) == {"bytes", "flops"}
    assert "packed" in unknown["flops"]


def test_experts_of_a_config_that_does_not_tell_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfbench.measure.accounting._EXPERTS_PER_TOKEN", ("a_name_of_another_config",))
    needs = _needs(_model("mixtral"))
    (experts,) = needs["routed_experts"]
    assert experts["weight_bytes"] > 0
    assert experts["experts_per_token"] is None
    assert "how many experts" in needs["unknown"]["bytes"]
    assert decode_bytes_per_step(needs, 1, TOKENS, 8) is prefill_flops(needs, 1, TOKENS) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_prefill_flops_are_those_that_torch_counts_or_unknown(name: str) -> None:
    model = _family(name)
    needs = _needs(model)
    model.requires_grad_(requires_grad=False)  # for whose gradients FlopCounterMode asks
    if name in UNKNOWN:
        assert UNKNOWN[name] in needs["unknown"]["flops"]
        assert prefill_flops(needs, 1, TOKENS) is None
        return
    assert needs["unknown"] == {}
    model.set_attn_implementation("eager")
    if needs["routed_experts"]:
        model.set_experts_implementation("eager")
    keeps_one = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}  # type: ignore[operator]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(_prompt(1).input_ids, use_cache=False, **keeps_one)
    kinds = needs["cache"]["attention"]
    masked = sum(
        2
        * kind["layers"]
        * kind["query_heads"]
        * (kind["key_dim"] + kind["value_dim"])
        * _masked(kind["window_tokens"])
        for kind in kinds
    )
    head = 0 if keeps_one else 2 * needs["head_matmul_parameters"] * (TOKENS - 1)
    flops = prefill_flops(needs, 1, TOKENS)
    assert flops is not None
    assert flops + masked + head == pytest.approx(counter.get_total_flops(), rel=0.01)


def _masked(window: int | None) -> int:
    """The pairs of tokens that a mask hides, and that eager attention multiplies all the same."""
    attended = sum(min(token, window or token) for token in range(1, TOKENS + 1))
    return TOKENS**2 - attended


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_counting_leaves_the_model_as_it_was(attention: str) -> None:
    model = _family("mixtral")
    model.set_attn_implementation(attention)
    model.set_experts_implementation("batched_mm")
    before = [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]
    assert _needs(model)["unknown"] == {}
    assert (model.config._attn_implementation, model.config._experts_implementation) == (attention, "batched_mm")
    assert [(name, parameter.requires_grad) for name, parameter in model.named_parameters()] == before


def test_a_pass_that_fails_leaves_the_bytes_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("tied")
    cache = _cache(model)
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no such pass")))
    needs = describe_needs(model, cache, _prompt())
    assert needs["unknown"] == {"flops": "counting a short forward pass failed: RuntimeError: no such pass"}
    assert decode_bytes_per_step(needs, 1, TOKENS, 8) is not None


def test_attention_flops_are_the_causal_half_of_what_torch_counts() -> None:
    model, prompt = _model("gpt2"), _prompt()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(prompt.input_ids, logits_to_keep=1, use_cache=False)
    counted = sum(
        flops for operator, flops in counter.get_flop_counts()["Global"].items() if str(operator) == "aten.bmm"
    )
    needs = describe_needs(model, _cache(model), prompt)
    without_attention = {**needs, "cache": {"attention": [], "state_bytes_per_row": 0}}
    attention = (prefill_flops(needs, 2, TOKENS) or 0) - (prefill_flops(without_attention, 2, TOKENS) or 0)
    assert attention == counted * (TOKENS + 1) / (2 * TOKENS)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_cache_of_a_token(options: dict[str, Any]) -> None:
    model = _model("tied")
    cache = _cache(model, **options)
    assert isinstance(cache, StaticCache) is bool(options)
    # Keys and values: 2 heads of 16, 2 bytes each.
    kind = {"layers": 2, "bytes_per_token_per_row": 128, "key_dim": 16, "value_dim": 16, "window_tokens": None}
    assert cache_layout(cache, model) == {"attention": [{**kind, "query_heads": 4}], "state_bytes_per_row": 0}


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_cache_of_sliding_layers(options: dict[str, Any]) -> None:
    model = _model("gemma3")
    layout = describe_needs(model, _cache(model, **options), _prompt())["cache"]
    assert {(kind["window_tokens"], kind["layers"]) for kind in layout["attention"]} == {(10, 2), (None, 1)}
    assert {kind["bytes_per_token_per_row"] for kind in layout["attention"]} == {128}


def test_state_of_mamba_is_constant() -> None:
    model = _model("mamba")
    layout = describe_needs(model, _cache(model), _prompt())["cache"]
    # A layer and row: 128 inner channels (2 × 64) × (4 of the convolution + 16 of the state), 2 bytes each.
    convolution, state = 128 * 4 * 2, 128 * 16 * 2
    assert layout["attention"] == []
    assert layout["state_bytes_per_row"] in (2 * (convolution + state), 2 * (convolution + 2 * state))


def test_cache_without_known_form_is_none() -> None:
    model = _model("tied")
    assert cache_layout(None, model) is cache_layout(object(), model) is None


@pytest.mark.parametrize("name", ["tied", "gemma3", "mamba"])
def test_forward_pass_fills_the_same_cache(name: str) -> None:
    model = _model(name)
    assert cache_layout(fill_cache(model, _prompt()), model) == cache_layout(_cache(model), model)
