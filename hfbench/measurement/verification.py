"""What really runs, beside what was asked: the effective configuration and where it differs."""

import os
import time
from collections import Counter
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, PreTrainedModel

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement import flex_attention
from hfbench.measurement.batching import Batching, continuous_batching_config
from hfbench.measurement.batching_facts import effective_batching
from hfbench.measurement.context import prepare_context, tokens_in
from hfbench.measurement.device import Device
from hfbench.measurement.evidence import watch_functions, watch_sdpa
from hfbench.measurement.generation import Prompt, generation_config
from hfbench.measurement.isolation import SETTINGS
from hfbench.measurement.loading import split_attention, unpinned
from hfbench.measurement.prefill import forward_lengths, prefill_differences
from hfbench.measurement.sdpa_refusal import refusals_explained
from hfbench.measurement.tensors import describe_tensors, tensor_differences
from hfbench.measurement.workload import batches_of

_CACHES = {"static": "StaticCache", "dynamic": "DynamicCache"}
_SHORT = 2  # new tokens of the verifying call: one from the prefill, one from a decoding step


def describe_model(model: PreTrainedModel, device: Device) -> dict[str, Any]:
    """Return what can be read off the loaded model: attention, dtypes, devices, threads, weights."""
    parameters = list(model.parameters())
    return {
        "device": str(device.torch_device),
        "device_name": device.name,
        "architecture": type(model).__name__,
        "attn_implementation": flex_attention.asked_name(model.config._attn_implementation),
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

    Return which attention and which kind of cache they went through, how prompt and context went in, and the cache
    itself (None where it stays inside continuous batching, or there is none). Of requests of unequal lengths, the first
    that run together are taken.
    """
    prompt = batches_of(prompt, configuration.batch_size)[0]
    if configuration.attn_implementation == flex_attention.FLEX:  # it compiles, longer when watched
        _short_generate(model, configuration, settings, prompt)
    with refusals_explained(), watch_sdpa() as sdpa_backends, watch_functions() as evidence:
        if configuration.continuous_batching:
            cache, seen = None, _short_batch(model, configuration, settings, prompt)
        else:
            cache, seen = _short_generate(model, configuration, settings, prompt)
    kind = None if cache is None else type(cache).__name__
    paged = "PagedAttentionCache" if evidence.paged_cache_calls else None
    watched = {
        "attention_functions": dict(evidence.functions),
        "sdpa_calls": evidence.sdpa_calls,
        "sdpa_backends": dict(sdpa_backends),
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
        "continuous_batching": configuration.continuous_batching,
        "prefill_chunk_size": configuration.prefill_chunk_size,
        "context_depth": configuration.context_depth,
        "intra_op_threads": _asked_threads(),
    }


def _asked_threads() -> int:
    """Return what the supervisor set; OpenMP takes a list, with a number for each level of nesting."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])
