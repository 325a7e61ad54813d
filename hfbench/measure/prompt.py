"""The prompt batch, its requests where their lengths differ, the context before it, and the pieces it goes in by."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import DynamicCache, PreTrainedModel, QuantizedCache, StaticCache

from hfbench.core.point import UNIFORM, Configuration
from hfbench.core.record import Settings
from hfbench.measure.failure import WrongTokenCountError


@dataclass(frozen=True)
class Prompt:
    """The prompt batch on the device, and the padding token.

    `input_ids` is int64 of shape (batch_size, sequence_length). `context_ids` is what comes before it in each row, of
    shape (batch_size, context_depth), or None without a context. `attention_mask` covers both. Requests of unequal
    lengths are rows padded on the left, and `new_tokens` says how many each is to get; it is empty where all rows are
    alike. `prefill_chunk_size` is that of the point, 0 where the prompt goes in whole.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pad_token_id: int
    new_tokens: tuple[int, ...] = ()
    context_ids: torch.Tensor | None = None
    prefill_chunk_size: int = 0

    @property
    def at_once(self) -> int:
        """The most tokens of a row that a call takes in at once, of the prompt."""
        length = self.input_ids.shape[1]
        return min(self.prefill_chunk_size or length, length)

    @property
    def context_depth(self) -> int:
        """The tokens of each row before the prompt."""
        return 0 if self.context_ids is None else self.context_ids.shape[1]


def load_prompt(path: Path, device: torch.device, configuration: Configuration) -> Prompt:
    """Read a file of inputs onto the device; the first `context_depth` tokens of each row are the context."""
    context_depth = configuration.context_depth
    with safe_open(path, framework="pt") as artifact:
        unequal = "new_tokens" in artifact.keys()  # noqa: SIM118, it is no mapping
        rows = artifact.get_tensor("input_ids").to(device)
        return Prompt(
            input_ids=rows[:, context_depth:].contiguous(),
            attention_mask=artifact.get_tensor("attention_mask").to(device),
            pad_token_id=int(artifact.metadata()["pad_token_id"]),
            new_tokens=tuple(artifact.get_tensor("new_tokens").tolist()) if unequal else (),
            context_ids=rows[:, :context_depth].contiguous() if context_depth else None,
            prefill_chunk_size=configuration.prefill_chunk_size,
        )


def new_tokens_of(prompt: Prompt, configuration: Configuration) -> tuple[int, ...]:
    """Return how many new tokens each row or request is to get, exactly."""
    return prompt.new_tokens or (configuration.max_new_tokens,) * len(prompt.input_ids)


def request_tokens(prompt: Prompt) -> list[list[int]]:
    """Return each row's tokens without its padding, as lists."""
    return [row.tolist() for row in row_tokens(prompt)]


def row_tokens(prompt: Prompt) -> list[torch.Tensor]:
    """Return each row's tokens without its padding, the context among them; int64 of shape (tokens,) each."""
    rows = prompt.input_ids if prompt.context_ids is None else torch.cat([prompt.context_ids, prompt.input_ids], dim=1)
    return [row[mask.bool()] for row, mask in zip(rows, prompt.attention_mask, strict=True)]


def longest_index(prompt: Prompt, among: Sequence[int] = ()) -> int:
    """Return the number of the first of the longest rows, of all or of those that are `among` them."""
    lengths: list[int] = prompt.attention_mask.sum(dim=1).tolist()
    return max(among or range(len(lengths)), key=lengths.__getitem__)


def longest_row(prompt: Prompt) -> Prompt:
    """Return the first row that has no padding, as a batch of one."""
    row = longest_index(prompt)
    return _part(prompt, row, row + 1)


def longest_to_decode(prompt: Prompt) -> Prompt:
    """Return the longest row that is to get more than one new token, or else the longest, as a batch of one."""
    row = longest_index(prompt, [row for row, wanted in enumerate(prompt.new_tokens) if wanted > 1])
    return _part(prompt, row, row + 1)


def batches_of(prompt: Prompt, batch_size: int) -> list[Prompt]:
    """Return the batches of at most `batch_size` requests in which plain `generate` runs a workload, in order.

    Each is padded on the left to its own longest prompt. A batch whose rows are all alike is one, as it is.
    """
    if not prompt.new_tokens:
        return [prompt]
    return [_part(prompt, start, start + batch_size) for start in range(0, len(prompt.input_ids), batch_size)]


