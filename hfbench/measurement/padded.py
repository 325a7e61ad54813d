"""The measured call of plain `generate` on requests of unequal lengths: padded batches, one after the other."""

import dataclasses
import time
from collections.abc import Callable

import torch
from transformers import GenerationConfig, PreTrainedModel

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement.device import Device
from hfbench.measurement.generation import Call, Prompt, TokenClock, generation_config
from hfbench.measurement.workload import batches_of


def prepare_padded_generate(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    """Return the function that runs one iteration: all batches, each until its longest request has its tokens.

    A request's tokens and token times are its batch's, cut to its own number; what it got beyond them is waste.
    """
    batches = batches_of(prompt, configuration.batch_size)
    configs = [_config_of(batch, configuration, settings) for batch in batches]

    def call(observed: bool) -> Call:
        clocks: list[TokenClock | None] = [TokenClock() if observed else None for _ in batches]
        sequences: list[torch.Tensor] = []
        device.synchronize()
        start = time.perf_counter()
        for batch, config, clock in zip(batches, configs, clocks, strict=True):
            sequences.append(
                model.generate(  # type: ignore[operator]
                    batch.input_ids, attention_mask=batch.attention_mask, generation_config=config, streamer=clock
                )
            )
        device.synchronize()
        end = time.perf_counter()
        times, tokens = [], []
        for batch, clock, generated in zip(batches, clocks, sequences, strict=True):
            rows = generated[:, batch.input_ids.shape[1] :].tolist()
            tokens += [row[:wanted] for row, wanted in zip(rows, batch.new_tokens, strict=True)]
            if clock is not None:
                times += [clock.readings[1 : 1 + wanted] for wanted in batch.new_tokens]
        return Call(start, end, end, times, tokens)

    return call


def _config_of(batch: Prompt, configuration: Configuration, settings: Settings) -> GenerationConfig:
    longest = dataclasses.replace(configuration, max_new_tokens=max(batch.new_tokens))
    return generation_config(longest, settings, batch)
