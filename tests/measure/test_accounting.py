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


def _model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**MODELS[name])
    arguments = {"attn_implementation": "eager"} if name != "mamba" else {}
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, **arguments).eval()
    if "experts" in str(MODELS[name]):
        model.set_experts_implementation("eager")
    return model


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
        assert counts["experts"] is None
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
    assert counts["routed_expert_matmul_parameters"] == 2 * 6 * expert
    assert counts["routed_expert_weight_bytes"] == 2 * 2 * 6 * expert
    assert counts["dense_matmul_parameters"] == 2 * (attention + 6 * 64 + shared)
    assert (counts["experts"], counts["experts_per_token"]) == (6, 3)


def test_experts_of_a_config_that_does_not_tell_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfbench.measure.accounting._EXPERTS_PER_TOKEN", ("a_name_of_another_config",))
    model = _model("mixtral")
    needs = describe_needs(model, _cache(model))
    assert needs["routed_expert_weight_bytes"] > 0
    assert needs["experts_per_token"] is None
    assert decode_bytes_per_step(needs, 1, TOKENS, 8) is None
    assert prefill_flops(needs, 1, TOKENS) is None


@pytest.mark.parametrize("name", ["tied", "untied", "gpt2", "mixtral", "qwen2_moe", "gemma3"])
def test_prefill_flops_are_those_that_torch_counts(name: str) -> None:
    model = _model(name)
    prompt = _prompt()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(prompt.input_ids, attention_mask=prompt.attention_mask, logits_to_keep=1, use_cache=False)
    by_operator = counter.get_flop_counts()["Global"]
    linear = sum(flops for operator, flops in by_operator.items() if str(operator) in ("aten.mm", "aten.addmm"))
    needs = describe_needs(model, _cache(model))
    without_attention = {**needs, "cache": {"attention": [], "state_bytes_per_row": 0}}
    assert prefill_flops(without_attention, 2, TOKENS) == linear


def test_attention_flops_are_the_causal_half_of_what_torch_counts() -> None:
    model, prompt = _model("gpt2"), _prompt()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(prompt.input_ids, logits_to_keep=1, use_cache=False)
    counted = sum(
        flops for operator, flops in counter.get_flop_counts()["Global"].items() if str(operator) == "aten.bmm"
    )
    needs = describe_needs(model, _cache(model))
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
    assert cache_layout(cache, None) == {"attention": [kind], "state_bytes_per_row": 0}


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_cache_of_sliding_layers(options: dict[str, Any]) -> None:
    model = _model("gemma3")
    layout = describe_needs(model, _cache(model, **options))["cache"]
    assert {(kind["window_tokens"], kind["layers"]) for kind in layout["attention"]} == {(10, 2), (None, 1)}
    assert {kind["bytes_per_token_per_row"] for kind in layout["attention"]} == {128}


def test_state_of_mamba_is_constant() -> None:
    model = _model("mamba")
    layout = describe_needs(model, _cache(model))["cache"]
    # A layer and row: 128 inner channels (2 × 64) × (4 of the convolution + 16 of the state), 2 bytes each.
    convolution, state = 128 * 4 * 2, 128 * 16 * 2
    assert layout["attention"] == []
    assert layout["state_bytes_per_row"] in (2 * (convolution + state), 2 * (convolution + 2 * state))


def test_cache_without_known_form_is_none() -> None:
    assert cache_layout(None, None) is None
    assert cache_layout(object(), None) is None


@pytest.mark.parametrize("name", ["tied", "gemma3", "mamba"])
def test_forward_pass_fills_the_same_cache(name: str) -> None:
    model = _model(name)
    window = MODELS[name].get("sliding_window")
    assert cache_layout(fill_cache(model, _prompt()), window) == cache_layout(_cache(model), window)
