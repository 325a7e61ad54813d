"""What the model computes: its logits from one plain forward pass, and how likely the prompt is by them.

Plain is: uncompiled, a row by itself without padding, and without a cache wherever the row is not too long for that.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch
from transformers import PreTrainedModel

from hfbench.measure.failure import NotFiniteError
from hfbench.measure.prompt import CACHE, Prompt, longest_index, row_tokens
from hfbench.measure.quantization import logical_parameters

# Logits of each row that are compared: those after the prefill, and of the decoding steps that follow. A part of those
# that an iteration takes, so that checking takes no longer than two iterations.
MOST_STEPS = 8
_STEPS_SHARE = 6
_FEWEST_STEPS = 2
_FEWEST_SCORED = 32  # positions of the prompt whose likelihood is taken
_LOGITS_AT_ONCE = 2**27  # elements; 512 MiB in float32
_SCORED_AT_ONCE = 2**24  # elements; 64 MiB in float32
_TOKENS_AT_ONCE = 4096  # of a row without a cache; eager attention of 32 heads then takes some 2 GiB a layer
_TOKENS_TOGETHER = 2**14  # of several rows
SUPPRESSED = 1e30  # logits of tokens that a model never gives are beyond, as the lowest number that there is
_NO_PIECES = "the model hands on no cache by which a row of this length could go in by pieces"


@dataclass
class Reference:
    """What the plain pass gives for `tokens`, which follow each row of the prompt.

    `tokens` is int64 of shape (rows, steps), `logits` of shape (rows, steps, vocabulary) in the model's dtype.
    `missing` says why there are no logits.
    """

    tokens: torch.Tensor
    logits: torch.Tensor | None
    missing: str | None = None

    def set_aside(self) -> IO[bytes]:
        """Return a file that holds it, so that it takes no memory while memory is measured."""
        file = tempfile.TemporaryFile()  # noqa: SIM115, it lasts until it is read
        torch.save(vars(self), file)
        return file

    @classmethod
    def from_file(cls, file: IO[bytes]) -> "Reference":
        """Return what was set aside, on its device."""
        file.seek(0)
        with file:
            return cls(**torch.load(file))


def first_tokens(prompt: Prompt, steps: int) -> torch.Tensor:
    """Return the first `steps` tokens of each row after its context, over again where it has fewer; (rows, steps)."""
    rows = [row[prompt.context_depth :] for row in row_tokens(prompt)]
    return torch.stack([row.repeat(1 + steps // len(row))[:steps] for row in rows])


def steps_of(model: PreTrainedModel, prompt: Prompt, new_tokens: int) -> int:
    """Return how many steps of each row are compared: the first few, or fewer where their logits are large.

    They end before a length at which the model changes its rotary frequencies: it then takes in all tokens anew, and
    gives the earlier steps other logits than they had.
    """
    few = max(_FEWEST_STEPS, new_tokens // _STEPS_SHARE)
    rows, length = prompt.attention_mask.shape
    switch = _rotary_switch(model)
    if switch is not None and length <= switch:
        new_tokens = min(new_tokens, switch - length + 1)
    vocabulary: int = model.config.get_text_config(decoder=True).vocab_size
    return min(MOST_STEPS, few, new_tokens, max(_FEWEST_STEPS, _LOGITS_AT_ONCE // (rows * vocabulary)))


def scored_positions(model: PreTrainedModel, rows: int, new_tokens: int) -> int:
    """Return how many of the prompt's last positions are scored: the same for all configurations of a workload.

    As many as take the FLOPs of those decoding steps of an iteration that checking it leaves out, and at least 32. Of a
    small model nearly all FLOPs are the output head's, which an iteration computes for the last position alone.
    """
    head = getattr(model.get_output_embeddings(), "weight", None)
    share = 1.0 if head is None else logical_parameters(model) / max(1, head.numel())
    left_out = new_tokens - new_tokens // _STEPS_SHARE
    return max(_FEWEST_SCORED, int(rows * left_out * share))


def _rotary_switch(model: PreTrainedModel) -> int | None:
    """Return the longest row, in tokens, that has the frequencies of short ones; None where all have the same."""
    parameters = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    kinds = [parameters, *(each for each in parameters.values() if isinstance(each, dict))]
    switches = [each.get("original_max_position_embeddings") for each in kinds if each.get("rope_type") == "longrope"]
    return min((each for each in switches if each), default=None)


@torch.no_grad()
def check_prompt(
    model: PreTrainedModel, prompt: Prompt, steps: int, most_scored: int | None = None
) -> tuple[dict[str, Any], Reference]:
    """Return the prompt's negative log-likelihood (mean nats a token) with its top-1 tokens, and the reference.

    The likelihood is of the first row without padding, of at most its `most_scored` last tokens. After a context the
    prompt is still all that is scored: `nll_positions` are the first and the last token of the row that the likelihood
    is of, counted from 0. The prompt's own first token is not among them, so that for a prompt of one token there is
    none. The reference's tokens are the first `steps` of each row once more, the same for each configuration of a
    workload. A model that can neither take the row at once nor hand on its state has None for all. Raises
    `NotFiniteError` where the likelihood is no number.
    """
    rows, tokens = row_tokens(prompt), first_tokens(prompt, steps)
    depth = prompt.context_depth
    longest = longest_index(prompt)
    whole = torch.cat([rows[longest], tokens[longest, :-1]])
    length = len(rows[longest]) - depth
    if most_scored is not None:
        length = min(length, most_scored)
    scored = _score(model, whole, length + steps - 1, steps, prompt.at_once)
    if scored is None:
        return {"prompt_nll": None, "prompt_top1": None}, Reference(tokens, None, _NO_PIECES)
    total, top1, last = scored
    wanted = [index for index in range(len(rows)) if index != longest]
    others = _logits_after(model, rows, tokens, wanted, prompt.at_once)
    reference = Reference(tokens, *_stacked({**others, longest: last}))
    if length == 1:
        return {"prompt_nll": None, "prompt_top1": top1}, reference
    if not math.isfinite(total):
        raise NotFiniteError(
            f"the negative log-likelihood of the prompt is {total}: the model overflows in "
            f"{str(model.dtype).removeprefix('torch.')}, or its weights are broken"
        )
    end = len(rows[longest]) - 1
    nll_positions = [end - length + 2, end]
    return {"prompt_nll": total / (length - 1), "prompt_top1": top1, "nll_positions": nll_positions}, reference


@torch.no_grad()
def reference_of(model: PreTrainedModel, prompt: Prompt, tokens: torch.Tensor) -> Reference:
    """Return the reference for tokens that the measured path has chosen; int64 of shape (rows, steps)."""
    rows = row_tokens(prompt)
    logits = _logits_after(model, rows, tokens, list(range(len(rows))), prompt.at_once)
    return Reference(tokens, *_stacked(logits))


@torch.no_grad()
def chosen_margins(
    model: PreTrainedModel, prompt: Prompt, row: int, tokens: list[int]
) -> Iterator[tuple[float, float]]:
    """Yield for each of the tokens that follow a row how far its logit is below the largest, and the logits' size.

    That is `size_of` them. Nothing for a model that takes such a row neither at
    once nor by pieces.
    """
    before, chosen = row_tokens(prompt)[row], torch.tensor(tokens, device=prompt.input_ids.device)
    whole = torch.cat([before, chosen[:-1]])
    for start, logits in _pieces(model, whole[None], len(tokens), prompt.at_once):
        if logits is None:
            return
        first = start + 1 - len(before)
        for offset, part in _slices(logits[0]):
            scores = part.float()
            wanted = chosen[first + offset : first + offset + len(part)]
            margins = scores.amax(-1) - scores.gather(-1, wanted[:, None])[:, 0]
            yield from zip(margins.tolist(), size_of(scores).tolist(), strict=True)


def size_of(logits: torch.Tensor) -> torch.Tensor:
    """Return the root mean square over the vocabulary, the last dimension, without tokens that a model never gives."""
    usable = logits.isfinite() & (logits.abs() < SUPPRESSED)
    total = torch.where(usable, logits, 0.0).square().sum(-1)
    return (total / usable.sum(-1).clamp_min(1)).sqrt()


def _score(
    model: PreTrainedModel, row: torch.Tensor, length: int, steps: int, at_once: int
) -> tuple[float, list[int], torch.Tensor] | None:
    """Return the negative log-likelihood of the row's last `length` tokens without the last `steps` - 1, and top-1.

    So too the logits of the last `steps` positions.
    """
    total, top1, last = 0.0, list[int](), list[torch.Tensor]()
    end = len(row) - steps + 1
    for start, logits in _pieces(model, row[None], length, at_once):
        if logits is None:
            return None
        for offset, part in _slices(logits[0]):
            first = start + offset
            targets = row[first + 1 : min(first + len(part) + 1, end)]
            total -= log_probability(part[: len(targets)].float(), targets).double().sum().item()
            top1 += part[: max(0, end - first)].float().argmax(-1).tolist()
        last = [*last, logits[0, -steps:]]
    return total, top1, torch.cat(last)[-steps:].clone()


def _stacked(logits: Mapping[int, torch.Tensor | None]) -> tuple[torch.Tensor | None, str | None]:
    """Return the rows' logits in order as one tensor, or why there is none."""
    found = [each for _, each in sorted(logits.items()) if each is not None]
    return (torch.stack(found), None) if len(found) == len(logits) else (None, _NO_PIECES)


