"""The measured call: `generate` or `generate_batch`, greedy, open-ended, with a clock reading for every token."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CompileConfig, ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from hfbench.foundation.configuration import Configuration
from hfbench.measurement.device import Device

_PAGE_TOKENS = 256  # tokens a page of the paged cache holds (transformers' default)


@dataclass(frozen=True)
class Call:
    """One timed call. `start`, `last_token`, `end` and `token_times` are readings of `time.perf_counter`, in seconds.

    `token_times` has one list for the whole batch with `generate` and one a request with `generate_batch`; `tokens` has
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
    """The prompt batch on the device, both int64 of shape (batch_size, sequence_length), and the padding token."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pad_token_id: int


def compile_config(configuration: Configuration) -> CompileConfig | None:
    """Return the `CompileConfig` asked for. Without `_compile_all_devices`, transformers skips the CPU in silence."""
    if configuration.compile_mode == "off":
        return None
    config = CompileConfig(mode=configuration.compile_mode)
    config._compile_all_devices = True  # type: ignore[assignment]
    return config


def generation_config(configuration: Configuration, prompt: Prompt) -> GenerationConfig:
    """Return the greedy, open-ended generation config: no EOS token, so that exactly `max_new_tokens` come out."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=configuration.max_new_tokens,
        pad_token_id=prompt.pad_token_id,
        eos_token_id=-1 if configuration.continuous_batching else None,
        cache_implementation="static" if configuration.is_static else None,
        compile_config=None if configuration.continuous_batching else compile_config(configuration),
    )


def continuous_batching_config(configuration: Configuration) -> ContinuousBatchingConfig:
    """Return the config of `generate_batch` with nothing left to be inferred from free memory, which differs by run.

    The cache holds twice what the requests need. Prefix sharing is off and the attention stays the one asked for.
    """
    tokens = configuration.sequence_length + configuration.max_new_tokens
    compiled = compile_config(configuration)
    return ContinuousBatchingConfig(
        page_size=_PAGE_TOKENS,
        num_blocks=2 * configuration.batch_size * (math.ceil(tokens / _PAGE_TOKENS) + 1),
        max_batch_tokens=max(_PAGE_TOKENS, configuration.batch_size * configuration.sequence_length),
        max_requests_per_batch=configuration.batch_size,
        allow_block_sharing=False,
        auto_switch_to_flash=False,
        varlen_compile_config=compiled,
        decode_compile_config=compiled,
        seed=0,
    )


def prepare_call(
    model: PreTrainedModel, configuration: Configuration, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    """Return the function that runs one iteration; its argument says whether each token's time is observed."""
    if configuration.continuous_batching:
        return _prepare_generate_batch(model, configuration, prompt, device)
    return _prepare_generate(model, configuration, prompt, device)


def _prepare_generate(
    model: PreTrainedModel, configuration: Configuration, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    config = generation_config(configuration, prompt)

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


def _prepare_generate_batch(
    model: PreTrainedModel, configuration: Configuration, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    config = generation_config(configuration, prompt)
    batching = continuous_batching_config(configuration)
    requests = prompt.input_ids.tolist()

    def call(observed: bool) -> Call:
        device.synchronize()
        start = time.perf_counter()
        # The manager with its cache and graphs is kept for the next iteration, as a server keeps it.
        results: dict[str, Any] = model.generate_batch(  # type: ignore[operator]
            requests,
            generation_config=config,
            continuous_batching_config=batching,
            record_timestamps=observed,
            persistent_manager=True,
        )
        device.synchronize()
        end = time.perf_counter()
        outputs = list(results.values())
        errors = [output.error for output in outputs if output.error]
        if errors or len(outputs) != len(requests):
            raise RuntimeError(f"generate_batch returned {len(outputs)} of {len(requests)} requests: {errors[:1]}")
        times = [list(output.timestamps) for output in outputs] if observed else []
        tokens = [list(output.generated_tokens) for output in outputs]
        return Call(start, max(output.lifespan[1] for output in outputs), end, times, tokens)

    return call
