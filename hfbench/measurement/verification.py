"""What really runs, beside what was asked: the effective configuration and where it differs."""

import os
import time
from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, PreTrainedModel

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement.batching import continuous_batching_config
from hfbench.measurement.context import prepare_context, tokens_in
from hfbench.measurement.device import Device
from hfbench.measurement.evidence import Evidence, SdpaOperators, watch_functions
from hfbench.measurement.generation import Prompt, generation_config
from hfbench.measurement.kernels import kernelized_layers
from hfbench.measurement.loading import split_attention
from hfbench.measurement.prefill import expected_lengths, forward_lengths, prefill_differences

_RECOMPILE_LIMIT = "recompile limit exceeded"  # how torch says that it runs a frame uncompiled from now on
_SHORT = 2  # new tokens of the verifying call: one from the prefill, one from a decoding step


def describe_model(model: PreTrainedModel, device: Device) -> dict[str, Any]:
    """Return what can be read off the loaded model: attention, dtypes, devices, threads, kernels, weights."""
    parameters = list(model.parameters())
    return {
        "device": str(device.torch_device),
        "device_name": device.name,
        "architecture": type(model).__name__,
        "attn_implementation": model.config._attn_implementation,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "weight_bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        "parameter_dtypes": _count(str(parameter.dtype).removeprefix("torch.") for parameter in parameters),
        "buffer_dtypes": _count(str(buffer.dtype).removeprefix("torch.") for buffer in model.buffers()),
        "tensor_devices": _count(str(tensor.device) for tensor in [*parameters, *model.buffers()]),
        "training": any(module.training for module in model.modules()),
        "intra_op_threads": torch.get_num_threads(),
        "inter_op_threads": torch.get_num_interop_threads(),
        "clock_resolution_seconds": time.get_clock_info("perf_counter").resolution,
        "kernelized_layers": kernelized_layers(model),
    }


def watch_short_call(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt
) -> tuple[dict[str, Any], Any]:
    """Run one prefill and one decoding step, uncompiled.

    Return which attention and which kind of cache they went through, how prompt and context went in, and the cache
    itself (None where it stays inside `generate_batch`, or there is none).
    """
    with watch_functions() as evidence:
        short_call = _short_batch if configuration.continuous_batching else _short_generate
        cache, went_in = short_call(model, configuration, settings, prompt, evidence)
    kind = None if cache is None else type(cache).__name__
    watched = {
        "attention_functions": dict(evidence.functions),
        "sdpa_calls": evidence.sdpa_calls,
        "sdpa_backends": dict(evidence.sdpa_backends),
        "cache": "PagedAttentionCache" if configuration.continuous_batching else kind,
        **went_in,
    }
    return watched, cache


def _short_generate(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, evidence: Evidence
) -> tuple[Any, dict[str, Any]]:
    config = generation_config(configuration, settings, prompt)
    new_tokens = min(_SHORT, configuration.max_new_tokens)
    config.update(max_new_tokens=new_tokens, return_dict_in_generate=True, disable_compile=True)
    context = prepare_context(model, configuration, prompt, new_tokens)()
    before = [tokens_in(cache) for cache in context.values()]
    arguments = {"attention_mask": prompt.attention_mask, "generation_config": config, **context}
    # flex attention's own compiled graph cannot run below a dispatch mode
    is_sdpa = split_attention(configuration.attn_implementation)[0] == "sdpa"
    with forward_lengths(model) as lengths, SdpaOperators(evidence) if is_sdpa else nullcontext():
        output = model.generate(prompt.input_ids, **arguments)  # type: ignore[operator]
    cache = getattr(output, "past_key_values", None)
    went_in: dict[str, Any] = {"prefill_lengths": lengths[: len(lengths) - new_tokens + 1], "context": None}
    if before:
        after = None if cache is None else tokens_in(cache)
        went_in["context"] = {"tokens_before": before[0], "tokens_after": after, "new_tokens": new_tokens}
    return cache, went_in


def _short_batch(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, evidence: Evidence
) -> tuple[None, dict[str, Any]]:
    del evidence  # the hook sees the batching thread's functions; its operators cannot be watched from here
    config: GenerationConfig = generation_config(configuration, settings, prompt)
    config.max_new_tokens = min(_SHORT, configuration.max_new_tokens)
    batching = continuous_batching_config(configuration, settings)
    batching.varlen_compile_config = batching.decode_compile_config = None
    results = model.generate_batch(  # type: ignore[operator]
        prompt.input_ids.tolist(), generation_config=config, continuous_batching_config=batching
    )
    errors = [output.error for output in results.values() if output.error]
    if errors or len(results) != len(prompt.input_ids):
        raise RuntimeError(f"generate_batch failed: {errors[0] if errors else 'no result; see the log'}")
    return None, {}


def differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    """Return, in words, where what runs is not what was asked for."""
    found = [
        *_tensor_differences(configuration, effective),
        *_attention_differences(configuration, effective),
        *prefill_differences(configuration, effective),
    ]
    replaced = sum(layer["replaced"] for layer in effective["kernelized_layers"])
    if configuration.use_kernels and not replaced:
        found.append("use_kernels replaced no layer: no kernel is mapped to this device, or none could be loaded")
    if not configuration.use_kernels and replaced:
        found.append(f"use_kernels is off, and {replaced} layers run a kernel")
    if effective["training"]:
        found.append("the model is in training mode")
    if effective["intra_op_threads"] != _asked_threads():
        found.append(f"torch uses {effective['intra_op_threads']} threads, not {_asked_threads()}")
    if configuration.is_static and effective["cache"] != "StaticCache":
        found.append(f"the cache is {effective['cache']}, not StaticCache")
    return found


def _tensor_differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    found = []
    others = {dtype: count for dtype, count in effective["parameter_dtypes"].items() if dtype != configuration.dtype}
    if others:
        found.append(f"parameters are not all {configuration.dtype}: {others}")
    elsewhere = {where: count for where, count in effective["tensor_devices"].items() if where != effective["device"]}
    if elsewhere:
        found.append(f"tensors are not all on {effective['device']}: {elsewhere}")
    for name, keys in effective["loading"].items():
        if keys:
            found.append(f"{len(keys)} {name.replace('_', ' ')} in the weights, first {keys[0]}")
    return found


def _attention_differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    implementation, backend = split_attention(configuration.attn_implementation)
    found = []
    if effective["attn_implementation"] != implementation:
        found.append(f"attention is {effective['attn_implementation']}, not {implementation}")
    uses_sdpa, functions = effective["sdpa_calls"] > 0, effective["attention_functions"]
    seen = ", ".join(functions) or "none"
    if implementation == "sdpa" and not uses_sdpa:
        found.append(f"no call of scaled_dot_product_attention; attention functions seen: {seen}")
    if implementation != "sdpa" and uses_sdpa:
        found.append("attention went through scaled_dot_product_attention")
    if implementation not in ("sdpa", "eager") and not any(_is_kind(name, implementation) for name in functions):
        found.append(f"{implementation} was not called; attention functions seen: {seen}")
    if implementation == "eager" and any("eager" not in name for name in functions):
        found.append(f"attention functions other than eager ran: {seen}")
    if backend and not configuration.continuous_batching:  # there torch allows this backend only, and raises
        wanted = {} if backend == "math" else {backend}
        if set(effective["sdpa_backends"]) != set(wanted):
            found.append(f"SDPA ran {', '.join(effective['sdpa_backends']) or 'math'}, not {backend}")
    return found


def _is_kind(function: str, implementation: str) -> bool:
    kind = "flex" if implementation == "flex_attention" else "flash"
    return kind in function.rpartition(".")[2] or ("/" in implementation and "eager" not in function)


def compilation_differences(
    configuration: Configuration, compilation: dict[str, Any], compiled_calls: int | None
) -> list[str]:
    """Return where compilation is not what was asked for; `compiled_calls`: how often compiled code ran in a call."""
    if configuration.compile_mode == "off":
        return [f"{compilation['graphs']} graphs were compiled"] if compilation["graphs"] else []
    found = []
    if not compilation["graphs"]:
        found.append("nothing was compiled")
    given_up = [reason for reason in compilation["fell_back"] if _RECOMPILE_LIMIT in reason.lower()]
    if given_up:
        found.append(f"torch gave up recompiling and ran uncompiled: {given_up[0]}")
    # transformers compiles the prefill too where it is in chunks, and else the decoding steps only.
    chunks = len(expected_lengths(configuration)) if configuration.prefill_chunk_size else 0
    steps = configuration.max_new_tokens - 1
    if compiled_calls is not None and compiled_calls < chunks + steps:
        passes = f"{chunks} prefill chunks and {steps} decoding steps" if chunks else f"{steps} decoding steps"
        found.append(f"compiled code ran {compiled_calls} times in {passes}")
    return found


def watch_compiled_call(call: Any) -> int:
    """Run one iteration and return how often it entered compiled code."""
    with watch_functions() as evidence:
        call(False)
    return evidence.compiled_calls


def requested(configuration: Configuration, device: str, compile_config: CompileConfig | None) -> dict[str, Any]:
    """Return what was asked for, in the terms of `effective`."""
    implementation, backend = split_attention(configuration.attn_implementation)
    return {
        "device": device,
        "dtype": configuration.dtype,
        "attn_implementation": implementation,
        "sdpa_backend": backend,
        "compile_config": compile_config.to_dict() if compile_config else None,
        "use_kernels": configuration.use_kernels,
        "continuous_batching": configuration.continuous_batching,
        "prefill_chunk_size": configuration.prefill_chunk_size,
        "context_depth": configuration.context_depth,
        "intra_op_threads": _asked_threads(),
    }


def _asked_threads() -> int:
    """Return what the supervisor set; OpenMP takes a list, with a number for each level of nesting."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])


def _count(values: Any) -> dict[str, int]:
    return dict(Counter(values))
