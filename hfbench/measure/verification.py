"""What really runs, beside what was asked: the effective configuration and where it differs."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, PreTrainedModel

from hfbench.core.point import Configuration
from hfbench.core.record import Settings
from hfbench.measure import loading
from hfbench.measure.accounting import kv_bytes_per_token
from hfbench.measure.batching import Batching, continuous_batching_config, effective_batching
from hfbench.measure.device import Cpu, Device
from hfbench.measure.evidence import watch_functions, watch_operators
from hfbench.measure.experts import describe_experts, experts_differences, find_experts
from hfbench.measure.generation import generation_config, prepare_generate
from hfbench.measure.loading import split_attention, unpinned
from hfbench.measure.output import LogitsComparison, Steps, not_checked
from hfbench.measure.plain_pass import Reference, first_tokens, reference_of, steps_of
from hfbench.measure.process import SETTINGS
from hfbench.measure.prompt import (
    Prompt,
    batches_of,
    held_tokens,
    longest_row,
    new_tokens_of,
    prefill_differences,
    tokens_in,
    watch_passes,
)
from hfbench.measure.quantization import describe_quantization, quantized_weights, stored_bytes
from hfbench.measure.support import refusals_explained

_FLOATING = ("float", "bfloat")  # how torch's floating-point dtypes begin
_SAFE = "float32"


def describe_tensors(model: PreTrainedModel) -> dict[str, Any]:
    """Return, ready for JSON, how many parameters and buffers there are of each dtype and on each device.

    `stored_buffer_dtypes` are the floating-point buffers that come with the weights; the other ones the model computes.
    `kept_in_float32` counts what the model's class has transformers keep in float32 whatever dtype is asked for, such
    as the router of some mixtures of experts. Modules with quantised weights are described apart.
    """
    quantized = quantized_weights(model)
    parameters, buffers = (
        {name: tensor for name, tensor in named if name.rpartition(".")[0] not in quantized}
        for named in (model.named_parameters(), model.named_buffers())
    )
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


# Where `generate` hands out a token when it has queued the next step (transformers 5.22, `DeferredStopCheck`).
_DEFERRED = ("mps",)
_CACHES = {
    "static": "StaticCache",
    "offloaded_static": "StaticCache",
    "dynamic": "DynamicCache",
    "offloaded": "DynamicCache",
    "quantized": "QuantizedCache",
}
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
        "weight_bytes": sum(map(stored_bytes, parameters)),
        **describe_tensors(model),
        "training": any(module.training for module in model.modules()),
        "intra_op_threads": torch.get_num_threads(),
        "inter_op_threads": torch.get_num_interop_threads(),
        "variables": {name: os.environ.get(name) for name in SETTINGS},
        "clock_resolution_seconds": time.get_clock_info("perf_counter").resolution,
        "tokens_handed_out_late": device.torch_device.type in _DEFERRED,
    }


def watch_short_call(
    model: PreTrainedModel,
    configuration: Configuration,
    settings: Settings,
    prompt: Prompt,
    reference: Reference | None = None,
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Run the prefill and some decoding steps, uncompiled, with the reference's tokens, or two of its own.

    Without a reference one row is enough where all are alike.

    Return which attention, which experts and which kind of cache they went through, how prompt and context went in, and
    what the cache then held; the cache itself (None where it stays inside continuous batching, or there is none); and
    how the logits compare to the reference's. Continuous batching takes no tokens, and chooses its own.
    """
    if configuration.attn_implementation == loading.FLEX:  # it compiles, longer when watched
        _short_generate(model, configuration, settings, prompt, None)
    if reference is None and not prompt.new_tokens and not configuration.continuous_batching:
        prompt = longest_row(prompt)
    experts = find_experts(model)
    path, cache = not_checked("this call had no reference"), None
    batch: _ShortBatch | None = None
    with refusals_explained(), watch_operators() as operators, watch_functions(experts.functions) as evidence:
        if configuration.continuous_batching:
            batch = _ShortBatch.run(model, configuration, settings, prompt)
            seen = {"continuous_batching_config": batch.effective}
        else:
            cache, seen, path = _short_generate(model, configuration, settings, prompt, reference)
    if batch is not None:
        _require_paged(model, evidence.paged_cache_updates)
        path = batch.compare(model, prompt)
    kind = None if cache is None else type(cache).__name__
    rows = len(batches_of(prompt, configuration.batch_size)[-1].input_ids)  # of the last cache
    watched = {
        "attention_functions": dict(evidence.functions),
        "sdpa_calls": evidence.sdpa_calls,
        "sdpa_backends": dict(operators.sdpa),
        "softmax_calls": operators.softmax,
        **describe_experts(experts, evidence.method_calls, operators.experts),
        "quantization": describe_quantization(model, operators.products),
        "cache": "PagedAttentionCache" if batch is not None else kind,
        "cache_offloads": bool(getattr(cache, "offloading", False)),
        "kv_bytes_per_token": kv_bytes_per_token(cache, rows),
        "cache_layers": dict(Counter(type(layer).__name__ for layer in getattr(cache, "layers", []))),
        **seen,
    }
    return watched, cache, path


