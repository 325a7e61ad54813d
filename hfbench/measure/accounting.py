"""What the loaded model needs: weights that a decoding step reads, what a token multiplies, the cache it takes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES

from hfbench.measure.prompt import Prompt, longest_row

# The names under which configs say how many experts there are, and how many a token goes through.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
_ROUTED = "experts"  # the module that holds the routed experts; shared ones have other names
_SHORT = 8  # prompt tokens of the forward pass that fills a cache


@dataclass
class _Use:
    """A parameter, and each module that owns it with the parameter's full name: a tied one has several owners."""

    parameter: nn.Parameter
    owners: list[tuple[str, nn.Module]] = field(default_factory=list)


def describe_needs(model: PreTrainedModel, cache: Any) -> dict[str, Any]:
    """Return, ready for JSON, what `hfbench.tables.roofline` computes with.

    `cache` is what a call of `generate` filled (`past_key_values` of its output). The entries are those of
    `count_weights`, `attention_heads` (query heads a layer; None where the config has none), and `cache` as
    `cache_layout` returns it.
    """
    config = model.config.get_text_config(decoder=True)
    return {
        **count_weights(model),
        "attention_heads": _first(config, ("num_attention_heads",)),
        "cache": cache_layout(cache, _first(config, ("sliding_window", "attention_chunk_size"))),
    }


def count_weights(model: PreTrainedModel) -> dict[str, Any]:
    """Return where the bytes and the multiplications of the loaded parameters go. A tied parameter counts once.

    `dense_weight_bytes` are read whole in every decoding step: layers, norms, shared experts, the output head.
    `routed_expert_weight_bytes` are all routed experts together, of which a step reads some. `embedding_table_bytes`
    are looked up, a row a token, and so hardly read; a table that is also the output head is dense.
    `unread_weight_bytes` are no part of the text decoder, as a vision tower. The four sum up to the weights in memory.

    `dense_matmul_parameters`, without the head, multiply each token once, `head_matmul_parameters` each token whose
    logits are computed, `routed_expert_matmul_parameters` are those of all routed experts. `experts` and
    `experts_per_token` are None where there are no experts, and where the config does not tell.
    """
    config = model.config.get_text_config(decoder=True)
    experts, per_token = _first(config, _EXPERTS), _first(config, _EXPERTS_PER_TOKEN)
    unread, head = _unread(model), _head_weight(model)
    counts: Counter[str] = Counter()
    for use in _uses(model):
        parameter, size = use.parameter, use.parameter.numel()
        size_bytes = size * parameter.element_size()
        if id(parameter) in unread:
            counts["unread_weight_bytes"] += size_bytes
        elif parameter is head:
            counts["dense_weight_bytes"] += size_bytes
            counts["head_matmul_parameters"] += size
        elif all(isinstance(owner, nn.Embedding) for _, owner in use.owners):
            counts["embedding_table_bytes"] += size_bytes
        else:
            kind = "routed_expert" if _is_routed_expert(use, experts if per_token else None) else "dense"
            counts[f"{kind}_weight_bytes"] += size_bytes
            counts[f"{kind}_matmul_parameters"] += size * _is_matrix(use)
    known = counts["routed_expert_weight_bytes"] > 0 and None not in (experts, per_token)
    return {
        **{name: counts[name] for name in _COUNTS},
        "experts": experts if known else None,
        "experts_per_token": per_token if known else None,
    }


_COUNTS = (
    "dense_weight_bytes",
    "routed_expert_weight_bytes",
    "embedding_table_bytes",
    "unread_weight_bytes",
    "dense_matmul_parameters",
    "routed_expert_matmul_parameters",
    "head_matmul_parameters",
)


def cache_layout(cache: Any, sliding_window: int | None) -> dict[str, Any] | None:
    """Return what a cache object holds for each token and row, from its tensors; None for a cache of unknown form.

    `attention` has an entry for each kind of layer: `layers`, how many have keys and values of their own;
    `bytes_per_token_per_row` of one such layer; `key_dim` and `value_dim` of a head; `window_tokens`, beyond which it
    does not grow (None: it grows with every token). `state_bytes_per_row` is the constant state of all linear-attention
    and state-space layers together. `sliding_window` is the config's: a static layer knows no more than its own length.
    """
    if not hasattr(cache, "layers") or any(hasattr(layer, "_quantized_keys") for layer in cache.layers):
        return None
    state_bytes_per_row = 0
    layers: Counter[tuple[int, int, int, int | None]] = Counter()
    for layer in cache.layers:
        for states in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)):
            tensors = [tensor for tensor in (states or {}).values() if tensor is not None]
            state_bytes_per_row += sum(tensor.nbytes // tensor.shape[0] for tensor in tensors)
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None or not keys.numel():  # shares another layer's, or has none
            continue
        rows, positions = keys.shape[0], keys.shape[-2]
        held = [keys, values, *filter(None.__ne__, [getattr(layer, "indexer_keys", None)])]
        size = sum(tensor.nbytes for tensor in held) // (rows * positions)
        window = getattr(layer, "sliding_window", sliding_window) if getattr(layer, "is_sliding", False) else None
        layers[size, keys.shape[-1], values.shape[-1], window] += 1
    names = ("bytes_per_token_per_row", "key_dim", "value_dim", "window_tokens")
    attention = [{"layers": count, **dict(zip(names, kind, strict=True))} for kind, count in layers.items()]
    return {"attention": attention, "state_bytes_per_row": state_bytes_per_row}


@torch.no_grad()
def fill_cache(model: PreTrainedModel, prompt: Prompt) -> Any:
    """Return the cache that a forward pass over the prompt's first tokens fills, or None where it hands out none."""
    tokens = longest_row(prompt).input_ids[:, :_SHORT]
    output = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=True)
    return next((output[name] for name in ALL_CACHE_NAMES if output.get(name) is not None), None)


def _uses(model: PreTrainedModel) -> list[_Use]:
    found: dict[int, _Use] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), _Use(parameter)).owners.append((f"{path}.{name}", module))
    return list(found.values())


def _unread(model: PreTrainedModel) -> set[int]:
    """Return the ids of the parameters of the base model that are not in its text decoder."""
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    return {id(parameter) for parameter in model.base_model.parameters()} - decoder


def _head_weight(model: PreTrainedModel) -> nn.Parameter | None:
    """Return the weight of the output head, which is the embedding table where the model has no head of its own."""
    for module in (model.get_output_embeddings(), model.get_input_embeddings()):
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            return weight
    return None


def _is_routed_expert(use: _Use, experts: int | None) -> bool:
    """Tell a routed expert by the name of its module, or by a stack of as many matrices as there are experts."""
    stacked = use.parameter.ndim == 3 and use.parameter.shape[0] == experts
    return any(_ROUTED in name.split(".") or (stacked and not _is_convolution(owner)) for name, owner in use.owners)


def _is_matrix(use: _Use) -> bool:
    """Tell what multiplies activations from biases, norms and the tables of a state-space layer.

    A weight of `nn.Linear`, of a convolution, of a router, or a stack of matrices: 2 FLOPs a parameter and token.
    """
    shape, names = use.parameter.shape, {name.rpartition(".")[2] for name, _ in use.owners}
    if len(shape) < 2 or any(name.endswith("bias") for name in names):
        return False
    stack_of_matrices = len(shape) == 3 and sum(length > 1 for length in shape) > 1
    return "weight" in names or stack_of_matrices or _is_routed_expert(use, None)


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
