"""What the loaded model needs: weights that a decoding step reads, what a token multiplies, the cache it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES

from hfbench.measure.counting import Count, Products, count_products, difference, together
from hfbench.measure.loading import weight_bytes_by_device
from hfbench.measure.prompt import Prompt, longest_row
from hfbench.measure.quantization import other_products, quantized_weights, stored_bytes, tensors_in
from hfbench.measure.ranks import Ranks

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
_WINDOW = ("sliding_window", "attention_chunk_size")
_HOST = {"cpu", "disk"}  # where a device map has what no accelerator holds
_SHORT = 8  # prompt tokens of the forward pass that fills a cache


@dataclass
class _Use:
    """A parameter, and each module that owns it with the parameter's full name: a tied one has several owners.

    `size` is the number of weights that it stands for, `size_bytes` what is stored of them. Quantised weights stand in
    place of all that their module has of its own.
    """

    parameter: torch.Tensor
    size: int
    size_bytes: int
    is_quantized: bool = False
    owners: list[tuple[str, nn.Module]] = field(default_factory=list)

    @property
    def layer(self) -> int | None:
        """The number of the layer that it belongs to, which is the first in its name."""
        return next((int(part) for part in self.owners[0][0].split(".") if part.isdigit()), None)

    def times(self, calls: Mapping[int, int]) -> int:
        """Return how often a forward pass uses it, at least once: fused code takes it without calling its module."""
        return max(1, sum(calls.get(id(owner), 0) for _, owner in self.owners))


def describe_needs(
    model: PreTrainedModel,
    cache: Any,
    prompt: Prompt,
    ranks: Ranks | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return, ready for JSON, what `hfbench.tables.roofline` computes with.

    `cache` is what a call of `generate` filled (`past_key_values` of its output). The entries are those of
    `count_weights`, `cache` as `cache_layout` returns it, and `unknown`: the reasons, in words, why the bytes that the
    model reads (`bytes`) and the FLOPs that it needs (`flops`) are not known, where they are not.

    FLOPs are known where torch's own count of a short forward pass over the prompt's first tokens agrees; those of
    quantised weights are of the shapes that they stand for. Over several `ranks` all are those of the whole model.
    `quantization` is what `describe_quantization` returns.
    """
    ranks = ranks or Ranks()
    try:
        count, failed = count_products(model, prompt), None
    except Exception as error:  # a model that runs only as it is measured is measured all the same
        count, failed = None, f"counting a short forward pass failed: {type(error).__name__}: {error}".split("\n")[0]
    parts = [each for each in ranks.gathered(count and count.products) if each is not None]
    if count is not None:
        count = replace(count, products=together(parts))
    needs = {**count_weights(model, count), "cache": cache_layout(cache, model, ranks.size)}
    unread = _uncountable(model, cache, needs)
    tokens = prompt.input_ids.shape[1]
    if quantization and quantization["modules"]:
        flops = unread or other_products(model, quantization) or _miscounted(model, needs, count, tokens, weights=False)
    else:
        flops = unread or failed or _miscounted(model, needs, count, tokens)
    return {**needs, "unknown": {name: why for name, why in (("bytes", unread), ("flops", flops)) if why}}


def _uncountable(model: PreTrainedModel, cache: Any, needs: Mapping[str, Any]) -> str | None:
    """Return, in words, why neither bytes nor FLOPs can be counted."""
    config = type(model.config).__name__
    if needs["cache"] is None:
        return f"the cache ({type(cache).__name__}) is of a form that hfbench does not know"
    if any(None in (each["experts"], each["experts_per_token"]) for each in needs["routed_experts"]):
        return f"the config ({config}) does not say how many experts a token goes through"
    if getattr(model.config.get_text_config(decoder=True), "zero_expert_num", 0):
        return f"the config ({config}) has experts that compute nothing, which are chosen beside those with weights"
    if fetched := set(weight_bytes_by_device(model)) & _HOST - {model.device.type}:
        return f"part of the weights is fetched from the host for each pass ({', '.join(sorted(fetched))})"
    return None


