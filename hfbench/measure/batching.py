"""What continuous batching was asked to do, what its manager does, and where the two differ."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from typing import Any

from transformers import (
    CompileConfig,
    ContinuousBatchingConfig,
    DynamicCache,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import LinearAttentionCacheLayerMixin
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import GenerationOutput
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING
from transformers.generation.continuous_batching.utils import WorkloadHints

from hfbench.core.point import INF, Configuration
from hfbench.core.record import Settings
from hfbench.measure.compiling import compile_config
from hfbench.measure.device import Device
from hfbench.measure.generation import Call, Probe, Run, generation_config
from hfbench.measure.prompt import Prompt, new_tokens_of, request_tokens

# What torch says where shapes do not fit, and what is wrong then.
_OTHER_SHAPES = {
    "index_copy_(): Source/destination tensor must have same slice shapes": (
        "the keys and values of {} have other shapes than the one that the paged cache of continuous batching takes "
        "from its config"
    ),
    "must match the size of tensor": (
        "{} computes with tensors of shapes that the packed requests of continuous batching do not have"
    ),
    "is a per-layer attribute": (
        "the layers of {} differ in shape, and the paged cache of continuous batching takes one shape from the config"
    ),
}
_POLL_SECONDS = 1.0  # between looks at whether the manager's thread is still alive


# It might run another attention than was asked for; transformers 5.18 has no such option.
_SWITCH = {"auto_switch_to_flash": False}


def continuous_batching_config(
    configuration: Configuration, settings: Settings, config: PreTrainedConfig | None = None
) -> ContinuousBatchingConfig:
    """Return the config of continuous batching with nothing left to be inferred from free memory, which differs by run.

    Where the params do not say, the cache holds twice what the requests need that run at a time, and their prompts go
    in at once. The attention stays the one asked for. The model's `config` tells how the cache is divided.
    """
    asked = dict(settings.continuous_batching or {})
    page_size = asked.setdefault("page_size", 256)
    pages = math.ceil((configuration.sequence_length + configuration.max_new_tokens) / page_size) + 1
    inferred = {
        "num_blocks": 2 * configuration.batch_size * pages + _blocks_of_sectors(config),
        "max_batch_tokens": max(page_size, configuration.batch_size * configuration.sequence_length),
    }
    compiled = compile_config(configuration, settings)
    return ContinuousBatchingConfig(
        **{
            "allow_block_sharing": False,
            **{name: value for name, value in _SWITCH.items() if name in ContinuousBatchingConfig.__dataclass_fields__},
            **inferred,
            **{name: asked[name] for name in asked if asked[name] is not None},
        },
        max_requests_per_batch=configuration.batch_size,
        varlen_compile_config=compiled,
        decode_compile_config=compiled,
        seed=0,
    )


def _blocks_of_sectors(config: PreTrainedConfig | None) -> int:
    """Return the blocks by which a sector for each kind of layer may exceed what they need.

    transformers deals the cache out to full and to sliding attention in sectors that both can divide into blocks of
    their own: the least common multiple of their numbers of layers, in pages of a layer.
    """
    text = config and config.get_text_config(decoder=True)
    counts = Counter(getattr(text, "layer_types", None) or ()).values()
    return len(counts) * math.ceil(math.lcm(*counts) / sum(counts)) if len(counts) > 1 else 0


def arrival_delays(count: int, request_rate: str, seed: int) -> tuple[float, ...]:
    """Return how many seconds after the first of `count` requests each arrives, in order; none where all do at once.

    They come as a Poisson process, with exponential gaps from Python's `random.Random(seed)`, scaled so that their mean
    rate is exactly `request_rate` a second: a few dozen drawn ones are far from it by chance.
    """
    if request_rate == INF or count < 2:
        return ()
    source = random.Random(seed)
    arrivals = [0.0, *accumulate(source.expovariate(1.0) for _ in range(count - 1))]
    scale = (count - 1) / float(request_rate) / arrivals[-1]
    return tuple(arrival * scale for arrival in arrivals)


class Batching:
    """Runs a workload through continuous batching, iteration by iteration, as `generate_batch` does.

    That takes one number of new tokens for all requests; this, the public interface below it, one for each. Raises
    `NotImplementedError` for a model whose layers the paged cache cannot hold.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: GenerationConfig,
        batching: ContinuousBatchingConfig,
        prompt: Prompt,
        delays: tuple[float, ...] = (),
    ) -> None:
        _require_no_state(model)
        self._model = model
        self._config = config
        self._batching = batching
        self._requests = request_tokens(prompt)
        self._delays = delays or (0.0,) * len(self._requests)
        self.manager: ContinuousBatchingManager | None = None  # of the last run

    def run(self, new_tokens: tuple[int, ...], observed: bool) -> tuple[list[float], list[GenerationOutput]]:
        """Run all requests to their end; return when each was due, on `time.perf_counter`, and their outputs in order.

        Those without a delay arrive together, while the loop is held; each other one is handed over when it is due,
        whatever those before it still wait for. The manager with its cache and graphs is kept for the next run, as a
        server keeps it; the first run arrives before it is made and warmed up. Raises what ended the loop.
        """
        start = time.perf_counter()
        hints = WorkloadHints(max(map(len, self._requests)), max(new_tokens), len(self._requests))
        kept: AbstractContextManager[Any] = self._model.continuous_batching_context_manager(  # type: ignore[operator]
            generation_config=self._config,
            continuous_batching_config=self._batching,
            persistent_manager=True,
            workload_hints=hints,
        )
        with _shapes_explained(self._model), kept as manager:
            with _held(manager):
                if self._batching.allow_block_sharing and self.manager is not None:
                    # Else each prompt would be found whole in what the run before has left.
                    manager.batch_processor.cache.reset()
                start = start if self.manager is None else time.perf_counter()
                requests = list(zip(self._requests, new_tokens, strict=True))
                at_once = self._delays.count(0.0)
                names = [_add(manager, *request, observed) for request in requests[:at_once]]
                began = time.perf_counter()
            due = [start] * at_once
            for request, delay in zip(requests[at_once:], self._delays[at_once:], strict=True):
                due.append(began + delay)
                time.sleep(max(0.0, due[-1] - time.perf_counter()))
                if manager.is_running():  # else collecting tells why
                    names.append(_add(manager, *request, observed))
            self.manager = manager
            found = _collect(manager, len(due))
        return due, [found[name] for name in names]