def _part(prompt: Prompt, start: int, end: int) -> Prompt:
    mask = prompt.attention_mask[start:end]
    padding = mask.shape[1] - int(mask.sum(dim=1).max())
    return dataclasses.replace(
        prompt,
        input_ids=prompt.input_ids[start:end, padding:],
        attention_mask=mask[:, padding:],
        new_tokens=prompt.new_tokens[start:end],
        context_ids=None if prompt.context_ids is None else prompt.context_ids[start:end],
    )


def describe_requests(prompt: Prompt) -> dict[str, Any]:
    """Return the prompt and new tokens asked for by each request, for the record; empty where all are alike."""
    if not prompt.new_tokens:
        return {}
    lengths = {"prompt_tokens": prompt.attention_mask.sum(dim=1).tolist(), "new_tokens": list(prompt.new_tokens)}
    return {"requests": lengths}


def describe_batches(prompt: Prompt, configuration: Configuration) -> dict[str, Any]:
    """Return the batches that `generate` runs, for the record: rows, tokens of each with padding, new tokens of each.

    Empty where there is no padding: all lengths alike, or continuous batching.
    """
    if not prompt.new_tokens or configuration.continuous_batching:
        return {}
    return {
        "batches": [
            {
                "rows": len(batch.input_ids),
                "padded_prompt_tokens": batch.input_ids.shape[1],
                "new_tokens": max(batch.new_tokens),
            }
            for batch in batches_of(prompt, configuration.batch_size)
        ]
    }


# Tokens of a row that go through the model at once, as in llama-bench by default (-ub): what they take beside the cache
# stays what a prefill of that length takes, however long the context is.
_FILL_TOKENS = 512
CACHE = "past_key_values"  # under this name alone does `generate` look for what a cache holds already


def prepare_context(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, max_new_tokens: int
) -> Callable[[], dict[str, Any]]:
    """Return the function that fills a cache with the prompt's context and returns it, as an argument of `generate`.

    Without a context it returns no argument. It fills anew each time: whatever happened to the cache since, it holds
    exactly the context. A dynamic cache is a new one each time. A static one is emptied in place and filled again, for
    compiled code holds the addresses of its tensors; it has room for the prompt and `max_new_tokens`, as one that
    `generate` makes.

    Raises `NotImplementedError` where the architecture takes no such cache; what it returns raises
    `WrongTokenCountError` where the cache does not hold the context.
    """
    if prompt.context_ids is None:
        return dict
    _require_cache(model)
    config = model.config.get_text_config(decoder=True)
    room = prompt.attention_mask.shape[1] + max_new_tokens - 1  # the last new token is not fed back
    offloading = configuration.is_offloaded
    static = StaticCache(config=config, max_cache_len=room, offloading=offloading) if configuration.is_static else None

    def fill() -> dict[str, Any]:
        cache: Any
        if static is not None:
            static.reset()
            cache = static
        elif settings.quantized_cache is not None:
            cache = QuantizedCache(config=config, **settings.quantized_cache)
        else:
            cache = DynamicCache(config=config, offloading=offloading)
        _fill(model, prompt, cache)
        return {CACHE: cache}

    return fill


def context_cache(model: PreTrainedModel, prompt: Prompt) -> Any:
    """Return a dynamic cache that holds the prompt's context, or None where it has none."""
    if prompt.context_ids is None:
        return None
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    _fill(model, prompt, cache)
    return cache


def tokens_in(cache: Any) -> int:
    """Return how many tokens a cache has taken in; where it is static, the device is waited for."""
    return int(cache.get_seq_length())


def held_tokens(cache: Any) -> list[int] | None:
    """Return the numbers of tokens that a cache's layers of attention have taken in, each once, smallest first.

    Layers that hold nothing are left out where others do. None where the cache is none, or has no such layers.
    """
    layers = [layer for layer in getattr(cache, "layers", None) or () if hasattr(layer, "keys")]
    counts = {int(layer.get_seq_length()) for layer in layers}
    return sorted(counts - {0} or counts) or None


@torch.no_grad()
def _fill(model: PreTrainedModel, prompt: Prompt, cache: Any) -> None:
    context = prompt.context_ids
    assert context is not None
    depth = context.shape[1]
    # Without it a model computes logits for all positions, of which none is looked at.
    few_logits = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    for start in range(0, depth, _FILL_TOKENS):
        end = min(depth, start + _FILL_TOKENS)
        arguments = {CACHE: cache, "attention_mask": prompt.attention_mask[:, :end], "use_cache": True, **few_logits}
        model(context[:, start:end], **arguments)
    if tokens_in(cache) != depth:
        raise WrongTokenCountError(
            f"the cache holds {tokens_in(cache)} tokens before the call, and context_depth is {depth}"
        )


