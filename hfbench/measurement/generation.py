"""The measured call of `generate`: greedy, open-ended, with a clock reading for every token."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement.compile_settings import compile_config
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
    """The prompt batch on the device, both int64 of shape (batch_size, sequence_length), and the padding token.

    Requests of unequal lengths are rows padded on the left, and `new_tokens` says how many each is to get; it is empty
    where all rows are alike.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pad_token_id: int
    new_tokens: tuple[int, ...] = ()


def generation_config(configuration: Configuration, settings: Settings, prompt: Prompt) -> GenerationConfig:
    """Return the greedy, open-ended generation config: no EOS token, so that exactly `max_new_tokens` come out."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=configuration.max_new_tokens,
        pad_token_id=prompt.pad_token_id,
        eos_token_id=-1 if configuration.continuous_batching else None,
        cache_implementation="static" if configuration.is_static else _CACHES[configuration.cache_implementation],
        compile_config=None if configuration.continuous_batching else compile_config(configuration, settings),
    )


def prepare_generate(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    """Return the function that runs one iteration of `generate`; its argument says whether each token is observed."""
    config = generation_config(configuration, settings, prompt)

    def call(observed: bool) -> Call:
        clock = TokenClock() if observed else None
        device.synchronize()
        start = time.perf_counter()
        sequences = model.generate(  # type: ignore[operator]
            prompt.input_ids, attention_mask=prompt.attention_mask, generation_config=config, streamer=clock
        )
        device.synchronize()
        end = time.perf_counter()
        tokens = sequences[:, prompt.input_ids.shape[1] :].tolist()
        return Call(start, end, end, [clock.readings[1:]] if clock else [], tokens)

    return call
