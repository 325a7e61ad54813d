"""What really runs, beside what was asked: the effective configuration and where it differs."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, PreTrainedModel

from hfbench.core.point import Configuration
from hfbench.core.record import Settings
from hfbench.measure import loading
from hfbench.measure.batching import Batching, continuous_batching_config, effective_batching
from hfbench.measure.device import Device
from hfbench.measure.evidence import watch_functions, watch_operators
from hfbench.measure.experts import describe_experts, experts_differences, find_experts
from hfbench.measure.generation import generation_config
from hfbench.measure.loading import split_attention, unpinned
from hfbench.measure.process import SETTINGS
from hfbench.measure.prompt import Prompt, batches_of, forward_lengths, prefill_differences, prepare_context, tokens_in
from hfbench.measure.support import refusals_explained

_FLOATING = ("float", "bfloat")  # how torch's floating-point dtypes begin
_SAFE = "float32"


def describe_tensors(model: PreTrainedModel) -> dict[str, Any]:
    """Return, ready for JSON, how many parameters and buffers there are of each dtype and on each device.

    `stored_buffer_dtypes` are the floating-point buffers that come with the weights; the other ones the model computes.
    `kept_in_float32` counts what the model's class has transformers keep in float32 whatever dtype is asked for, such
    as the router of some mixtures of experts.
    """
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    stored = {name: buffer for name, buffer in buffers.items() if name in _stored(model) and buffer.is_floating_point()}
    return {
        "parameter_dtypes": _dtypes(parameters.values()),
        "buffer_dtypes": _dtypes(buffers.values()),
        "stored_buffer_dtypes": _dtypes(stored.values()),
        "kept_in_float32": {"parameters": _kept(model, parameters), "stored_buffers": _kept(model, stored)},
        "tensor_devices": dict(Counter(str(tensor.device) for tensor in [*parameters.values(), *buffers.values()])),
    }


def tensor_differences(dtype: str, effective: dict[str, Any]) -> list[str]:
    """Return, in words, where dtypes and devices are not as asked.

    What the model computes for itself, such as the frequencies of rotary embeddings, may also be in float32.
    """
    parameters, stored = Counter(effective["parameter_dtypes"]), Counter(effective["stored_buffer_dtypes"])
    computed = Counter(effective["buffer_dtypes"]) - stored
    kept = effective["kept_in_float32"]
    found = []
    for what, counts, allowed in (
        ("parameters", parameters - Counter({_SAFE: kept["parameters"]}), (dtype,)),
        ("buffers of the weights", stored - Counter({_SAFE: kept["stored_buffers"]}), (dtype,)),
        ("computed buffers", computed, (dtype, _SAFE)),
    ):
        others = {name: count for name, count in counts.items() if name.startswith(_FLOATING) or what == "parameters"}
        others = {name: count for name, count in others.items() if name not in allowed}
        if others:
            found.append(f"{what} are not all {' or '.join(dict.fromkeys(allowed))}: {others}")
    elsewhere = {where: count for where, count in effective["tensor_devices"].items() if where != effective["device"]}
    if elsewhere:
        found.append(f"tensors are not all on {effective['device']}: {elsewhere}")
    return found


def _stored(model: PreTrainedModel) -> set[str]:
    """Return the names of what is saved with the weights."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def _kept(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how many of the tensors are in float32 because the model's class asks for it."""
    declared = set(model._keep_in_fp32_modules_strict or ())
    if model.config.dtype == torch.float16:  # transformers keeps these from float16 only
        declared |= set(model._keep_in_fp32_modules or ())
    in_float32 = [name for name, tensor in tensors.items() if tensor.dtype == torch.float32]
    return sum(any(part in name for part in declared) for name in in_float32)


def _dtypes(tensors: Iterable[torch.Tensor]) -> dict[str, int]:
    return dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors))


_CACHES = {"static": "StaticCache", "dynamic": "DynamicCache"}
_SHORT = 2  # new tokens of the verifying call: one from the prefill, one from a decoding step


def describe_model(model: PreTrainedModel, device: Device) -> dict[str, Any]:
    """Return what can be read off the loaded model: attention, dtypes, devices, threads, weights."""
    parameters = list(model.parameters())
    return {
        "device": str(device.torch_device),
        "device_name": device.name,
        "architecture": type(model).__name__,
        "attn_implementation": loading.asked_attention(model.config._attn_implementation),
        "attention_registered_as": model.config._attn_implementation,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "weight_bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        **describe_tensors(model),
        "training": any(module.training for module in model.modules()),
        "intra_op_threads": torch.get_num_threads(),
        "inter_op_threads": torch.get_num_interop_threads(),
        "variables": {name: os.environ.get(name) for name in SETTINGS},
        "clock_resolution_seconds": time.get_clock_info("perf_counter").resolution,
    }


def watch_short_call(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt
) -> tuple[dict[str, Any], Any]:
    """Run one prefill and one decoding step, uncompiled.

    Return which attention, which experts and which kind of cache they went through, how prompt and context went in, and
    the cache itself (None where it stays inside continuous batching, or there is none). Of requests of unequal lengths,
    the first that run together are taken.
    """
    prompt = batches_of(prompt, configuration.batch_size)[0]
    if configuration.attn_implementation == loading.FLEX:  # it compiles, longer when watched
        _short_generate(model, configuration, settings, prompt)
    experts = find_experts(model)
    with refusals_explained(), watch_operators() as operators, watch_functions(experts.functions) as evidence:
        if configuration.continuous_batching:
            cache, seen = None, _short_batch(model, configuration, settings, prompt)
        else:
            cache, seen = _short_generate(model, configuration, settings, prompt)
    kind = None if cache is None else type(cache).__name__
    paged = "PagedAttentionCache" if evidence.paged_cache_calls else None
    watched = {
        "attention_functions": dict(evidence.functions),
        "sdpa_calls": evidence.sdpa_calls,
        "sdpa_backends": dict(operators.sdpa),
        **describe_experts(experts, evidence.method_calls, operators.experts),
        "cache": paged if configuration.continuous_batching else kind,
        "cache_layers": dict(Counter(type(layer).__name__ for layer in getattr(cache, "layers", []))),
        **seen,
    }
    return watched, cache


