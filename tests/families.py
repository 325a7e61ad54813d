"""Small configs of many architectures: what is peculiar to each, two to four layers, a vocabulary of 600 tokens."""

from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

_BASE: dict[str, Any] = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
_LINEAR_AND_FULL = ["linear_attention", "full_attention"]

# Model type → what its config has beside the base, or in place of it.
FAMILIES: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "llama": {},
        "mistral": {"sliding_window": 16},
        "qwen2": {},
        "qwen3": {"head_dim": 16},
        "gemma2": {"head_dim": 16, "sliding_window": 16},
        "gemma3_text": {"head_dim": 16, "sliding_window": 16},
        "phi3": {},
        "phi": {},
        "olmo2": {},
        "granite": {},
        "cohere": {},
        "glm4": {"head_dim": 16},
        "smollm3": {},
        "starcoder2": {},
        "stablelm": {},
        "nemotron": {},
        "gpt2": {"num_key_value_heads": 4},
        "gpt_neox": {"num_key_value_heads": 4},
        "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 16, "n_positions": 256},
        "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64, "num_key_value_heads": 4},
        "falcon": {"multi_query": True, "alibi": False, "parallel_attn": True, "new_decoder_architecture": False},
        "bloom": {"n_layer": 2, "n_head": 4},
        "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
        "bert": {"is_decoder": True, "num_key_value_heads": 4},
        "roberta": {"is_decoder": True, "num_key_value_heads": 4},
        "openai-gpt": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "num_key_value_heads": 4},
        "cohere2": {"sliding_window": 16},
        "gemma4_text": {
            **{"head_dim": 16, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
            **{"vocab_size_per_layer_input": 600, "hidden_size_per_layer_input": 8},
        },
        "diffllama": {},
        "doge": {},
        "mixtral": _EXPERTS,
        "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": [2, 2], "moe_intermediate_size": [32, 32], "head_dim": 16},
        "llama4_text": {"num_local_experts": 4, "intermediate_size_mlp": 128, "head_dim": 16},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
        "gpt_oss": {**_EXPERTS, "head_dim": 16, "sliding_window": 16},
        "deepseek_v3": {
            **{**_LATENT, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
            **{"moe_intermediate_size": 32, "first_k_dense_replace": 1, "num_key_value_heads": 4},
        },
        "mamba": {},
        "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1},
        "rwkv": {"attention_hidden_size": 64},
        "jamba": {
            **{"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
            **{"expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 2},
            **{"mamba_d_state": 8, "mamba_dt_rank": 8},
        },
        "zamba": {
            **{"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "use_mamba_kernels": False},
            **{"mamba_d_state": 8, "mamba_dt_rank": 8, "n_mamba_heads": 2, "attention_hidden_size": 128},
            "num_key_value_heads": 4,
        },
        "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
        "falcon_h1": {**_MAMBA2, "mamba_d_ssm": 128},
        "granitemoehybrid": {
            **{**_MAMBA2, "mamba_expand": 2, "num_local_experts": 0, "shared_intermediate_size": 64},
            "layer_types": ["mamba", "attention"],
        },
        "zamba2": {
            **{"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3]},
            **{"num_mem_blocks": 1, "mamba_d_state": 16, "mamba_headdim": 16, "n_mamba_heads": 8},
            **{"mamba_ngroups": 1, "adapter_rank": 8, "use_mem_rope": True},
        },
        "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 16, "head_dim": 16},
        "lfm2": {"layer_types": ["conv", "full_attention"]},
        "qwen3_next": {
            **{"layer_types": _LINEAR_AND_FULL, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
            **{"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 1},
            **{"linear_num_value_heads": 4, "linear_num_key_heads": 2},
            **{"linear_key_head_dim": 16, "linear_value_head_dim": 16},
        },
        "minimax": {**_EXPERTS, "head_dim": 16, "layer_types": _LINEAR_AND_FULL, "block_size": 16},
    }
)

# More of them, whose experts are written otherwise, or whose FLOPs are counted otherwise; any name that is in neither
# table has the base alone.
_MORE: dict[str, dict[str, Any]] = {
    "trocr": {"d_model": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128},
    "minicpm3": {**_LATENT, "head_dim": 8, "num_key_value_heads": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": _EXPERTS,
    "phimoe": _EXPERTS,
    "aria_text": {"moe_num_experts": 4, "moe_topk": 2},
    "nemotron_h": {
        **{"layers_block_type": ["moe", "attention"], "n_routed_experts": 4, "moe_intermediate_size": 32},
        **{"num_experts_per_tok": 2, "moe_shared_expert_intermediate_size": 32, "head_dim": 16},
        **{"n_group": 1, "topk_group": 1},
    },
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    },
    "jetmoe": {**_EXPERTS, "kv_channels": 16},
    "longcat_flash": {**_LATENT, "n_routed_experts": 4, "moe_topk": 2, "zero_expert_num": 2, "num_layers": 2},
}


def family_config(name: str, **changes: Any) -> Any:
    """Return the config of a family, with these values beside its own."""
    return AutoConfig.for_model(name, **{**_BASE, **{**_MORE, **FAMILIES}.get(name, {}), **changes})


def family_model(name: str, dtype: str = "float32", attention: str | None = "eager", **changes: Any) -> PreTrainedModel:
    """Return a model of random weights, the same each time, in `.eval()` mode; None is transformers' own attention."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        family_config(name, **changes), dtype=getattr(torch, dtype), attn_implementation=attention
    )
    model.generation_config = GenerationConfig()
    model.eval()
    return model
