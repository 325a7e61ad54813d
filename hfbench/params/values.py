"""The values that params.yaml may hold, each a type that says what it expects, and the axes made of them."""

import re
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from hfbench.core.point import AXES, AXIS_TABLE, AXIS_TYPES, Axis, Configuration
from hfbench.core.sources import Strict, matches

StoppingRule = Literal["precision", "fixed"]
_SHORTEST_INTERVAL_SECONDS = 0.05  # a reading takes about half a millisecond


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("values that differ from each other")
    return values


def _none_or(least: float, expected: str) -> AfterValidator:
    """Accept 0, and numbers of at least `least`; `expected` says so and why."""

    def check(value: Any) -> Any:
        if value != 0 and value < least:
            raise ValueError(expected)
        return value

    return AfterValidator(check)


Device = Annotated[str, matches(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", "auto, cpu, cuda, cuda:1, xpu or mps")]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]  # 0: none
# Every so many iterations, and seconds between readings of the hardware; 0 for never.
Every = Annotated[int, _none_or(2, "0 (none), or 2 and more: the iterations between are the ones that count")]
MonitorInterval = Annotated[
    float,
    _none_or(
        _SHORTEST_INTERVAL_SECONDS,
        f"0 (no monitoring), or at least {_SHORTEST_INTERVAL_SECONDS} s: the monitor must not disturb",
    ),
]


def _value_type(name: str, axis: Axis) -> Any:
    """Return the type of one value of an axis."""
    if AXIS_TYPES[name] is bool:
        return bool
    if AXIS_TYPES[name] is int:
        return Annotated[int, Field(ge=axis.minimum)]
    if not axis.pattern:
        return Literal[axis.values]
    expected = f"one of {', '.join(axis.values)}, or {axis.expected}" if axis.values else axis.expected
    return Annotated[str, matches("|".join([*map(re.escape, axis.values), axis.pattern]), expected)]


def _list_type(name: str, axis: Axis) -> Any:
    """Return the type of the values of an axis in the sweep; listed configurations need rounds and models too."""
    fewest = 1 if axis.kind in {"round", "model"} else 0
    return Annotated[list[_value_type(name, axis)], Field(min_length=fewest), AfterValidator(_unique)]  # type: ignore[misc]


if TYPE_CHECKING:

    class _Values(Strict):
        def __getattr__(self, axis: str) -> Any: ...

    _Lists = _Values
else:
    _Lists = create_model(
        "_Lists", __base__=Strict, **{name: (_list_type(name, axis), ...) for name, axis in AXIS_TABLE.items()}
    )
    _Values = create_model(
        "_Values",
        __base__=Strict,
        **{name: (_value_type(name, axis), ...) for name, axis in AXIS_TABLE.items() if axis.kind != "round"},
    )


class Sweep(_Lists):
    """The axes, each a list; every combination of their values is measured, and none where one is empty."""

    def points(self) -> list[Configuration]:
        """Return every combination, the first axis slowest, as DVC's matrix orders them."""
        combinations = product(*(getattr(self, axis) for axis in AXES))
        return [Configuration(**dict(zip(AXES, values, strict=True))) for values in combinations]


class Listed(_Values):
    """A single configuration: a value of each axis but `round`. It is measured in every round of the sweep."""

    def in_round(self, number: int) -> Configuration:
        """Return the point of this round."""
        return Configuration(round=number, **self.model_dump())
