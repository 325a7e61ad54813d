"""What loaded models need, counted by hand for some and against torch's own counters for others.

Caches as transformers names them: in force, proven, and counted by what their tensors take; with a context too.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel, QuantizedCache, StaticCache

from hfbench.core.record import OK, Record, Settings
from hfbench.measure.accounting import cache_layout, count_weights, describe_needs, fill_cache, kv_bytes_per_token
from hfbench.measure.prompt import Prompt
from hfbench.tables.agreement import Output
from hfbench.tables.roofline import decode_bytes_per_step, prefill_flops
from tests.conftest import TINY, some
from tests.families import family_config, family_model
from tests.measure.conftest import ROWS, save_batch
from tests.measure.stage_process import Bench

TOKENS = 24
GEMMA: dict[str, Any] = {
    "num_hidden_layers": 3,
    "sliding_window": 10,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": ("llama", {"tie_word_embeddings": True}),
    "untied": ("llama", {"tie_word_embeddings": False}),
    "gpt2": ("gpt2", {}),
    "mixtral": ("mixtral", {"num_local_experts": 8}),
    "qwen2_moe": ("qwen2_moe", {"num_experts": 6, "num_experts_per_tok": 3, "shared_expert_intermediate_size": 48}),
    "gemma3": ("gemma3_text", GEMMA),
    "mamba": ("mamba", {}),
}
DENSE = ("tied", "untied", "gpt2", "gemma3", "mamba")

FAMILIES = [
    *("llama", "gpt2", "gpt_bigcode", "gptj", "bloom", "mpt", "opt", "phi3", "cohere2", "gemma3_text"),
    "modernbert-decoder",
    "trocr",  # whose cross-attention to an image rests
    *("mixtral", "gpt_oss", "jetmoe", "qwen2_moe", "ernie4_5_moe"),
    "hunyuan_v1_moe",
    *("deepseek_v3", "minicpm3"),  # keys and values that are made of what is cached
    "hrm_text",  # blocks that a step goes through several times
    *("lfm2", "zamba2", "qwen3_next", "diffllama", "llama4_text", "bert"),
]
# A number of experts for each layer, and an encoder.
CHANGES: dict[str, dict[str, Any]] = {
    "hunyuan_v1_moe": {
        "num_hidden_layers": 4,
        "num_experts": 8,
        "moe_topk": [1, 2, 3, 2],
        "moe_intermediate_size": [128] * 4,
    },
    "bert": {"is_decoder": False},
}
# Of some the FLOPs are not known, and this is what their reason says.
UNKNOWN = {
    "zamba2": "layers with a constant state",
    "qwen3_next": "layers with a constant state",
    "diffllama": "torch counts",
    "llama4_text": "torch counts",
    "bert": "the cache (NoneType) is of a form",
}


def _model(name: str) -> PreTrainedModel:
    family, changes = MODELS[name]
    model = family_model(family, "bfloat16", **changes)
    if name in ("mixtral", "qwen2_moe"):
        model.set_experts_implementation("eager")
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
    # A layer: q 64 × 64, k and v 64 × 32, o 64 × 64; gate, up and down 64 × 128; two norms of 64. And a last norm.
    matrices = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
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
    text = family_config("gemma3_text", **GEMMA)
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config={**vision, "image_size": 28})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    counts, only_text = count_weights(model), count_weights(_model("gemma3"))
    parts = [model.model.vision_tower, model.model.multi_modal_projector]
    assert counts["unread_weight_bytes"] == sum(tensor.nbytes for part in parts for tensor in part.parameters())
    assert counts["dense_weight_bytes"] == only_text["dense_weight_bytes"]


def test_gpt2_position_table_is_looked_up() -> None:
    assert count_weights(_model("gpt2"))["embedding_table_bytes"] == 2 * 256 * 64


def test_mixture_of_experts_by_hand() -> None:
    counts = count_weights(_model("qwen2_moe"))
    expert = 3 * 64 * 32
    shared = 3 * 64 * 48 + 64  # with its gate
    attention = 2 * 64 * 64 + 2 * 64 * 32
    all_experts = {"matmul_parameters": 2 * 6 * expert, "weight_bytes": 2 * 2 * 6 * expert}
    assert counts["routed_experts"] == [{**all_experts, "experts": 6, "experts_per_token": 3}]
    assert counts["dense_matmul_parameters"] == 2 * (attention + 6 * 64 + shared)


def test_numbers_of_experts_that_differ_from_layer_to_layer() -> None:
    counts = count_weights(family_model("hunyuan_v1_moe", **CHANGES["hunyuan_v1_moe"]))
    # Layers whose tokens go through 1, 2, 3 and 2 of 8 experts, each of 3 × 64 × 128 in float32.
    found = {each["experts_per_token"]: (each["experts"], each["weight_bytes"]) for each in counts["routed_experts"]}
    layer = 4 * 8 * 3 * 64 * 128
    assert found == {1: (8, layer), 2: (8, 2 * layer), 3: (8, layer)}


def test_a_block_that_is_used_twice_multiplies_twice() -> None:
    """The two hybrid layers of this Zamba2 share a transformer block, in which each has adapters of its own."""
    model = family_model("zamba2").requires_grad_(requires_grad=False)  # FlopCounterMode asks for gradients
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


def test_packed_weights_count_as_they_are_stored_and_as_they_multiply() -> None:
    model = _model("tied")
    before = count_weights(model)
    layer = model.model.layers[0].mlp.up_proj
    assert layer.weight.shape == (128, 64)
    packed = torch.ones(128, 32, dtype=torch.uint8)  # two weights a byte
    saved = layer.weight.nbytes - packed.nbytes
    layer.weight = torch.nn.Parameter(packed, requires_grad=False)
    after = count_weights(model)
    assert before["dense_weight_bytes"] - after["dense_weight_bytes"] == saved
    assert after["dense_matmul_parameters"] == before["dense_matmul_parameters"]


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
    model = family_model(name, attention=None, **CHANGES.get(name, {}))
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
    masked = 0
    for kind in needs["cache"]["attention"]:
        products = 2 * kind["query_heads"] * (kind["key_dim"] + kind["value_dim"])
        masked += kind["layers"] * products * _masked(kind["window_tokens"])
    head = 0 if keeps_one else 2 * needs["head_matmul_parameters"] * (TOKENS - 1)
    assert some(prefill_flops(needs, 1, TOKENS)) + masked + head == pytest.approx(counter.get_total_flops(), rel=0.01)


def _masked(window: int | None) -> int:
    """The pairs of tokens that a mask hides, and that eager attention multiplies all the same."""
    attended = sum(min(token, window or token) for token in range(1, TOKENS + 1))
    return TOKENS**2 - attended


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_counting_leaves_the_model_as_it_was(attention: str) -> None:
    model = family_model("mixtral")
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
    attention = some(prefill_flops(needs, 2, TOKENS)) - some(prefill_flops(without_attention, 2, TOKENS))
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


FP8 = {"backend": "fp8"}
HEAD = TINY["hidden_size"] // TINY["num_attention_heads"]
NUMBERS = 2 * TINY["num_hidden_layers"] * TINY["num_key_value_heads"] * HEAD  # of keys and values of a token


def measured(bench: Bench, name: str, **axes: object) -> Record:
    settings = Settings(quantized_cache=FP8 if name == "quantized" else None)
    return replace(bench, settings=settings).measure(cache_implementation=name, **axes)


@pytest.mark.parametrize("depth", [0, 4])
@pytest.mark.parametrize(
    ("name", "kind", "bytes_a_number"),
    [("dynamic", "DynamicCache", 2), ("static", "StaticCache", 2), ("quantized", "QuantizedCache", 1)],
)
def test_each_cache_is_in_force_and_its_bytes_are_known(
    bench: Bench, name: str, kind: str, bytes_a_number: int, depth: int
) -> None:
    save_batch(bench.folder / "b2-s12.safetensors", ROWS)
    axes = {"context_depth": depth, "sequence_length": 16 - depth} if depth else {}
    record = measured(bench, name, **axes)
    assert (record.status, record.reason) == (OK, None)
    assert record.requested["cache_implementation"] == name
    assert record.effective["cache"] == kind
    assert record.effective["compilation"]["graphs"] == 0
    assert not record.effective["cache_offloads"]
    # What is beyond is the scales of fp8, of which each layer has two.
    assert NUMBERS * bytes_a_number <= record.effective["kv_bytes_per_token"] < NUMBERS * bytes_a_number + 4


def test_a_quantized_cache_has_its_price_and_is_not_wrong_for_it(bench: Bench) -> None:
    record = measured(bench, "quantized", dtype="float32")
    assert (record.status, record.reason) == (OK, None)
    output = Output.read(record.output)
    assert output.path_agrees is None
    assert output.path_change is not None
    assert abs(output.path_change) < 0.1
    exact = measured(bench, "dynamic", dtype="float32")
    assert Output.read(exact.output).path_agrees


def test_bytes_are_those_of_the_tensors_whatever_has_room() -> None:
    keys = torch.zeros(3, 2, 5, HEAD, dtype=torch.bfloat16)
    config = _config()
    dynamic, quantized = DynamicCache(config=config), QuantizedCache(backend="fp8", config=config)
    static = StaticCache(config=config, max_cache_len=50)
    for cache in (dynamic, quantized, static):
        for layer in range(TINY["num_hidden_layers"]):
            cache.update(keys, keys, layer)
    assert kv_bytes_per_token(dynamic, 3) == kv_bytes_per_token(static, 3) == 2 * NUMBERS
    scales = 4 * 2 * TINY["num_hidden_layers"] / (5 * 3)
    assert kv_bytes_per_token(quantized, 3) == pytest.approx(NUMBERS + scales)
    assert kv_bytes_per_token(DynamicCache(config=config), 3) is None


def _config() -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**TINY)
