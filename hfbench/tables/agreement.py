"""Whether points with the same work give the same output: each against its reference, and each round against the first.

The reference of a point is the one with its model, dtype, batch and lengths that is plainest: eager attention, not
compiled, no kernels, no continuous batching, the prompt at once. Beside it stands what the record says of itself:
whether the path that was timed gives the logits of one plain forward pass.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import polars as pl

from hfbench.core.point import CONFIGURATION_AXES, INPUT_AXES, REFERENCE, Configuration

# A float32 sum of n terms in another order is off by some sqrt(n) · 6e-8 of itself: far less, for any prompt.
_SAME_NLL = 1e-4


_FEWEST_TOKENS = 32


@dataclass(frozen=True)
class Output:
    """What a record holds of its output; None for what it lacks.

    `top1` has the most likely token at each position of the prompt, `nll` is its negative log-likelihood in nats a
    token, of the tokens from the first to the last of `positions`; `tokens` are the first ones generated. `path` is how
    what is timed compares to one plain forward pass, and `kernels` are the layers that were replaced, in one text.
    """

    top1: pl.Series | None = None
    nll: float | None = None
    positions: tuple[int, ...] = ()
    tokens: pl.Series | None = None
    path: Mapping[str, Any] = field(default_factory=dict)
    kernels: str = ""

    @classmethod
    def read(cls, output: dict[str, Any], kernelized_layers: Any = ()) -> "Output":
        """Return the output of a record. Raises `TypeError` or `ValueError` where it holds something else."""
        nll = output.get("prompt_nll")
        return cls(
            top1=_tokens(output.get("prompt_top1")),
            nll=None if nll is None else float(nll),
            positions=tuple(map(int, output.get("nll_positions") or ())),
            tokens=_tokens(output.get("tokens")),
            path=dict(output.get("path") or {}),
            kernels=json.dumps(kernelized_layers),
        )

    @property
    def path_nll(self) -> float | None:
        """The negative log-likelihood of the tokens that the measured path was given.

        None where it chose its own, and where they are so few that rounding alone moves their mean by more than the
        usual limit: in bfloat16 it moved the likelihood of two tokens by 0.1 nats. Their logits are held against the
        plain pass all the same.
        """
        is_few = self.path.get("rows", _FEWEST_TOKENS) * self.path.get("steps", _FEWEST_TOKENS) < _FEWEST_TOKENS
        return None if is_few or "timed_tokens_agree" in self.path else self.path.get("nll")

    @property
    def has_quantized_cache(self) -> bool:
        """Whether keys and values went through a quantized cache, which the plain pass has not."""
        return bool(self.path.get("quantized_cache"))

    @property
    def path_change(self) -> float | None:
        """The likelihood of the given tokens on the measured path less that by the plain pass, in nats a token."""
        nll, plain = self.path.get("nll"), self.path.get("reference_nll")
        return None if nll is None or plain is None else nll - plain

    @property
    def path_agrees(self) -> bool | None:
        """Whether what is timed computes what one plain forward pass does; None where that was not compared.

        A quantized cache has a price in quality by design, which is `path_change`.
        """
        if not self.path.get("checked") or self.has_quantized_cache:
            return None
        return bool(self.path["agrees"] and self.path.get("timed_tokens_agree", True))


@dataclass(frozen=True)
class OutputDifference:
    """How far an output is from another; None where either lacks what is compared.

    `top1_agreement` is the share of prompt positions with the same top-1 token, `nll_difference` the absolute
    difference in nats a token, of the prompt or of the decoding steps, whichever is larger, `first_different_token` the
    position of the first generated token that differs, counted from 0, and None also where none does.
    """

    top1_agreement: float | None
    nll_difference: float | None
    first_different_token: int | None

    @property
    def is_none(self) -> bool:
        """Whether nothing differs by more than the order of a sum would make it."""
        same_nll = self.nll_difference is None or self.nll_difference <= _SAME_NLL
        return self.top1_agreement in (None, 1.0) and same_nll and self.first_different_token is None


def difference(one: Output, other: Output) -> OutputDifference:
    """Return how far two outputs of the same work are apart."""
    changes = [_change(one, other)]
    if one.path_nll is not None and other.path_nll is not None:
        changes.append(one.path_nll - other.path_nll)
    return OutputDifference(
        top1_agreement=_agreement(one.top1, other.top1),
        nll_difference=max((abs(each) for each in changes if each is not None), default=None),
        first_different_token=_first_difference(one.tokens, other.tokens),
    )


def _agreement(one: pl.Series | None, other: pl.Series | None) -> float | None:
    if one is None or other is None or len(one) != len(other) or one.is_empty():
        return None
    return int((one == other).sum()) / len(one)


def _first_difference(one: pl.Series | None, other: pl.Series | None) -> int | None:
    if one is None or other is None:
        return None
    length = min(len(one), len(other))
    different = (one.head(length) != other.head(length)).arg_true()
    if len(different):
        return int(different[0])
    return length if len(one) != len(other) else None


def _tokens(tokens: Any) -> pl.Series | None:
    return None if tokens is None else pl.Series("", tokens, dtype=pl.Int64)


COMPARED, MISSING_REFERENCE, REFERENCE_NOT_OK = "compared", "missing", "not ok"  # the values of `reference`
_work = attrgetter("model", "dtype", *INPUT_AXES)
_without_round = attrgetter(*CONFIGURATION_AXES)

AGREEMENT_TYPES: dict[str, type[pl.DataType]] = {
    "reference": pl.String,
    "top1_agreement": pl.Float64,
    "nll_difference": pl.Float64,
    "first_different_token": pl.Int64,
    "same_as_first_round": pl.Boolean,
    "same_kernels_as_first_round": pl.Boolean,
    "path_checked": pl.Boolean,
    "path_difference": pl.Float64,
    "path_tolerance": pl.Float64,
    "path_agrees": pl.Boolean,
    "nll_change": pl.Float64,
}
_Axes = tuple[Any, ...]


def agreement_table(configurations: Sequence[Configuration], outputs: Sequence[Output | None]) -> pl.DataFrame:
    """Return a row of `AGREEMENT_TYPES` for each configuration and its output, None where it was not measured.

    `reference` is `compared`, or `not ok` or `missing` where no round of the reference was measured although or because
    it was not asked for, and then what is compared with it is null. `nll_change` is the prompt's negative
    log-likelihood less the reference's, in nats a token: what quantising costs in quality. Of the reference, and of a
    configuration's rounds, the first that was measured stands for all.
    `path_difference` is that of the logits on the measured path, relative to their size, `path_tolerance` what rounding
    explains of it, and `path_agrees` null where nothing could be compared. What was not measured has no values.
    """
    references: dict[_Axes, Output | None] = {}
    first_rounds: dict[_Axes, Output] = {}
    for configuration, output in zip(configurations, outputs, strict=True):
        if output is not None:
            first_rounds.setdefault(_without_round(configuration), output)
        if all(getattr(configuration, axis) == value for axis, value in REFERENCE.items()):
            work = _work(configuration)
            references[work] = references.get(work) or output
    rows = [
        {}
        if output is None
        else {
            **_row(output, references.get(_work(each)), first_rounds[_without_round(each)]),
            "reference": _reference(_work(each), references),
        }
        for each, output in zip(configurations, outputs, strict=True)
    ]
    return pl.DataFrame(rows, schema=AGREEMENT_TYPES)


def _reference(work: _Axes, references: Mapping[_Axes, Output | None]) -> str:
    if work not in references:
        return MISSING_REFERENCE
    return REFERENCE_NOT_OK if references[work] is None else COMPARED


def _change(output: Output, reference: Output) -> float | None:
    """Return by how much the prompt is less likely than by the reference; None unless both are of the same tokens."""
    if output.nll is None or reference.nll is None or output.positions != reference.positions:
        return None
    return output.nll - reference.nll


def _price(output: Output, reference: Output) -> float | None:
    """Return the price in quality: that of the weights, and of a quantized cache what it makes of the path beside."""
    change = _change(output, reference)
    return None if change is None else change + (output.path_change or 0.0) * output.has_quantized_cache


def _row(output: Output, reference: Output | None, first_round: Output) -> dict[str, Any]:
    compared = reference or Output()
    found = vars(difference(output, compared))
    if output.has_quantized_cache:  # which only the measured path has, of however few tokens
        known = [abs(each) for each in (found["nll_difference"], output.path_change) if each is not None]
        found = {**found, "nll_difference": max(known, default=None)}
    return {
        **found,
        "nll_change": _price(output, compared),
        "same_as_first_round": difference(output, first_round).is_none,
        "same_kernels_as_first_round": output.kernels == first_round.kernels,
        "path_checked": output.path.get("checked"),
        "path_difference": output.path.get("logits_difference"),
        "path_tolerance": output.path.get("tolerance"),
        "path_agrees": output.path_agrees,
    }