def _miscounted(
    model: PreTrainedModel, needs: Mapping[str, Any], count: Count | None, tokens: int, *, weights: bool = True
) -> str | None:
    """Return, in words, by how much torch's count differs from the formula for a prompt of so many tokens.

    The products of quantised `weights` torch does not count; attention's it does, and a constant state is then unknown.
    """
    if any(kind["query_heads"] is None for kind in needs["cache"]["attention"]):
        return f"the config ({type(model.config).__name__}) does not say how many heads attention has"
    if not weights and needs["cache"]["state_bytes_per_row"]:
        return "layers with a constant state multiply as their code says, which torch cannot count of quantised weights"
    if count is None:
        return None
    expected = _expected(needs, count)
    if not weights:
        of_pairs = replace(expected, per_pair=count.products.per_pair)
        count = replace(count, products=of_pairs)
    found = difference(count, expected, tokens)
    if found and needs["cache"]["state_bytes_per_row"]:
        return f"{found}; its layers with a constant state multiply more, by how much depends on their code"
    return found


def _expected(needs: Mapping[str, Any], count: Count) -> Products:
    """Return what torch should count in a pass of so many tokens, all pairs of which attention multiplies."""
    parameters = needs["dense_matmul_parameters"] + sum(
        each["matmul_parameters"] * each["experts_per_token"] / each["experts"] for each in needs["routed_experts"]
    )
    pairs = sum(
        2 * kind["layers"] * kind["query_heads"] * (kind["key_dim"] + kind["value_dim"])
        for kind in needs["cache"]["attention"]
    )
    head = 2.0 * needs["head_matmul_parameters"]
    return Products(pairs, 2 * parameters + (0 if count.keeps_one else head), head if count.keeps_one else 0)


def count_weights(model: PreTrainedModel, count: Count | None = None) -> dict[str, Any]:
    """Return where the bytes and the multiplications of the loaded parameters go. A tied parameter counts once.

    `dense_weight_bytes` are read whole in every decoding step: layers, norms, shared experts, the output head.
    `routed_experts` has an entry for each kind of layer with experts, of which a step reads some: `weight_bytes` and
    `matmul_parameters` of all of them, `experts` and `experts_per_token`, which are None where the config does not
    tell. `embedding_table_bytes` are looked up, a row a token, and so hardly read; a table that is also the output head
    is dense. `unread_weight_bytes` are no part of the text decoder, as a vision tower. All these sum up to the weights
    in memory. `repeated_weight_bytes` are read once more each time that a step goes through a block again.

    `dense_matmul_parameters` multiply each token, as often as their block is used; `head_matmul_parameters`, which are
    all that comes after the base model, each token whose logits are computed. Without a `count` each block is used
    once.
    """
    config, calls = model.config.get_text_config(decoder=True), Counter[int]() if count is None else count.calls
    unread, head = _unread(model, calls), _head_weight(model)
    base = {id(parameter) for parameter in model.base_model.parameters()}
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    routed: dict[tuple[int | None, int | None], Counter[str]] = {}
    for use in _uses(model):
        parameter, size, size_bytes = use.parameter, use.size, use.size_bytes
        numbers = (_number(config, _EXPERTS, use.layer), _number(config, _EXPERTS_PER_TOKEN, use.layer))
        if id(parameter) in unread:
            counts["unread_weight_bytes"] += size_bytes
        elif parameter is head:
            counts["dense_weight_bytes"] += size_bytes
            counts["head_matmul_parameters"] += size
        elif all(isinstance(owner, nn.Embedding) for _, owner in use.owners):
            counts["embedding_table_bytes"] += size_bytes
        elif _is_routed_expert(use, numbers[0] if numbers[1] else None):
            kind = routed.setdefault(numbers, Counter())
            kind["weight_bytes"] += size_bytes
            kind["matmul_parameters"] += size * _is_matrix(use)
        else:
            times = use.times(calls)
            counts["dense_weight_bytes"] += size_bytes
            counts["repeated_weight_bytes"] += size_bytes * (times - 1)
            part = "dense" if id(parameter) in base else "head"
            counts[f"{part}_matmul_parameters"] += size * times * _is_matrix(use)
    names = ("experts", "experts_per_token")
    experts = [{**kind, **dict(zip(names, numbers, strict=True))} for numbers, kind in routed.items()]
    return {**counts, "routed_experts": experts}


