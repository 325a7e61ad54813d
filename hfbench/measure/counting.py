"""Torch's own count of the matrix products of a short forward pass, which what is derived from the weights must equal.

The formulas of model FLOPs know layers of weights and attention over pairs of tokens. What else an architecture does,
as to attend twice or to multiply chunks of a linear attention's state, shows in the count, and then its FLOPs are
unknown and not wrong.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedModel

from hfbench.measure.prompt import Prompt, longest_row

_LENGTH = 2  # tokens of the shortest of three forward passes, which take no longer than they must
# What the formulas leave out: rotary frequencies are products too, and a convolution computes beyond its edge.
LARGEST_DIFFERENCE = 0.01


@dataclass(frozen=True)
class Products:
    """What a forward pass of T tokens of one row multiplies: `per_pair` T² + `per_token` T + `per_row` FLOPs.

    Attention counts all T² pairs of tokens, since masked ones are multiplied as well.
    """

    per_pair: float
    per_token: float
    per_row: float

    def of(self, tokens: float) -> float:
        """Return the FLOPs of so many tokens."""
        return self.per_pair * tokens**2 + self.per_token * tokens + self.per_row


def together(parts: Sequence[Products]) -> Products:
    """Return what processes that share a forward pass multiply in all."""
    return Products(*(math.fsum(each) for each in zip(*map(astuple, parts), strict=True)))


@dataclass(frozen=True)
class Count:
    """What torch counted in forward passes of three lengths.

    `calls` says how often each module was called in a pass, by its id. `products` runs through the three counts;
    `longest` are the tokens of the longest. `keeps_one` is whether the pass computed the logits of the last token
    alone.
    """

    calls: Counter[int]
    products: Products
    longest: int
    keeps_one: bool


@torch.no_grad()
def count_products(model: PreTrainedModel, prompt: Prompt) -> Count:
    """Return what torch counts for the prompt's first tokens, without a cache and by the plain attention and experts.

    The plain code multiplies where torch sees it; fused code is an operator that it does not know. Raises what the
    model raises in such a pass.
    """
    row = longest_row(prompt).input_ids
    step = max(1, min(_LENGTH, row.shape[1] // 3))
    tokens = row.repeat(1, 3)[:, : 3 * step]  # a prompt of a token or two is too short for three lengths
    keeps_one = bool(model._supports_logits_to_keep())  # type: ignore[operator]
    arguments = {"use_cache": False, **({"logits_to_keep": 1} if keeps_one else {})}
    flops = []
    with _plain_code(model):
        for length in (step, 2 * step, 3 * step):
            calls: Counter[int] = Counter()
            with _counted_calls(calls), _Flops() as counter:
                model(tokens[:, :length], attention_mask=torch.ones_like(tokens[:, :length]), **arguments)
            flops.append(counter.total)
    return Count(calls, _through(step, *flops), 3 * step, keeps_one)


class _Flops(TorchDispatchMode):
    """Adds up what torch's own formulas give for the operators that run inside.

    As `torch.utils.flop_counter.FlopCounterMode` does, without its account of each module, which takes as long as a
    short pass.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        found = function(*args, **given)
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **given, out_val=found)
        return found


def _through(step: int, first: int, second: int, third: int) -> Products:
    """Return the products that are these at `step`, 2 `step` and 3 `step` tokens."""
    per_pair = (third - 2 * second + first) / (2 * step**2)
    per_token = (second - first) / step - 3 * step * per_pair
    return Products(per_pair, per_token, first - per_token * step - per_pair * step**2)


def difference(count: Count, expected: Products, tokens: int) -> str | None:
    """Return, in words, by how much torch's count is not as expected; None where it is, for a prompt of `tokens` too.

    The count is compared at the length that was counted, and run on to the prompt's, where attention weighs more.
    """
    for length in (count.longest, tokens):
        counted, derived = count.products.of(length), expected.of(length)
        if abs(counted - derived) > LARGEST_DIFFERENCE * derived:
            return (
                f"torch counts {counted:.4g} FLOPs for {length} tokens, and weights and attention account for "
                f"{derived:.4g}"
            )
    return None


@contextmanager
def _plain_code(model: PreTrainedModel) -> Iterator[None]:
    """Have attention and experts compute by transformers' plain code, and no operator fuse them."""
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    names = ("_attn_implementation_internal", "_experts_implementation_internal")
    before = [(each, name, getattr(each, name)) for each in configs.values() for name in names if hasattr(each, name)]
    try:
        for owner, name, _ in before:
            setattr(owner, name, "eager")
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextmanager
def _counted_calls(calls: Counter[int]) -> Iterator[None]:
    def count(module: nn.Module, *_: Any) -> None:
        calls[id(module)] += 1

    handle = register_module_forward_hook(count)
    try:
        yield
    finally:
        handle.remove()