def _logits_after(
    model: PreTrainedModel, rows: list[torch.Tensor], tokens: torch.Tensor, wanted: list[int], at_once: int
) -> dict[int, torch.Tensor | None]:
    """Return the logits at the `tokens` after each of the `wanted` rows, (steps, vocabulary); None as `_pieces` says.

    Rows of one length go in together.
    """
    found: dict[int, torch.Tensor | None] = {}
    steps, vocabulary = tokens.shape[1], model.config.get_text_config(decoder=True).vocab_size
    while wanted:
        length = len(rows[wanted[0]])
        together = [index for index in wanted if len(rows[index]) == length]
        most = min(_TOKENS_TOGETHER // (length + steps), _LOGITS_AT_ONCE // (vocabulary * steps))
        together = together[: max(1, most)]
        wanted = [index for index in wanted if index not in together]
        whole = torch.stack([torch.cat([rows[index], tokens[index, :-1]]) for index in together])
        *_, (_, logits) = _pieces(model, whole, steps, at_once)
        found |= {index: None if logits is None else logits[place] for place, index in enumerate(together)}
    return found


def _pieces(
    model: PreTrainedModel, rows: torch.Tensor, scored: int, at_once: int
) -> Iterator[tuple[int, torch.Tensor | None]]:
    """Yield the logits of the last `scored` positions, in order, each with its first position.

    In one pass without a cache where the rows are no longer than what the measured path takes in `at_once`, or 4096
    tokens, and the logits no larger than `_LOGITS_AT_ONCE`; else in pieces through the model's own dynamic cache. None
    where the model hands out no cache under the name by which it takes one.
    """
    count, length = rows.shape
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    most = max(1, _LOGITS_AT_ONCE // (vocabulary * count))
    if length <= max(_TOKENS_AT_ONCE, at_once + MOST_STEPS) and scored <= most:
        yield length - scored, _forward(model, rows, length, scored, use_cache=False).logits[:, -scored:]
        return
    first, cache = length - scored, None
    starts = [*range(0, first, _TOKENS_AT_ONCE), *range(first, length, min(most, _TOKENS_AT_ONCE))]
    for start, end in zip(starts, [*starts[1:], length], strict=True):
        wanted = 1 if start < first else end - start
        output = _forward(model, rows[:, start:end], end, wanted, use_cache=True, **{CACHE: cache})
        cache = output.get(CACHE)
        if cache is None and end < length:
            yield start, None
            return
        if start >= first:
            yield start, output.logits[:, -wanted:]


def _forward(model: PreTrainedModel, tokens: torch.Tensor, seen: int, wanted: int, **arguments: Any) -> Any:
    mask = torch.ones((len(tokens), seen), dtype=torch.int64, device=tokens.device)
    if model._supports_logits_to_keep():  # type: ignore[operator]
        arguments["logits_to_keep"] = wanted
    if arguments.get(CACHE, True) is None:
        del arguments[CACHE]
    return model(tokens, attention_mask=mask, **arguments)


def _slices(logits: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield parts of logits of shape (positions, vocabulary) with the first position of each."""
    positions = max(1, _SCORED_AT_ONCE // logits.shape[-1])
    for start in range(0, len(logits), positions):
        yield start, logits[start : start + positions]


def log_probability(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each token by the logits of its position, (positions, vocabulary), in nats."""
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
