"""Whether what is timed computes what the model computes: its logits, against those of one plain forward pass.

The measured path is given the same tokens, one decoding step after another, by whatever cache, chunks and compiled code
it is timed with.
"""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from hfbench.measure.failure import NotFiniteError
from hfbench.measure.plain_pass import SUPPRESSED, Reference, log_probability, reference_of, size_of
from hfbench.measure.prompt import CACHE, Passes, Prompt, tokens_in

# The root mean square of the logits' difference, over that of the logits, in units of torch.finfo(dtype).eps and of the
# square root of the layers: each layer adds a rounding of its own, and independent ones add up as their squares. Of 35
# families of random models (2 to 4 layers) and two trained ones (6 and 30), through dynamic and static caches, chunks,
# a context and padding, the largest that was no fault was 4.4 in float32, and 0.9 in bfloat16, where sums are float32
# and only what comes out of a layer is rounded. A forgotten state was 75 and more in float32. So: four times of what
# was seen.
_ROUNDING = {torch.float32: 16.0, torch.bfloat16: 4.0, torch.float16: 4.0}
# Over what one pass with other roundings gives, for those that are not the output of a layer and for larger sums.
_MOST_OVER_ROUNDING = 4.0
_UNRELATED = 0.5  # the difference of unrelated logits is 1.4 of their size
# A single log-probability may be as far out as the largest of many normal deviates. It is a logit less the logarithm of
# a sum, each rounded on both sides.
_SINGLE = 4.0
_ROUNDED_TIMES = 4


@dataclass
class LogitsComparison:
    """How far the logits of the measured path are from the reference; filled step by step.

    `difference` is the root mean square over the vocabulary relative to that of the reference's logits, the largest of
    all rows and steps; `nll` and `reference_nll` are sums in nats, of `count` tokens.
    """

    difference: float = 0.0
    nll: float = 0.0
    reference_nll: float = 0.0
    count: int = 0
    top1: list[int] = field(default_factory=list)
    same_top1: int = 0

    def add(self, logits: torch.Tensor, expected: torch.Tensor, tokens: torch.Tensor) -> None:
        """Compare the logits of one step, both of shape (rows, vocabulary), and score the rows' `tokens`.

        Raises `NotFiniteError` where the measured ones are no numbers.
        """
        logits, expected = logits.float(), expected.float()
        usable = expected.isfinite() & (expected.abs() < SUPPRESSED)
        if not logits[usable].isfinite().all():
            raise NotFiniteError("the logits of a decoding step are no numbers on the measured path")
        apart = torch.where(usable, logits - expected, 0.0).square().sum(-1)
        size = torch.where(usable, expected, 0.0).square().sum(-1)
        self.difference = max(self.difference, (apart / size.clamp_min(1e-30)).sqrt().max().item())
        scored = log_probability(expected, tokens)
        self._count(log_probability(logits, tokens), scored, logits.argmax(-1), expected.argmax(-1))

    def add_scored(self, log_probabilities: Sequence[float], expected: torch.Tensor, tokens: torch.Tensor) -> None:
        """Compare the log-probabilities of the `tokens` that a row chose, where they are all that is handed out.

        `expected` are the reference's logits of the row, of shape (steps, vocabulary).
        """
        expected = expected.float()
        size = size_of(expected)
        scored = log_probability(expected, tokens)
        measured = torch.tensor(log_probabilities, device=expected.device)
        if not measured.isfinite().all():
            raise NotFiniteError("a log-probability is no number on the measured path")
        rounded = _ROUNDED_TIMES * torch.finfo(torch.float32).eps * scored.abs()  # which may be far larger than logits
        apart = ((measured - scored).abs() - rounded).clamp_min(0.0)
        self.difference = max(self.difference, (apart / size).max().item() / _SINGLE)
        self._count(measured, scored, tokens, expected.argmax(-1))

    def _count(
        self, measured: torch.Tensor, scored: torch.Tensor, top1: torch.Tensor, expected_top1: torch.Tensor
    ) -> None:
        """Add the log-probabilities of tokens by both, and the most likely tokens; each of shape (tokens,)."""
        self.nll -= measured.sum().item()
        self.reference_nll -= scored.sum().item()
        self.count += len(top1)
        self.top1 += top1.tolist()
        self.same_top1 += int((top1 == expected_top1).sum())

    def describe(self, model: PreTrainedModel, prompt: Prompt, reference: Reference) -> dict[str, Any]:
        """Return the comparison, ready for JSON; `agrees` is whether rounding explains the difference.

        Of a model that multiplies what is rounded, more than the tolerance may be: then it is measured.
        """
        most = tolerance(model)
        if self.difference > most:
            most = max(most, _MOST_OVER_ROUNDING * _rounding_of(model, prompt, reference))
        rows, steps = reference.tokens.shape
        return {
            "checked": True,
            "rows": rows,
            "steps": steps,
            "logits_difference": self.difference,
            "tolerance": most,
            "agrees": self.difference <= most,
            "nll": self.nll / self.count,
            "reference_nll": self.reference_nll / self.count,
            "top1_agreement": self.same_top1 / self.count,
            "top1": self.top1,
        }


