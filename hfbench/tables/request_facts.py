"""How many tokens the requests of a record have in all, and how much of the work on them was padding."""

from typing import Any

import polars as pl

from hfbench.foundation.configuration import UNIFORM

REQUEST_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "requests": pl.Int64,
    "prompt_tokens": pl.Int64,
    "new_tokens": pl.Int64,
    "padding_waste_share": pl.Float64,
}


def request_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return a value for each of `REQUEST_TYPES`: of a record's requests together, None where it does not tell.

    `padding_waste_share` is None where all lengths are alike, and 0 for continuous batching that pads nothing.
    """
    axes, effective = content["configuration"], content["effective"]
    if axes["request_lengths"] == UNIFORM:
        return uniform_facts(axes)
    lengths = content["requested"].get("requests")
    if lengths is None:
        return dict.fromkeys(REQUEST_TYPES)
    prompts, new_tokens = lengths["prompt_tokens"], lengths["new_tokens"]
    batching = effective.get("continuous_batching_config") or {}
    waste = 0.0 if batching.get("pads_inputs") is False else None
    if effective.get("batches"):
        waste = padding_waste_share(prompts, new_tokens, effective["batches"])
    return {
        "requests": len(prompts),
        "prompt_tokens": sum(prompts),
        "new_tokens": sum(new_tokens),
        "padding_waste_share": waste,
    }


def uniform_facts(axes: dict[str, Any]) -> dict[str, Any]:
    """Return the same for rows that are all alike, from the axes of a point."""
    rows = axes["batch_size"]
    return {
        "requests": rows,
        "prompt_tokens": rows * axes["sequence_length"],
        "new_tokens": rows * axes["max_new_tokens"],
        "padding_waste_share": None,
    }


def padding_waste_share(prompt_tokens: list[int], new_tokens: list[int], batches: list[dict[str, int]]) -> float:
    """Return the share of the token positions that the model computed for padding or for surplus new tokens.

    share = 1 - sum over requests of (p + n - 1) / sum over batches of rows × (P + N - 1)

    A request of p prompt tokens needs p positions in the prefill, whose last one gives its first new token, and one in
    each of the n - 1 decoding steps after it. A padded batch computes P of its longest prompt and N of its most new
    tokens for each of its rows.
    """
    needed = sum(prompt + new - 1 for prompt, new in zip(prompt_tokens, new_tokens, strict=True))
    computed = sum(batch["rows"] * (batch["padded_prompt_tokens"] + batch["new_tokens"] - 1) for batch in batches)
    return 1 - needed / computed
