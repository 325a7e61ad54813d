"""The measured call of `generate`: greedy, open-ended, with a clock reading for every token."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from hfbench.core.point import PROMPT_LOOKUP, Configuration
from hfbench.core.record import Settings
from hfbench.measure.compiling import compile_config
from hfbench.measure.device import Device
from hfbench.measure.prompt import Prompt, batches_of, prepare_context


@dataclass(frozen=True)
class Call:
    """One timed call. All but `tokens` are readings of `time.perf_counter`, in seconds.

    `token_times` has one list for the whole batch where its rows advance in step, and else one a request; `tokens` has
    the new tokens of each row or request, `arrivals` when each request was due, empty where all are at the start.
    """

    start: float
    last_token: float
    end: float
    token_times: list[list[float]]
    tokens: list[list[int]]
    arrivals: list[float] = field(default_factory=list)


class Probe(Protocol):
    """What looks into a call that is not timed: its logits, or its memory."""

    def arguments(self, given: Mapping[str, Any], prompt: Prompt, new_tokens: int, /) -> dict[str, Any]:
        """Return arguments of `generate` beside the `given` ones or in their place, right before it is called.

        Those have the generation config, and a cache where there is one that holds the prompt's context.
        """

    def take(self, output: Any, /) -> torch.Tensor:
        """Return the sequences of what `generate` returned, int64 of shape (rows, tokens), with the prompt's."""


class Run(Protocol):
    """The prepared call: one iteration of the workload, exactly as it is timed."""

    def __call__(self, observed: bool, probe: Probe | None = None, /) -> Call:
        """Run it. `observed` is whether the time of each token is read; with a probe it is looked at, not timed."""


class TokenClock(BaseStreamer):
    """Reads the clock when `generate` hands out each step's tokens; it hands out the prompt first.

    `readings` has the time of each new token of a row, the same for all that assisted decoding accepts in a step.
    """

    def __init__(self) -> None:
        self.readings: list[float] = []
        self._has_prompt = False

    def put(self, value: torch.Tensor) -> None:
        """Note the time; `value` is a copy on the CPU, so the device has computed it.

        It has the shape (rows,) of a step with one token, (1, tokens) of assisted decoding, and (rows, tokens) of the
        prompt.
        """
        now = time.perf_counter()
        if self._has_prompt:
            self.readings += [now] * (value.shape[1] if value.dim() > 1 else 1)
        self._has_prompt = True

    def end(self) -> None:
        """Do nothing."""


def generation_config(configuration: Configuration, settings: Settings, prompt: Prompt) -> GenerationConfig:
    """Return the greedy, open-ended generation config: no EOS token, so that exactly `max_new_tokens` come out.

    A static cache is `generate`'s own to make, unless it is handed one that holds the context. On accelerators it would
    compile whatever has one, asked or not.
    """
    cache = _cache_implementation(configuration, prompt)
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=configuration.max_new_tokens,
        pad_token_id=prompt.pad_token_id,
        eos_token_id=-1 if configuration.continuous_batching else None,
        cache_implementation=cache,
        cache_config=dict(settings.quantized_cache or {}) if cache == "quantized" else None,
        prefill_chunk_size=configuration.prefill_chunk_size or None,
        compile_config=None if configuration.continuous_batching else compile_config(configuration, settings),
        disable_compile=configuration.compile_mode == "off",
        **(settings.assisted_decoding or {} if configuration.assistant == PROMPT_LOOKUP else {}),
    )


def _cache_implementation(configuration: Configuration, prompt: Prompt) -> str | None:
    if prompt.context_ids is not None:
        return None  # the call is handed the cache that holds the context
    kind = configuration.cache_kind
    return None if kind == "auto" else kind  # None: what transformers takes for the model


def prepare_generate(
    model: PreTrainedModel,
    configuration: Configuration,
    settings: Settings,
    prompt: Prompt,
    device: Device,
    assisted: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Return the function that runs one iteration of `generate`: one call, or one for each padded batch.

    `assisted` are its arguments for a model that drafts tokens.
    """
    if prompt.new_tokens:
        return _prepare_batches(model, configuration, settings, prompt, device, assisted)
    config = generation_config(configuration, settings, prompt)
    fill_context = prepare_context(model, configuration, settings, prompt, configuration.max_new_tokens)

    def call(observed: bool, probe: Probe | None = None) -> Call:
        clock = TokenClock() if observed else None
        arguments = {"generation_config": config, **assisted, **fill_context()}
        if probe:
            arguments |= probe.arguments(arguments, prompt, configuration.max_new_tokens)
        device.synchronize()
        start = time.perf_counter()
        output = model.generate(  # type: ignore[operator]
            prompt.input_ids, attention_mask=prompt.attention_mask, streamer=clock, **arguments
        )
        device.synchronize()
        end = time.perf_counter()
        sequences = probe.take(output) if probe else output
        tokens = sequences[:, prompt.input_ids.shape[1] :].tolist()
        return Call(start, end, end, [clock.readings] if clock else [], tokens)

    return call


def _prepare_batches(
    model: PreTrainedModel,
    configuration: Configuration,
    settings: Settings,
    prompt: Prompt,
    device: Device,
    assisted: Mapping[str, Any],
) -> Run:
    """Return the function that runs one iteration: all batches, each until its longest request has its tokens.

    A request's tokens and token times are its batch's, cut to its own number; what it got beyond them is waste.
    """
    batches = batches_of(prompt, configuration.batch_size)
    configs = [_config_of(batch, configuration, settings) for batch in batches]

    def call(observed: bool, probe: Probe | None = None) -> Call:
        clocks: list[TokenClock | None] = [TokenClock() if observed else None for _ in batches]
        sequences: list[torch.Tensor] = []
        device.synchronize()
        start = time.perf_counter()
        for batch, config, clock in zip(batches, configs, clocks, strict=True):
            arguments: dict[str, Any] = {"generation_config": config, **assisted}
            if probe:
                arguments |= probe.arguments(arguments, batch, max(batch.new_tokens))
            output = model.generate(  # type: ignore[operator]
                batch.input_ids, attention_mask=batch.attention_mask, streamer=clock, **arguments
            )
            sequences.append(probe.take(output) if probe else output)
        device.synchronize()
        end = time.perf_counter()
        times, tokens = [], []
        for batch, clock, generated in zip(batches, clocks, sequences, strict=True):
            rows = generated[:, batch.input_ids.shape[1] :].tolist()
            tokens += [row[:wanted] for row, wanted in zip(rows, batch.new_tokens, strict=True)]
            if clock is not None:
                times += [clock.readings[:wanted] for wanted in batch.new_tokens]
        return Call(start, end, end, times, tokens)

    return call


def _config_of(batch: Prompt, configuration: Configuration, settings: Settings) -> GenerationConfig:
    longest = dataclasses.replace(configuration, max_new_tokens=max(batch.new_tokens))
    return generation_config(longest, settings, batch)