_COUNTS = (
    "dense_weight_bytes",
    "repeated_weight_bytes",
    "embedding_table_bytes",
    "unread_weight_bytes",
    "dense_matmul_parameters",
    "head_matmul_parameters",
)


def cache_layout(cache: Any, model: PreTrainedModel, ranks: int = 1) -> dict[str, Any] | None:
    """Return what a cache object holds for each token and row, from its tensors; None for a cache of unknown form.

    `attention` has an entry for each kind of layer: `layers`, how many attend to keys and values of that kind, of their
    own or another layer's; `query_heads` of a layer, None where the model does not tell; `bytes_per_token_per_row` of
    its keys and values; `key_dim` and `value_dim` of a head, as attention multiplies them; `window_tokens`, beyond
    which it does not grow (None: it grows with every token). `state_bytes_per_row` is the constant state of all
    linear-attention and state-space layers together. A static layer knows no more than its own length, so that the
    window is the config's. Of several `ranks` each has its share of the heads, and what is returned is of all.
    """
    if not hasattr(cache, "layers") or any(hasattr(layer, "_quantized_keys") for layer in cache.layers):
        return None
    if any(_holds_more(holder) for holder in (cache, *cache.layers)):
        return None
    state_bytes_per_row = 0
    config, sharing = model.config.get_text_config(decoder=True), _sharing(model)
    layers: Counter[tuple[int | None, ...]] = Counter()
    for index, layer in enumerate(cache.layers):
        for states in (getattr(layer, "conv_states", None), getattr(layer, "recurrent_states", None)):
            tensors = [tensor for tensor in (states or {}).values() if tensor is not None]
            state_bytes_per_row += sum(tensor.nbytes // tensor.shape[0] for tensor in tensors)
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None or not keys.numel():  # shares another layer's, or has none
            continue
        held = [keys, values, *filter(None.__ne__, [getattr(layer, "indexer_keys", None)])]
        size = sum(tensor.nbytes for tensor in held) // (keys.shape[0] * keys.shape[-2])
        size *= ranks if _number(config, ("num_key_value_heads",), index) == keys.shape[1] * ranks else 1
        window = getattr(layer, "sliding_window", _number(config, _WINDOW, index))
        window = window if getattr(layer, "is_sliding", False) else None
        heads = _number(config, ("num_attention_heads",), index)
        layers[heads, size, *_head_dims(config, keys, values), window] += 1 + sharing[index]
    names = ("query_heads", "bytes_per_token_per_row", "key_dim", "value_dim", "window_tokens")
    attention = [{"layers": count, **dict(zip(names, kind, strict=True))} for kind, count in layers.items()]
    return {"attention": attention, "state_bytes_per_row": state_bytes_per_row}


_HELD = {"layers", "keys", "values", "indexer_keys", "conv_states", "recurrent_states"}


def _holds_more(holder: Any) -> bool:
    """Whether a cache, or a layer of it, holds tensors of numbers under other names than those that are counted."""
    beside = (value for name, value in vars(holder).items() if name not in _HELD)
    return any(tensor.is_floating_point() and tensor.numel() for value in beside for tensor in tensors_in(value))


def kv_bytes_per_token(cache: Any, rows: int) -> float | None:
    """Return the bytes that keys and values of a token take in all layers together, from the tensors of so many rows.

    Quantised ones are counted as they are stored, with their scales and with what a layer keeps in full precision. None
    for a cache of unknown form, or one that holds nothing.
    """
    total = 0.0
    for layer in getattr(cache, "layers", ()):
        plain = [getattr(layer, name, None) for name in ("keys", "values")]
        packed = [getattr(layer, name, None) for name in ("_quantized_keys", "_quantized_values")]
        if plain[0] is None or not getattr(layer, "is_initialized", True):
            continue
        tokens = int(layer.get_seq_length()) if packed[0] is not None else plain[0].shape[-2]
        if tokens:
            total += sum(map(stored_bytes, tensors_in([*plain, *packed]))) / (tokens * rows)
    return total or None


def _head_dims(config: Any, keys: torch.Tensor, values: torch.Tensor) -> tuple[int, int]:
    """Return the dimensions of a head's keys and values, which multi-head latent attention makes of what it caches."""
    if keys.shape[-1] == getattr(config, "kv_lora_rank", None):
        return config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim
    return keys.shape[-1], values.shape[-1]


def _sharing(model: PreTrainedModel) -> Counter[int]:
    """Return, for each layer, how many layers without keys and values of their own attend to its."""
    config = model.config.get_text_config(decoder=True)
    shared = {
        module.layer_idx: _source_layer(module, config, module.layer_idx)
        for module in model.get_decoder().modules()
        if getattr(module, "is_kv_shared_layer", False) and hasattr(module, "layer_idx")
    }
    return Counter(shared.values())


def _source_layer(module: nn.Module, config: Any, index: int) -> int:
    """Return the layer whose keys and values a layer attends to that has none of its own.

    Gemma 3n's modules say it, Mistral Large 4's config does; in Gemma 4 it is the last of the same type that has some.
    """
    sources = getattr(config, "kv_source_layers", None)
    told = getattr(module, "kv_shared_layer_index", None) if sources is None else sources[index]
    if told is not None:
        return int(told)
    types: Sequence[str] = config.layer_types
    own = len(types) - int(config.num_kv_shared_layers)
    return max(layer for layer in range(own) if types[layer] == types[index])


@torch.no_grad()
def fill_cache(model: PreTrainedModel, prompt: Prompt) -> Any:
    """Return the cache that a forward pass over the prompt's first tokens fills, or None where it hands out none."""
    tokens = longest_row(prompt).input_ids[:, :_SHORT]
    output = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=True)
    return next((output[name] for name in ALL_CACHE_NAMES if output.get(name) is not None), None)


