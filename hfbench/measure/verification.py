"""What really runs, beside what was asked: the effective configuration and where it differs."""

import dataclasses
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, PreTrainedModel

from hfbench.core.point import NONE, Configuration
from hfbench.core.record import Settings
from hfbench.measure import loading
from hfbench.measure.accounting import kv_bytes_per_token
from hfbench.measure.assisted import Assistant, ShortDrafts, assisted_differences
from hfbench.measure.batching import Batching, continuous_batching_config, effective_batching
from hfbench.measure.device import Cpu, Device
from hfbench.measure.evidence import watch_functions, watch_operators
from hfbench.measure.experts import describe_experts, experts_differences, find_experts
from hfbench.measure.generation import generation_config, prepare_generate
from hfbench.measure.loading import describe_loaded, split_attention, tensor_differences, unpinned
from hfbench.measure.output import LogitsComparison, Steps, not_checked
from hfbench.measure.plain_pass import Reference, first_tokens, reference_of, steps_of
from hfbench.measure.process import SETTINGS
from hfbench.measure.prompt import (
    Prompt,
    batches_of,
    held_tokens,
    longest_row,
    longest_to_decode,
    new_tokens_of,
    prefill_differences,
    tokens_in,
    watch_passes,
)
from hfbench.measure.quantization import describe_quantization
from hfbench.measure.support import refusals_explained

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
    return {
        "device": str(device.torch_device),
        "device_name": device.name,
        "attention_registered_as": model.config._attn_implementation,
        **describe_loaded(model),
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
    assistant: Assistant | None = None,
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Run the prefill and some decoding steps, uncompiled, with the reference's tokens, or two of its own.

    Without a reference one row is enough where all are alike. Continuous batching and assisted decoding choose tokens
    of their own. Return which attention, which experts and which kind of cache they went through, how prompt and
    context went in, and what the cache then held; the cache itself (None where it stays inside continuous batching, or
    there is none); and how the logits compare to the reference's.
    """
    if configuration.attn_implementation == loading.FLEX:  # it compiles, longer when watched
        _short_generate(model, configuration, settings, prompt, None)
    prompt = _looked_at(prompt, configuration, reference, assistant)
    experts = find_experts(model)
    path, cache = not_checked("this call had no reference"), None
    chosen: _ShortBatch | ShortDrafts | None = None  # tokens of its own
    with refusals_explained(), watch_operators() as operators, watch_functions(experts.functions) as evidence:
        if configuration.continuous_batching:
            chosen = _ShortBatch.run(model, configuration, settings, prompt)
            seen = {"continuous_batching_config": chosen.effective}
        elif assistant is not None:
            chosen, seen = _short_assisted(model, configuration, settings, prompt, assistant)
            cache = chosen.cache
        else:
            cache, seen, path = _short_generate(model, configuration, settings, prompt, reference)
    if configuration.continuous_batching:
        _require_paged(model, evidence.paged_cache_updates)
    path = chosen.compare(model, prompt) if chosen else path
    kind = None if cache is None else type(cache).__name__
    rows = len(batches_of(prompt, configuration.batch_size)[-1].input_ids)  # of the last cache
    watched = {
        "attention_functions": dict(evidence.functions),
        "sdpa_calls": evidence.sdpa_calls,
        "sdpa_backends": dict(operators.sdpa),
        "softmax_calls": operators.softmax,
        **describe_experts(experts, evidence.method_calls, operators.experts),
        "quantization": describe_quantization(model, operators.products),
        "cache": "PagedAttentionCache" if configuration.continuous_batching else kind,
        "cache_offloads": bool(getattr(cache, "offloading", False)),
        "kv_bytes_per_token": kv_bytes_per_token(cache, rows),
        "cache_layers": dict(Counter(type(layer).__name__ for layer in getattr(cache, "layers", []))),
        **seen,
    }
    return watched, cache, path


def _looked_at(
    prompt: Prompt, configuration: Configuration, reference: Reference | None, assistant: Assistant | None
) -> Prompt:
    """Return the rows that the short call runs: all, or one where that tells as much."""
    if assistant:
        return longest_to_decode(prompt)
    if reference is None and not prompt.new_tokens and not configuration.continuous_batching:
        return longest_row(prompt)
    return prompt


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


def _short_assisted(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, assistant: Assistant
) -> tuple[ShortDrafts, dict[str, Any]]:
    steps = steps_of(model, prompt, min(new_tokens_of(prompt, configuration)))
    drafts = ShortDrafts(model, assistant, Cpu(), steps)
    with watch_passes(model) as passes:
        prepare_generate(model, configuration, settings, prompt, Cpu(), assistant.arguments)(False, drafts)
    seen = {
        # The first draft goes in with the prompt.
        "prefill_lengths": [passes.lengths[0] - drafts.proposed[0]],
        "rotary_frequencies_changed_at": None if prompt.new_tokens else passes.frequencies_changed_at(),
        "drafting": drafts.describe(),
        **describe_held(prompt, configuration, drafts),
    }
    return drafts, seen


def describe_held(prompt: Prompt, configuration: Configuration, steps: Steps | ShortDrafts) -> dict[str, Any]:
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
        asked = continuous_batching_config(configuration, settings, model.config)
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
    found = _model_differences(configuration, effective)
    if draft := effective.get("assistant"):
        on_one = dataclasses.replace(configuration, device_map=NONE)
        found += [f"the assistant: {each}" for each in _model_differences(on_one, effective | draft)]
    found += assisted_differences(configuration, effective.get("drafting", {}))
    found += _attention_differences(configuration, effective)
    found += experts_differences(configuration.experts_implementation, effective)
    found += prefill_differences(configuration, effective)
    if effective["intra_op_threads"] != _asked_threads():
        found.append(f"torch uses {effective['intra_op_threads']} threads, not {_asked_threads()}")
    cache = "PagedAttentionCache" if configuration.continuous_batching else _CACHES.get(configuration.cache_kind)
    if cache and effective["cache"] != cache:
        found.append(f"the cache is {effective['cache']}, not {cache}")
    if configuration.is_offloaded != effective["cache_offloads"]:
        where = "stays on the device" if configuration.is_offloaded else "goes to the host"
        found.append(f"the cache {where}, not as asked")
    return [*found, *held_differences(effective)]


def _model_differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    found = tensor_differences(configuration.dtype, configuration.device_map, effective)
    for name, keys in effective["loading"].items():
        if keys:
            found.append(f"{len(keys)} {name.replace('_', ' ')} in the weights, first {keys[0]}")
    implementation = split_attention(configuration.attn_implementation)[0]
    if unpinned(effective["attn_implementation"]) != implementation:
        found.append(f"attention is {effective['attn_implementation']}, not {implementation}")
    if effective["training"]:
        found.append("the model is in training mode")
    return found


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
        "assistant": configuration.assistant,
        "tp_size": configuration.tp_size,
        "device_map": configuration.device_map,
        "context_depth": configuration.context_depth,
        "request_rate": configuration.request_rate,
        "intra_op_threads": _asked_threads(),
    }


def _asked_threads() -> int:
    """Return what the supervisor set; OpenMP takes a list, with a number for each level of nesting."""
    return int(os.environ["OMP_NUM_THREADS"].split(",")[0])