def not_checked(reason: str) -> dict[str, Any]:
    """Return what stands in the record where the measured path could not be compared."""
    return {"checked": False, "reason": reason}


def path_differences(dtype: str, path: dict[str, Any], *, has_price: bool = False) -> list[str]:
    """Return, in words, where the measured path computes something else than the model.

    In float32 rounding is so small that what is beyond it is a fault. In half precision a mixture of experts may choose
    another expert for it, and a quantized cache has its price, so that only what has little to do with the reference is
    one; the tables flag the rest.
    """
    if path.get("agrees", True):
        return []
    if (dtype != "float32" or has_price) and path["logits_difference"] < _UNRELATED:
        return []
    return [
        f"what is timed computes something else than one plain forward pass: after the prompt the logits are "
        f"{path['logits_difference']:.1e} of their size apart, and rounding explains {path['tolerance']:.1e}"
    ]


def tolerance(model: PreTrainedModel) -> float:
    """Return the relative difference of logits that rounding explains in the model's dtype and depth."""
    layers = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None) or 1
    return _ROUNDING[model.dtype] * torch.finfo(model.dtype).eps * math.sqrt(layers)


@torch.no_grad()
def _rounding_of(model: PreTrainedModel, prompt: Prompt, reference: Reference) -> float:
    """Return how far the plain pass is from itself where the output of each layer is rounded another way."""
    eps, noise = torch.finfo(model.dtype).eps, torch.Generator(model.device).manual_seed(0)

    def round_anew(module: torch.nn.Module, arguments: Any, output: Any) -> Any:  # noqa: ARG001, as torch calls it
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        share = torch.rand(output.shape, generator=noise, device=output.device) * 2 - 1
        return (output.float() * (1 + eps * share)).to(output.dtype)

    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    hooks = [module.register_forward_hook(round_anew) for module in leaves]
    try:
        rounded = reference_of(model, prompt, reference.tokens).logits
    finally:
        for hook in hooks:
            hook.remove()
    comparison = LogitsComparison()
    if rounded is not None and reference.logits is not None:
        for step, tokens in enumerate(reference.tokens.T):
            comparison.add(rounded[:, step], reference.logits[:, step], tokens)
    return comparison.difference


class Steps:
    """Gives `generate` the reference's tokens in place of its own choice, and compares the logits of each step."""

    def __init__(self, reference: Reference, passes: Passes | None = None) -> None:
        """`passes` are those of the model that makes the call."""
        self._reference = reference
        self._passes = passes
        self._rows_done = 0
        self.comparison = LogitsComparison()
        self.decoding_steps = 0  # of all calls
        # Of the last call:
        self.cache: Any = None
        self.tokens_before = 0  # in the cache
        self.new_tokens = 0

    def arguments(self, given: Mapping[str, Any], prompt: Prompt, new_tokens: int) -> dict[str, Any]:
        """Return the arguments of `generate` for the next rows, which are `prompt`'s; it ends after the steps."""
        rows = slice(self._rows_done, self._rows_done + len(prompt.input_ids))
        self._rows_done = rows.stop
        if self._passes is not None:
            self._passes.begin_call()
        cache = given.get(CACHE)
        self.tokens_before = 0 if cache is None else tokens_in(cache)
        self.new_tokens = steps = min(new_tokens, self._reference.tokens.shape[1])
        self.decoding_steps += steps - 1
        config = copy(given["generation_config"])
        config.return_dict_in_generate = True
        return {
            "generation_config": config,
            "logits_processor": LogitsProcessorList([_Forced(self._reference, rows, self.comparison)]),
            "stopping_criteria": StoppingCriteriaList([_StopAt(prompt.input_ids.shape[1] + steps)]),
        }

    def take(self, output: Any) -> torch.Tensor:
        """Keep the cache of a call's output; return its sequences."""
        self.cache = output.get(CACHE)
        sequences: torch.Tensor = output.sequences
        return sequences

    def describe(self, model: PreTrainedModel, prompt: Prompt) -> dict[str, Any]:
        """Return the comparison as `LogitsComparison.describe` does, or why there is none."""
        if self._reference.logits is None:
            return not_checked(str(self._reference.missing))
        return self.comparison.describe(model, prompt, self._reference)


class _Forced(LogitsProcessor):
    def __init__(self, reference: Reference, rows: slice, comparison: LogitsComparison) -> None:
        self._tokens = reference.tokens[rows]
        self._logits = None if reference.logits is None else reference.logits[rows]
        self._comparison = comparison
        self._step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # noqa: ARG002
        tokens = self._tokens[:, self._step]
        if self._logits is not None:
            self._comparison.add(scores, self._logits[:, self._step], tokens)
        self._step += 1
        forced = torch.full_like(scores, -math.inf)
        return forced.scatter_(1, tokens[:, None], 0.0)  # type: ignore[return-value]


class _StopAt(StoppingCriteria):
    """Ends at this length, with the room of the measured call: a shorter `max_new_tokens` makes a smaller cache."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:  # noqa: ARG002
        done = input_ids.shape[1] >= self._length
        return torch.full(input_ids.shape[:1], done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]
