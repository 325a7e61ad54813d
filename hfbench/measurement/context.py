"""The context before a measured call: a cache that holds the first tokens of each row before the clock starts."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, PreTrainedModel, StaticCache

from hfbench.foundation.configuration import Configuration
from hfbench.measurement.failure import WrongTokenCountError

if TYPE_CHECKING:
    from hfbench.measurement.generation import Prompt

# Tokens of a row that go through the model at once, as in llama-bench by default (-ub): what they take beside the cache
# stays what a prefill of that length takes, however long the context is.
_FILL_TOKENS = 512
_CACHE = "past_key_values"  # under this name alone does `generate` look for what a cache holds already


def prepare_context(
    model: PreTrainedModel, configuration: Configuration, prompt: "Prompt", max_new_tokens: int
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
    static = StaticCache(config=config, max_cache_len=room) if configuration.is_static else None

    def fill() -> dict[str, Any]:
        if static is not None:
            static.reset()
        cache = DynamicCache(config=config) if static is None else static
        _fill(model, prompt, cache)
        return {_CACHE: cache}

    return fill


def context_cache(model: PreTrainedModel, prompt: "Prompt") -> Any:
    """Return a dynamic cache that holds the prompt's context, or None where it has none."""
    if prompt.context_ids is None:
        return None
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    _fill(model, prompt, cache)
    return cache


def tokens_in(cache: Any) -> int:
    """Return how many tokens a cache has taken in; where it is static, the device is waited for."""
    return int(cache.get_seq_length())


@torch.no_grad()
def _fill(model: PreTrainedModel, prompt: "Prompt", cache: Any) -> None:
    context = prompt.context_ids
    assert context is not None
    depth = context.shape[1]
    # Without it a model computes logits for all positions, of which none is looked at.
    few_logits = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    for start in range(0, depth, _FILL_TOKENS):
        end = min(depth, start + _FILL_TOKENS)
        arguments = {_CACHE: cache, "attention_mask": prompt.attention_mask[:, :end], "use_cache": True, **few_logits}
        model(context[:, start:end], **arguments)
    if tokens_in(cache) != depth:
        raise WrongTokenCountError(
            f"the cache holds {tokens_in(cache)} tokens before the call, and context_depth is {depth}"
        )


def _require_cache(model: PreTrainedModel) -> None:
    is_usual: bool = model._supports_default_dynamic_cache()  # type: ignore[operator]
    if not is_usual or _CACHE not in inspect.signature(model.forward).parameters:
        raise NotImplementedError(
            f"{type(model).__name__} takes no {_CACHE} that was filled before, which context_depth needs"
        )
