"""The values that params.yaml may hold, each a type that says what it expects."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from hfbench.core.sources import HUB_NAME, matches

CacheImplementation = Literal["auto", "dynamic", "static"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
Dtype = Literal["bfloat16", "float16", "float32"]
StoppingRule = Literal["precision", "fixed"]
ATTN_IMPLEMENTATIONS = (
    "eager",
    "sdpa",
    "sdpa:math",
    "sdpa:flash_attention",
    "sdpa:efficient_attention",
    "sdpa:cudnn_attention",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
)
_SHORTEST_INTERVAL_SECONDS = 0.05  # a reading takes about half a millisecond
# As transformers spells one (`integrations.hub_kernels.is_kernel`), but without @revision: DVC splits a stage's name at
# its last @, and then finds no stage at all. The revision stands under `kernels:`.
_HUB_KERNEL = rf"{HUB_NAME}(:\w+)?"


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("values that differ from each other")
    return values


def _not_too_often(value: float) -> float:
    if value != 0 and value < _SHORTEST_INTERVAL_SECONDS:
        raise ValueError(f"0 (no monitoring), or at least {_SHORTEST_INTERVAL_SECONDS} s: the monitor must not disturb")
    return value


def _not_every(value: int) -> int:
    if value < 0 or value == 1:
        raise ValueError("0 (none), or 2 and more: the iterations between are the ones that count")
    return value


Device = Annotated[str, matches(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", "auto, cpu, cuda, cuda:1, xpu or mps")]
Attention = Annotated[
    str,
    matches(
        "|".join(map(re.escape, ATTN_IMPLEMENTATIONS)) + "|" + _HUB_KERNEL,
        f"one of {', '.join(ATTN_IMPLEMENTATIONS)}, or a hub kernel such as kernels-community/flash-attn3 "
        "(its commit goes under kernels)",
    ),
]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]  # 0: none
T = TypeVar("T")
Axis = Annotated[list[T], AfterValidator(_unique)]
FirstAxis = Annotated[list[T], Field(min_length=1), AfterValidator(_unique)]  # of listed configurations too
# Every so many iterations, and seconds between readings of the hardware; 0 for never.
Every = Annotated[int, AfterValidator(_not_every)]
MonitorInterval = Annotated[float, AfterValidator(_not_too_often)]
