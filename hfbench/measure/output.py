"""Whether the loaded model still computes what it should: the prompt's likelihood and the most likely tokens."""

import math
from typing import Any

import torch
from transformers import PreTrainedModel

from hfbench.measure.failure import NotFiniteError
from hfbench.measure.prompt import Prompt, context_cache, longest_row

_LOGITS_AT_ONCE = 2**28  # elements; 1 GiB in float32


@torch.no_grad()
def check_prompt(model: PreTrainedModel, prompt: Prompt, vocab_size: int) -> dict[str, Any]:
    """Return the negative log-likelihood (mean nats a token) of a row of the prompt, and the top-1 tokens.

    The row is the first without padding. It is teacher-forced, in one forward pass unless the logits would be larger
    than 1 GiB; then it needs a model that takes `past_key_values`, and both are None for any other. After a context the
    prompt is still all that is scored: `nll_positions` are the first and the last token of the row that the likelihood
    is of, counted from 0. The prompt's own first token is not among them, so that for a prompt of one token there is
    none. Raises `NotFiniteError` where the likelihood is no number.
    """
    prompt = longest_row(prompt)
    row = prompt.input_ids
    length = row.shape[1]
    step = max(1, _LOGITS_AT_ONCE // max(1, vocab_size))
    top1: list[int] = []
    depth, cache = prompt.context_depth, context_cache(model, prompt)
    total = 0.0
    for start in range(0, length, step):
        end = min(length, start + step)
        output = model(
            row[:, start:end],
            attention_mask=prompt.attention_mask[:, : depth + end],
            past_key_values=cache,
            use_cache=step < length or depth > 0,
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
    if length == 1:
        return {"prompt_nll": None, "prompt_top1": top1}
    nll_positions = [depth + 1, depth + length - 1]
    return {"prompt_nll": total / (length - 1), "prompt_top1": top1, "nll_positions": nll_positions}
