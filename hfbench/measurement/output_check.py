"""Whether the loaded model still computes what it should: the prompt's likelihood and the most likely tokens."""

import math
from typing import Any

import torch
from transformers import PreTrainedModel

from hfbench.measurement.failure import NotFiniteError
from hfbench.measurement.generation import Prompt
from hfbench.measurement.workload import longest_row

_LOGITS_AT_ONCE = 2**28  # elements; 1 GiB in float32


@torch.no_grad()
def check_prompt(model: PreTrainedModel, prompt: Prompt, vocab_size: int) -> dict[str, Any]:
    """Return the negative log-likelihood (mean nats a token) of a row of the prompt, and the top-1 tokens.

    The row is the first without padding. It is teacher-forced, in one forward pass unless the logits would be larger
    than 1 GiB; then it needs a model that takes `past_key_values`, and both are None for any other. Raises
    `NotFiniteError` where the likelihood is no number.
    """
    prompt = longest_row(prompt)
    row = prompt.input_ids
    length = row.shape[1]
    step = max(1, _LOGITS_AT_ONCE // max(1, vocab_size))
    top1: list[int] = []
    total, cache = 0.0, None
    for start in range(0, length, step):
        end = min(length, start + step)
        output = model(
            row[:, start:end],
            attention_mask=prompt.attention_mask[:, :end],
            past_key_values=cache,
            use_cache=step < length,
        )
        cache = output.get("past_key_values")
        if cache is None and end < length:  # an architecture whose state cannot be handed on by this name
            return {"prompt_nll": None, "prompt_top1": None}
        log_probabilities = output.logits[0].float().log_softmax(-1)
        top1 += log_probabilities.argmax(-1).tolist()
        targets = row[0, start + 1 : min(end + 1, length)]
        total -= log_probabilities[: len(targets)].gather(1, targets[:, None]).double().sum().item()
    if not math.isfinite(total):
        raise NotFiniteError(
            f"the negative log-likelihood of the prompt is {total}: the model overflows in "
            f"{str(model.dtype).removeprefix('torch.')}, or its weights are broken"
        )
    nll = total / (length - 1) if length > 1 else None
    return {"prompt_nll": nll, "prompt_top1": top1}