def _uses(model: PreTrainedModel) -> list[_Use]:
    found: dict[int, _Use] = {}
    quantized = quantized_weights(model)
    for path, module in model.named_modules():
        if path in quantized:
            its = quantized[path]
            use = _Use(its.tensor, its.logical_parameters, its.stored_bytes, is_quantized=True)
            found.setdefault(id(its.tensor), use).owners.append((f"{path}.weight", module))
            continue
        for name, parameter in module.named_parameters(recurse=False):
            use = _Use(parameter, parameter.numel(), parameter.nbytes)
            found.setdefault(id(parameter), use).owners.append((f"{path}.{name}", module))
    return list(found.values())


def _unread(model: PreTrainedModel, calls: Mapping[int, int]) -> set[int]:
    """Return the ids of the parameters of the base model that generating text from text does not use.

    They are in no text decoder, and their module was not called; or in a block that was not, as cross-attention to an
    image. That a module was not called says nothing by itself: fused code takes the weights of the parts of a block.
    """
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    base = {id(parameter) for parameter in model.base_model.parameters()}
    called = {name for name, module in model.named_modules() if id(module) in calls}
    found = set()
    for use in (each for each in _uses(model) if not _is_routed_expert(each, None)):  # of which a pass calls a few
        modules = {name.rpartition(".")[0] for name, _ in use.owners}
        blocks = modules | {module.rpartition(".")[0] for module in modules}
        if not modules & called and (id(use.parameter) not in decoder or (called and not blocks & called)):
            found.add(id(use.parameter))
    return found & base


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
    if use.is_quantized:
        return True
    shape, names = use.parameter.shape, {name.rpartition(".")[2] for name, _ in use.owners}
    if len(shape) < 2 or any(name.endswith("bias") for name in names):
        return False
    stack_of_matrices = len(shape) == 3 and sum(length > 1 for length in shape) > 1
    return "weight" in names or stack_of_matrices or _is_routed_expert(use, None)


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _number(config: Any, names: tuple[str, ...], layer: int | None) -> int | None:
    """Return the first of these numbers that the config has; of the layer, where it has one for each layer."""
    for name in names:
        try:
            value = getattr(config, name, None)
        except RuntimeError:  # AmbiguousGlobalPerLayerAttributeError: each layer has a config of its own
            value = None if layer is None else getattr(config.per_layer_config[layer], name, None)
        if isinstance(value, list | tuple):
            value = value[layer] if layer is not None and layer < len(value) else None
        if isinstance(value, int):
            return value
    nested = getattr(config, "ffn_config", None)  # DBRX
    return None if nested is None else _number(nested, names, layer)
