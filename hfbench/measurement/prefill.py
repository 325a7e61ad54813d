"""How the prompt went through the model: after which context, and in pieces of which lengths."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from hfbench.foundation.configuration import UNIFORM, Configuration


@contextmanager
def forward_lengths(model: nn.Module) -> Iterator[list[int]]:
    """Yield a list that gets, for each forward pass of the model inside, how many tokens of a row it takes in."""
    lengths: list[int] = []

    def note(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = named.get("input_ids", positional[0] if positional else None)
        lengths.append(-1 if tokens is None else int(tokens.shape[1]))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield lengths
    finally:
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

    `effective` has `prefill_lengths`, of the forward passes until the first new token, and `context`: None, or the
    tokens in the cache before and after the verifying call of `new_tokens` tokens. With continuous batching, whose
    passes hold tokens of many requests, and with requests of unequal lengths, there is nothing to compare.
    """
    if configuration.continuous_batching or configuration.request_lengths != UNIFORM:
        return []
    found = []
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
