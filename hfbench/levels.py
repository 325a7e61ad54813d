"""Coverage presets: which ways of running a model each level measures.

Source: `get_config_by_level` in huggingface/transformers, benchmark_v2/framework/benchmark_config.py; docs/levels.md
says what differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from hfbench.foundation.configuration import AXES
from hfbench.foundation.errors import UserError
from hfbench.foundation.params import load_params
from hfbench.foundation.values import CompileMode
from hfbench.params_file import rewrite


@dataclass(frozen=True)
class Way:
    """A way of running a model: a value of each axis that a level sets."""

    attn_implementation: str
    compile_mode: str = "off"
    use_kernels: bool = False
    continuous_batching: bool = False


_FLEX, _FLASH = "flex_attention", "flash_attention_2"
_ADDED = (
    (Way(_FLEX, "default"),),
    (Way(_FLASH), Way("eager", "default"), Way(_FLASH, continuous_batching=True)),
    (
        Way("sdpa", "default"),
        Way(_FLEX, "default", use_kernels=True),
        Way(_FLASH, use_kernels=True),
        Way("sdpa", continuous_batching=True),
    ),
)
_CROSSED: dict[str, list[Any]] = {
    "attn_implementation": [_FLASH, "eager", "sdpa", _FLEX],
    "compile_mode": ["off", "default"],
    "use_kernels": [False, True],
    "continuous_batching": [False, True],
}
LEVELS = range(5)


def crossed_axes(level: int) -> dict[str, list[Any]] | None:
    """Return the axes of which a level is the cross product, None where it is none."""
    if level < len(_ADDED):
        return None
    return _CROSSED if level == len(_ADDED) else {**_CROSSED, "compile_mode": list(get_args(CompileMode))}


def ways(level: int) -> list[Way]:
    """Return the ways of running a model that a level measures."""
    axes = crossed_axes(level)
    if axes is None:
        return [way for added in _ADDED[: level + 1] for way in added]
    return [Way(*values) for values in product(*axes.values())]


def listed(chosen: Sequence[Way], sweep: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return entries for `configurations:`, each way with all combinations of the axes that it leaves open.

    `sweep` has the values of each axis.
    """
    ways_axes = asdict(chosen[0]).keys()
    others = [axis for axis in AXES if axis != "round" and axis not in ways_axes]
    entries = [
        {**asdict(way), **dict(zip(others, values, strict=True))}
        for values in product(*(sweep[axis] for axis in others))
        for way in chosen
    ]
    return [{axis: entry[axis] for axis in AXES if axis != "round"} for entry in entries]


def write_level(level: int, path: Path) -> int:
    """Write a level into params.yaml, and return how many configurations it is.

    The other axes keep their values, and so does all else but `configurations:`. Raises `UserError` where an axis of
    those is empty, or the file is not as it should be.
    """
    sweep = load_params(path).sweep.model_dump()
    empty = next((axis for axis, values in sweep.items() if not values and axis not in _CROSSED), None)
    if empty is not None:
        raise UserError(f"{path}: sweep.{empty} is empty, and a level is measured for each of its values. Add one.")
    entries = listed(ways(level), sweep)
    axes = crossed_axes(level)
    if axes is None:
        rewrite(path, {"sweep.attn_implementation": [], "configurations": entries})
    else:
        rewrite(path, {**{f"sweep.{axis}": values for axis, values in axes.items()}, "configurations": []})
    return len(entries)