@contextmanager
def _shapes_explained(model: PreTrainedModel) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AttributeError) as error:
        reason = next((reason for told, reason in _OTHER_SHAPES.items() if told in str(error)), None)
        if reason is None:
            raise
        raise NotImplementedError(reason.format(type(model).__name__)) from error


@contextmanager
def _held(manager: ContinuousBatchingManager) -> Iterator[None]:
    """Hold the loop, so that what is added inside arrives together. Raises what ended the loop before it could hold."""
    try:
        with manager.pause():
            yield
    except RuntimeError as error:
        raise error.__cause__ or error from None


def _add(manager: ContinuousBatchingManager, tokens: list[int], new_tokens: int, observed: bool) -> str:
    name = manager.add_request(tokens, max_new_tokens=new_tokens, record_timestamps=observed)
    assert name is not None  # only a rank that drives no requests gets none
    return name


def _collect(manager: ContinuousBatchingManager, count: int) -> dict[str, GenerationOutput]:
    """Wait for this many requests to end. Raises what ended the loop, or a request."""
    found: dict[str, GenerationOutput] = {}
    while len(found) < count:
        output = manager.get_result(timeout=_POLL_SECONDS)
        if output is None and not manager.is_running():
            raise manager.background_thread_status.fatal_error or RuntimeError("the loop of continuous batching ended")
        if output is not None and output.is_finished():
            if output.error is not None:
                raise manager.background_thread_status.fatal_error or RuntimeError(f"a request failed: {output.error}")
            found[output.request_id] = output
    return found


def _require_no_state(model: PreTrainedModel) -> None:
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    recurrent = sum(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)
    if recurrent or getattr(model, "_is_stateful", False):
        kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
        named = ", ".join(dict.fromkeys(kind for kind in kinds if "full" not in kind and "sliding" not in kind))
        raise NotImplementedError(
            f"{type(model).__name__} has layers that keep a state{f' ({named})' if named else ''}, for which the paged "
            "cache of continuous batching has no room"
        )


def prepare_generate_batch(
    model: PreTrainedModel, configuration: Configuration, settings: Settings, prompt: Prompt, device: Device
) -> Run:
    """Return the function that runs one iteration of continuous batching, which no probe looks into."""
    config = generation_config(configuration, settings, prompt)
    asked = continuous_batching_config(configuration, settings, model.config)
    new_tokens = new_tokens_of(prompt, configuration)
    delays = arrival_delays(len(new_tokens), configuration.request_rate, **(settings.arrivals or {"seed": 0}))
    batching = Batching(model, config, asked, prompt, delays)

    def call(observed: bool, probe: Probe | None = None) -> Call:  # noqa: ARG001, it can only look into `generate`
        device.synchronize()
        due, outputs = batching.run(new_tokens, observed)
        device.synchronize()
        end = time.perf_counter()
        times = [list(output.timestamps or ()) for output in outputs] if observed else []
        tokens = [list(output.generated_tokens) for output in outputs]
        if any(len(row) != len(made) for row, made in zip(times, tokens, strict=False)):
            raise RuntimeError(_EVICTED)
        last = max(output.lifespan[1] for output in outputs)
        return Call(due[0], last, end, times, tokens, due if delays and observed else [])

    return call


_EVICTED = (
    "a request was put out of the full cache and begun again, and transformers forgets the times of its tokens before; "
    "raise continuous_batching.num_blocks"
)


def kept_manager(model: PreTrainedModel) -> Any:
    """Return the manager that the measured calls share."""
    return model._cached_continuous_batching_manager


def count_shared_prefixes(manager: Any, run: Callable[[], Any]) -> dict[str, int]:
    """Return how many prompt tokens a run of the requests has, and how many of them it found in the cache.

    That is what prefix sharing (`allow_block_sharing`) saves of the prefill; it is counted in a run that is not timed.
    A request that has to wait is looked up again, and the last time counts.
    """
    cache, prompts, shared = manager.batch_processor.cache, dict[str, int](), dict[str, int]()
    search = cache.search_prefix_match

    def counting(request_id: str, prompt_ids: list[int]) -> int:
        found: int = search(request_id, prompt_ids)
        prompts.setdefault(request_id, len(prompt_ids))
        shared[request_id] = found
        return found

    cache.search_prefix_match = counting
    try:
        run()
    finally:
        del cache.search_prefix_match
    return {"prompt_tokens": sum(prompts.values()), "shared_tokens": sum(shared.values())}


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