def _require_cache(model: PreTrainedModel) -> None:
    is_usual: bool = model._supports_default_dynamic_cache()  # type: ignore[operator]
    if not is_usual or CACHE not in inspect.signature(model.forward).parameters:
        raise NotImplementedError(
            f"{type(model).__name__} takes no {CACHE} that was filled before, which context_depth needs"
        )


@dataclass
class Passes:
    """The forward passes of a model: how many tokens of a row each took in, how many the cache that it was handed held
    before, and the rotary frequencies that it used.
    """

    lengths: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    frequencies: list[tuple[float, ...]] = field(default_factory=list)
    start: int = 0  # the first pass of the call; before it the cache was filled

    def begin_call(self) -> None:
        """Say that the call begins now: the passes so far have filled its cache with a context."""
        self.start = len(self.lengths)

    def prefill_lengths(self, decoding_steps: int) -> list[int]:
        """Return the lengths in which the prompt went in, of a call with so many passes after it."""
        return self.lengths[self.start : len(self.lengths) - decoding_steps]

    def frequencies_changed_at(self) -> int | None:
        """Return before which token, counted from 0, the frequencies changed while the cache was kept.

        The keys that it holds were then rotated by others than the queries. None where that was not so, as where the
        model then takes in all tokens anew.
        """
        for index, held in enumerate(self.held):
            if index and held and self.frequencies[index] != self.frequencies[index - 1]:
                return held
        return None


@contextmanager
def watch_passes(model: nn.Module) -> Iterator[Passes]:
    """Yield what gets, for each uncompiled forward pass of the model inside, its length and its rotary frequencies."""
    passes = Passes()
    rotary: list[Any] = [each for each in model.modules() if isinstance(getattr(each, "inv_freq", None), torch.Tensor)]

    def look(_: nn.Module, __: tuple[Any, ...], named: dict[str, Any]) -> None:
        cache = named.get(CACHE)
        passes.held.append(tokens_in(cache) if hasattr(cache, "get_seq_length") else 0)

    def note(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], __: Any) -> None:
        tokens = named.get("input_ids", positional[0] if positional else None)
        passes.lengths.append(-1 if tokens is None else int(tokens.shape[1]))
        passes.frequencies.append(tuple(float(module.inv_freq.double().sum()) for module in rotary))

    before = model.register_forward_pre_hook(look, with_kwargs=True)
    handle = model.register_forward_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        before.remove()
        handle.remove()


def expected_lengths(configuration: Configuration) -> list[int]:
    """Return the lengths of the pieces in which the prompt is to go in: one, or chunks of which the last may be short.

    With chunks `generate` splits the prompt from its beginning (`torch.split`).
    """
    length = configuration.sequence_length
    chunk = configuration.prefill_chunk_size or length
    return [chunk] * (length // chunk) + [length % chunk] * (length % chunk > 0)


def prefill_differences(configuration: Configuration, effective: dict[str, Any]) -> list[str]:
    """Return, in words, where prompt and context went in otherwise than asked.

    `effective` has `prefill_lengths`, of the forward passes until the first new token, `context`: None, or the tokens
    in the cache before and after the verifying call of `new_tokens` tokens, and `rotary_frequencies_changed_at`. With
    continuous batching, whose passes hold tokens of many requests, and with requests of unequal lengths, there is
    nothing to compare.
    """
    if configuration.continuous_batching or configuration.request_lengths != UNIFORM:
        return []
    found = []
    changed = effective["rotary_frequencies_changed_at"]
    if changed is not None:
        found.append(
            f"the model changed its rotary frequencies before token {changed + 1} and kept what the cache held, whose "
            "keys are rotated by the frequencies before"
        )
    lengths, expected = effective["prefill_lengths"], expected_lengths(configuration)
    if lengths != expected:
        found.append(f"the prompt went in as {_listed(lengths)} tokens, not as {_listed(expected)}")
    context = effective["context"] or {"tokens_before": 0}
    if context["tokens_before"] != configuration.context_depth:
        found.append(
            f"the cache held {context['tokens_before']} tokens before the call, and context_depth is "
            f"{configuration.context_depth}"
        )
    if effective["context"]:
        after = configuration.context_depth + configuration.sequence_length + context["new_tokens"] - 1
        if context["tokens_after"] != after:
            found.append(f"the cache held {context['tokens_after']} tokens after the call, not {after}")
    return found


def _listed(lengths: list[int]) -> str:
    """Return lengths in short: equal ones in a row are counted, as in `4 × 32 + 8`."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return " + ".join(str(length) if count == 1 else f"{count} × {length}" for count, length in runs)