def _short_generate(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt
) -> tuple[Any, dict[str, Any]]:
    config = generation_config(configuration, settings, prompt)
    new_tokens = min(_SHORT, configuration.max_new_tokens)
    config.update(max_new_tokens=new_tokens, return_dict_in_generate=True, disable_compile=True)
    if config.cache_implementation == "static":  # as long a cache as the measured call's
        config.max_cache_len = prompt.input_ids.shape[1] + configuration.max_new_tokens - 1
    context = prepare_context(model, configuration, prompt, configuration.max_new_tokens)()
    before = [tokens_in(cache) for cache in context.values()]
    arguments = {"attention_mask": prompt.attention_mask, "generation_config": config, **context}
    with forward_lengths(model) as lengths:
        output = model.generate(prompt.input_ids, **arguments)  # type: ignore[operator]
    cache = getattr(output, "past_key_values", None)
    went_in: dict[str, Any] = {"prefill_lengths": lengths[: len(lengths) - new_tokens + 1], "context": None}
    if before:
        after = None if cache is None else tokens_in(cache)
        went_in["context"] = {"tokens_before": before[0], "tokens_after": after, "new_tokens": new_tokens}
    return cache, went_in


def _short_batch(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt
) -> dict[str, Any]:
    """Run the requests for two tokens each; return what the manager does."""
    config: GenerationConfig = generation_config(configuration, settings, prompt)
    config.max_new_tokens = new_tokens = min(_SHORT, configuration.max_new_tokens)
    asked = continuous_batching_config(configuration, settings)
    asked.varlen_compile_config = asked.decode_compile_config = None
    batching = Batching(model, config, asked, prompt)
    batching.run((new_tokens,) * len(prompt.input_ids), observed=False)
    assert batching.manager is not None
    effective = effective_batching(batching.manager)
    model.destroy_cached_continuous_batching_manager()  # type: ignore[operator]
    return {"continuous_batching_config": effective}


def differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    """Return, in words, where what runs is not what was asked for."""
    found = tensor_differences(configuration.dtype, effective)
    for name, keys in effective["loading"].items():
        if keys:
            found.append(f"{len(keys)} {name.replace('_', ' ')} in the weights, first {keys[0]}")
    found += _attention_differences(configuration, effective)
    found += experts_differences(configuration.experts_implementation, effective)
    found += prefill_differences(configuration, effective)
    if effective["training"]:
        found.append("the model is in training mode")
    if effective["intra_op_threads"] != _asked_threads():
        found.append(f"torch uses {effective['intra_op_threads']} threads, not {_asked_threads()}")
    kind = "static" if configuration.is_static else configuration.cache_implementation
    cache = "PagedAttentionCache" if configuration.continuous_batching else _CACHES.get(kind)
    if cache and effective["cache"] != cache:
        found.append(f"the cache is {effective['cache']}, not {cache}")
    return found


def _attention_differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    implementation, backend = split_attention(configuration.attn_implementation)
    found = []
    if unpinned(effective["attn_implementation"]) != implementation:
        found.append(f"attention is {effective['attn_implementation']}, not {implementation}")
    uses_sdpa, functions = effective["sdpa_calls"] > 0, effective["attention_functions"]
    seen = ", ".join(functions) or "none"
    if implementation == "sdpa" and not uses_sdpa:
        found.append(f"no call of scaled_dot_product_attention; attention functions seen: {seen}")
    if implementation != "sdpa" and uses_sdpa:
        found.append("attention went through scaled_dot_product_attention")
    if implementation not in ("sdpa", "eager") and not any(_is_kind(name, implementation) for name in functions):
        found.append(f"{implementation} was not called; attention functions seen: {seen}")
    if any(("eager" in name) != (implementation == "eager") for name in functions):
        found.append(f"other attention functions than {implementation}'s ran: {seen}")
    if backend:
        wanted = {} if backend == "math" else {backend}
        if set(effective["sdpa_backends"]) != set(wanted):
            found.append(f"SDPA ran {', '.join(effective['sdpa_backends']) or 'math'}, not {backend}")
    return found


def _is_kind(function: str, implementation: str) -> bool:
    kind = "flex" if implementation == "flex_attention" else "flash"
    return kind in function.rpartition(".")[2] or ("/" in implementation and "eager" not in function)


def requested(configuration: Configuration, device: str, compile_config: CompileConfig | None) -> dict[str, Any]:
    """Return what was asked for, in the terms of `effective`."""
    implementation, backend = split_attention(configuration.attn_implementation)
    return {
        "device": device,
        "dtype": configuration.dtype,
        "attn_implementation": implementation,
        "sdpa_backend": backend,
        "compile_config": compile_config.to_dict() if compile_config else None,
        "cache_implementation": configuration.cache_implementation,
        "use_kernels": configuration.use_kernels,
        "experts_implementation": configuration.experts_implementation,
        "continuous_batching": configuration.continuous_batching,
        "prefill_chunk_size": configuration.prefill_chunk_size,
        "context_depth": configuration.context_depth,
        "intra_op_threads": _asked_threads(),
    }


def _asked_threads() -> int:
    """Return what the supervisor set; OpenMP takes a list, with a number for each level of nesting."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])
