"""What continuous batching was asked to do, what its manager does, and where the two differ."""

from typing import Any

from transformers import CompileConfig, ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING

_KNOBS = (
    "page_size",
    "num_blocks",
    "max_batch_tokens",
    "max_memory_percent",
    "max_requests_per_batch",
    "max_blocks_per_request",
    "scheduler_type",
    "safety_margin",
    "allow_block_sharing",
    "use_async_batching",
    "use_cuda_graph",
    "q_padding_interval_size",
    "kv_padding_interval_size",
    "cpu_offload_space",
)
_GIB = 2**30
# The cache is made of whole sectors, so that of a model with several kinds of attention may hold some blocks more.
_AT_LEAST = ("num_blocks",)


def requested_batching(config: ContinuousBatchingConfig) -> dict[str, Any]:
    """Return the knobs as they were handed over; None, and 0 for an interval, left it to transformers."""
    return {
        **{name: getattr(config, name) for name in _KNOBS},
        "varlen_compile_mode": _mode(config.varlen_compile_config),
        "decode_compile_mode": _mode(config.decode_compile_config),
    }


def effective_batching(manager: ContinuousBatchingManager) -> dict[str, Any]:
    """Return what is in force, read from the running parts where they keep it, and not from the config alone.

    `use_cuda_graph` is a pair: prefill and mixed batches, and batches that only decode. `pads_inputs`: whether batches
    are padded to the intervals. `max_blocks_per_request` 0: batches that only decode take no path of their own.
    """
    config, processor = manager.continuous_batching_config, manager.batch_processor
    assert processor is not None
    cache, scheduler, offloading = processor.cache, processor.scheduler, processor.offloading_manager
    names = {kind: name for name, kind in SCHEDULER_MAPPING.items()}
    return {
        "page_size": config.page_size,
        "num_blocks": cache.num_blocks,
        "max_batch_tokens": cache.max_batch_tokens,
        "max_memory_percent": config.max_memory_percent,
        "max_requests_per_batch": scheduler.max_requests_per_batch,
        "max_blocks_per_request": config.max_blocks_per_request,
        "scheduler_type": names[type(scheduler)],
        "safety_margin": scheduler.safety_margin,
        "allow_block_sharing": cache.use_prefix_sharing,
        "use_async_batching": bool(processor.use_async_batching),
        "use_cuda_graph": list(config.cuda_graph_booleans),
        "pads_inputs": processor.model_runner.pad_inputs,
        "q_padding_interval_size": config.q_padding_interval_size,
        "kv_padding_interval_size": config.kv_padding_interval_size,
        "cpu_offload_space": offloading._num_cpu_sectors * cache.bytes_per_sector / _GIB,
        "varlen_compile_mode": _mode(config.varlen_compile_config),
        "decode_compile_mode": _mode(config.decode_compile_config),
    }


def batching_differences(requested: dict[str, Any], effective: dict[str, Any]) -> list[str]:
    """Return, in words, which knobs did not take effect."""
    found = []
    for name in _KNOBS:
        asked, ran = requested[name], effective[name]
        if asked is None or (name.endswith("_interval_size") and asked == 0):
            continue
        if name.endswith("_interval_size") and not effective["pads_inputs"]:
            found.append(f"continuous_batching.{name} is {asked}, and batches are not padded: no graphs are in use")
        elif not _in_force(name, asked, ran):
            found.append(f"continuous_batching.{name} is {ran}, not {asked}")
    return found


def _in_force(name: str, asked: Any, ran: Any) -> bool:
    if name == "cpu_offload_space":  # whole sectors of the cache, or none where it is smaller than one
        return bool(ran > 0) == bool(asked > 0) and ran <= asked and ran >= _MOST_ROUNDED * asked
    if name == "use_cuda_graph":  # of the two kinds of batches, those that occur
        return any(map(bool, ran)) == bool(asked)
    return bool(ran >= asked) if name in _AT_LEAST else bool(ran == asked)


_MOST_ROUNDED = 0.5


def _mode(config: CompileConfig | None) -> str | None:
    return None if config is None else str(config.mode or "options")
