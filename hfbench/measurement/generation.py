"""The measured call of `generate`: greedy, open-ended, with a clock reading for every token."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement.compile_settings import compile_config
from hfbench.measurement.context import prepare_context
from hfbench.measurement.device import Device

_CACHES = {"auto": None, "dynamic": "dynamic"}  # None: what transformers takes for the model


@dataclass(frozen=True)
class Call:
    """One timed call. `start`, `last_token`, `end` and `token_times` are readings of `time.perf_counter`, in seconds.

    `token_times` has one list for the whole batch where its rows advance in step, and else one a request; `tokens` has
    the new tokens of each row or request.
    """

    start: float
    last_token: float
    end: float
    token_times: list[list[float]]
    tokens: list[list[int]]


class TokenClock(BaseStreamer):
    """Reads the clock when `generate` hands out each step's tokens; it hands out the prompt first."""

    def __init__(self) -> None:
        self.readings: list[float] = []

    def put(self, value: torch.Tensor) -> None:  # noqa: ARG002, called by transformers
        """Note the time; `value` is a copy on the CPU, so the device has computed it."""
        self.readings.append(time.perf_counter())

    def end(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Prompt:
    """The prompt batch on the device, and the padding token.

    `input_ids` is int64 of shape (batch_size, sequence_length). `context_ids` is what comes before it in each row, of
    shape (batch_size, context_depth), or None without a context. `attention_mask` covers both. Requests of unequal
    lengths are rows padded on the left, and `new_tokens` says how many each is to get; it is empty where all rows are
    alike.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pad_token_id: int
    new_tokens: tuple[int, ...] = ()
    context_ids: torch.Tensor | None = None

    @property
    def context_depth(self) -> int:
        """The tokens of each row before the prompt."""
        return 0 if self.context_ids is None else self.context_ids.shape[1]


def generation_config(configuration: Configuration, settings: Settings, prompt: Prompt) -> GenerationConfig:
    """Return the greedy, open-ended generation config: no EOS token, so that exactly `max_new_tokens` come out.

    A static cache is `generate`'s own to make, unless it is handed one that holds the context. On accelerators it would
    compile whatever has one, asked or not.
    """
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=configuration.max_new_tokens,
        pad_token_id=prompt.pad_token_id,
        eos_token_id=-1 if configuration.continuous_batching else None,
        cache_implementation=_cache_implementation(configuration, prompt),
        prefill_chunk_size=configuration.prefill_chunk_size or None,
        compile_config=None if configuration.continuous_batching else compile_config(configuration, settings),
        disable_compile=configuration.compile_mode == "off",
    )


def _cache_implementation(configuration: Configuration, prompt: Prompt) -> str | None:
    if prompt.context_ids is not None:
        return None  # the call is handed the cache that holds the context
    return "static" if configuration.is_static else _CACHES[configuration.cache_implementation]


def prepare_generate(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    """Return the function that runs one iteration of `generate`; its argument says whether each token is observed."""
    config = generation_config(configuration, settings, prompt)
    fill_context = prepare_context(model, configuration, prompt, configuration.max_new_tokens)

    def call(observed: bool) -> Call:
        clock = TokenClock() if observed else None
        context = fill_context()
        device.synchronize()
        start = time.perf_counter()
        sequences = model.generate(  # type: ignore[operator]
            prompt.input_ids,
            attention_mask=prompt.attention_mask,
            generation_config=config,
            streamer=clock,
            **context,
        )
        device.synchronize()
        end = time.perf_counter()
        tokens = sequences[:, prompt.input_ids.shape[1] :].tolist()
        return Call(start, end, end, [clock.readings[1:]] if clock else [], tokens)

    return call
