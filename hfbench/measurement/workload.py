"""The prompt batch as a file of inputs holds it, and its requests where their lengths are not all alike."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hfbench.foundation.configuration import Configuration
from hfbench.measurement.generation import Prompt


def load_prompt(path: Path, device: torch.device, context_depth: int) -> Prompt:
    """Read a file of inputs onto the device; the first `context_depth` tokens of each row are the context."""
    with safe_open(path, framework="pt") as artifact:
        unequal = "new_tokens" in artifact.keys()  # noqa: SIM118, it is no mapping
        rows = artifact.get_tensor("input_ids").to(device)
        return Prompt(
            input_ids=rows[:, context_depth:].contiguous(),
            attention_mask=artifact.get_tensor("attention_mask").to(device),
            pad_token_id=int(artifact.metadata()["pad_token_id"]),
            new_tokens=tuple(artifact.get_tensor("new_tokens").tolist()) if unequal else (),
            context_ids=rows[:, :context_depth].contiguous() if context_depth else None,
        )


def new_tokens_of(prompt: Prompt, configuration: Configuration) -> tuple[int, ...]:
    """Return how many new tokens each row or request is to get, exactly."""
    return prompt.new_tokens or (configuration.max_new_tokens,) * len(prompt.input_ids)


def request_tokens(prompt: Prompt) -> list[list[int]]:
    """Return each row's tokens without its padding."""
    rows = zip(prompt.input_ids, prompt.attention_mask, strict=True)
    return [row[mask.bool()].tolist() for row, mask in rows]


def longest_row(prompt: Prompt) -> Prompt:
    """Return the first row that has no padding, as a batch of one."""
    row = int(prompt.attention_mask.sum(dim=1).argmax())
    return _part(prompt, row, row + 1)


def batches_of(prompt: Prompt, batch_size: int) -> list[Prompt]:
    """Return the batches of at most `batch_size` requests in which plain `generate` runs a workload, in order.

    Each is padded on the left to its own longest prompt. A batch whose rows are all alike is one, as it is.
    """
    if not prompt.new_tokens:
        return [prompt]
    return [_part(prompt, start, start + batch_size) for start in range(0, len(prompt.input_ids), batch_size)]


def _part(prompt: Prompt, start: int, end: int) -> Prompt:
    mask = prompt.attention_mask[start:end]
    padding = mask.shape[1] - int(mask.sum(dim=1).max())
    return dataclasses.replace(
        prompt,
        input_ids=prompt.input_ids[start:end, padding:],
        attention_mask=mask[:, padding:],
        new_tokens=prompt.new_tokens[start:end],
        context_ids=None if prompt.context_ids is None else prompt.context_ids[start:end],
    )


def describe_requests(prompt: Prompt) -> dict[str, Any]:
    """Return the prompt and new tokens asked for by each request, for the record; empty where all are alike."""
    if not prompt.new_tokens:
        return {}
    lengths = {"prompt_tokens": prompt.attention_mask.sum(dim=1).tolist(), "new_tokens": list(prompt.new_tokens)}
    return {"requests": lengths}


def describe_batches(prompt: Prompt, configuration: Configuration) -> dict[str, Any]:
    """Return the batches that `generate` runs, for the record: rows, tokens of each with padding, new tokens of each.

    Empty where there is no padding: all lengths alike, or continuous batching.
    """
    if not prompt.new_tokens or configuration.continuous_batching:
        return {}
    return {
        "batches": [
            {
                "rows": len(batch.input_ids),
                "padded_prompt_tokens": batch.input_ids.shape[1],
                "new_tokens": max(batch.new_tokens),
            }
            for batch in batches_of(prompt, configuration.batch_size)
        ]
    }