def _short_generate(
    model: PreTrainedModel,
    configuration: Configuration,
    settings: Settings,
    prompt: Prompt,
    reference: Reference | None,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    uncompiled = dataclasses.replace(configuration, compile_mode="off", cache_implementation=configuration.cache_kind)
    if reference is None:
        tokens = first_tokens(prompt, min(_SHORT, configuration.max_new_tokens))
        reference = Reference(tokens, None, "this call had no reference")
    with watch_passes(model) as passes:
        steps = Steps(reference, passes)
        # Nothing is timed: there is no device to wait for.
        prepare_generate(model, uncompiled, settings, prompt, Cpu())(False, steps)
    seen = {
        "prefill_lengths": passes.prefill_lengths(steps.new_tokens - 1),
        "rotary_frequencies_changed_at": None if prompt.new_tokens else passes.frequencies_changed_at(),
        **describe_held(prompt, configuration, steps),
    }
    return steps.cache, seen, steps.describe(model, prompt)


def describe_held(prompt: Prompt, configuration: Configuration, steps: Steps) -> dict[str, Any]:
    """Return, for `effective`, the tokens that the cache held before and after a checked call; None if unknown.

    Of requests of unequal lengths it is the last batch's cache.
    """
    context = None
    if prompt.context_depth:
        after = None if steps.cache is None else tokens_in(steps.cache)
        context = {"tokens_before": steps.tokens_before, "tokens_after": after, "new_tokens": steps.new_tokens}
    prompt_tokens = batches_of(prompt, configuration.batch_size)[-1].input_ids.shape[1]
    held = {"tokens": held_tokens(steps.cache), "expected": prompt.context_depth + prompt_tokens + steps.new_tokens - 1}
    return {"context": context, "cache_held": held}


@dataclass(frozen=True)
class _ShortBatch:
    """The first tokens that continuous batching chose for each request, their log-probabilities, and what it did."""

    effective: dict[str, Any]
    tokens: list[list[int]]
    log_probabilities: list[list[float]]

    @classmethod
    def run(
        cls, model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt
    ) -> "_ShortBatch":
        """Run the requests for their first tokens, uncompiled."""
        config: GenerationConfig = generation_config(configuration, settings, prompt)
        rows = len(prompt.input_ids)
        steps = steps_of(model, prompt, min(new_tokens_of(prompt, configuration)))
        config.max_new_tokens = steps
        asked = continuous_batching_config(configuration, settings)
        asked.varlen_compile_config = asked.decode_compile_config = None
        asked.return_logprobs = True
        batching = Batching(model, config, asked, prompt)
        _, outputs = batching.run((steps,) * rows, observed=False)
        assert batching.manager is not None
        effective = effective_batching(batching.manager)
        model.destroy_cached_continuous_batching_manager()  # type: ignore[operator]
        tokens, scores = zip(*((output.generated_tokens, output.logprobs) for output in outputs), strict=True)
        return cls(effective, [list(row) for row in tokens], [list(row) for row in scores])

    def compare(self, model: PreTrainedModel, prompt: Prompt) -> dict[str, Any]:
        """Compare with the reference for the same tokens; `tokens` are kept for what the timed call chooses."""
        tokens = torch.tensor(self.tokens, device=prompt.input_ids.device)
        reference = reference_of(model, prompt, tokens)
        if reference.logits is None:
            return not_checked(str(reference.missing))
        comparison = LogitsComparison()
        for scores, expected, chosen in zip(self.log_probabilities, reference.logits, tokens, strict=True):
            comparison.add_scored(scores, expected, chosen)
        return {**comparison.describe(model, prompt, reference), "tokens": self.tokens}


def _require_paged(model: PreTrainedModel, updates: int) -> None:
    if not updates:
        raise NotImplementedError(
            f"{type(model).__name__} computes attention by code of its own, which never writes to the paged cache of "
            "continuous batching"
        )


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
    cache = "PagedAttentionCache" if configuration.continuous_batching else _CACHES.get(configuration.cache_kind)
    if cache and effective["cache"] != cache:
        found.append(f"the cache is {effective['cache']}, not {cache}")
    if configuration.is_offloaded != effective["cache_offloads"]:
        where = "stays on the device" if configuration.is_offloaded else "goes to the host"
        found.append(f"the cache {where}, not as asked")
    return [*found, *held_differences(effective)]


def held_differences(effective: dict[str, Any]) -> list[str]:
    """Return, in words, where the cache does not hold what a call took in."""
    held = effective.get("cache_held") or {}
    if not held.get("tokens") or held["tokens"] == [held["expected"]]:
        return []
    listed = ", ".join(map(str, held["tokens"]))
    return [f"the cache holds {listed} tokens after a call that took in {held['expected']}"]


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
    has_attention = (effective.get("cache_held") or {}).get("tokens") is not None
    if implementation == "eager" and has_attention and not functions and not effective["softmax_calls"]:
        found.append("no attention was seen: neither a function of transformers' interface nor a softmax ran")
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
