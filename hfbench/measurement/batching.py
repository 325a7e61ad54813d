"""The measured call of continuous batching: `generate_batch`, with the clock readings that it keeps for each token."""

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import ContinuousBatchingConfig, PreTrainedModel

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement.compile_settings import compile_config
from hfbench.measurement.device import Device
from hfbench.measurement.generation import Call, Prompt, generation_config


def continuous_batching_config(configuration: Configuration, settings: Settings) -> ContinuousBatchingConfig:
    """Return the config of `generate_batch` with nothing left to be inferred from free memory, which differs by run.

    Where the params do not say, the cache holds twice what the requests need, and all prompts go in at once. The
    attention stays the one asked for.
    """
    asked = dict(settings.continuous_batching or {})
    page_size = asked.setdefault("page_size", 256)
    pages = math.ceil((configuration.sequence_length + configuration.max_new_tokens) / page_size) + 1
    inferred = {
        "num_blocks": 2 * configuration.batch_size * pages,
        "max_batch_tokens": max(page_size, configuration.batch_size * configuration.sequence_length),
    }
    compiled = compile_config(configuration, settings)
    return ContinuousBatchingConfig(
        **{
            "allow_block_sharing": False,
            **inferred,
            **{name: asked[name] for name in asked if asked[name] is not None},
        },
        max_requests_per_batch=configuration.batch_size,
        auto_switch_to_flash=False,
        varlen_compile_config=compiled,
        decode_compile_config=compiled,
        seed=0,
    )


def prepare_generate_batch(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, device: Device
) -> Callable[[bool], Call]:
    """Return the function that runs one iteration of `generate_batch`."""
    config = generation_config(configuration, settings, prompt)
    batching = continuous_batching_config(configuration, settings)
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
