"""Two values of an axis compared within one run: which attention, or which compile mode, is fastest where."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfbench.comparison.compare import Options, compare_all
from hfbench.comparison.compared import headline
from hfbench.comparison.comparison import Comparison
from hfbench.comparison.selection import axis_values, with_axis
from hfbench.comparison.side import Side
from hfbench.comparison.winners import Winner, find_winners
from hfbench.foundation.errors import UserError
from hfbench.reporting.captions import axis_text
from hfbench.reporting.results import WORKLOAD_AXES
from hfbench.tables.columns import CONFIGURATION_AXES

# What the others stand against where no reference is named: the plainest way, as for the check of outputs.
_PLAIN = ("eager", "off", False)
# Points that differ in one of these do other work, so that their times tell nothing of each other.
AXES = tuple(axis for axis in CONFIGURATION_AXES if axis not in WORKLOAD_AXES)


@dataclass(frozen=True)
class AxisComparison:
    """Each value of an axis against the reference, and for each workload which value is fastest."""

    side: Side
    axis: str
    reference: Any
    comparisons: tuple[tuple[Any, Comparison], ...]
    winners: tuple[Winner, ...]


def compare_axis(
    side: Side, axis: str, reference: str | None, options: Options, folder: Path = Path()
) -> AxisComparison:
    """Return the comparison of the values of an axis, all tests being one family.

    `reference` is a value as text; without one, `eager`, `off` or `false` where the axis has it, else the first.
    Raises `UserError` for an axis that is none or changes the work, for a value that was not measured, and where only
    one was.
    """
    if axis not in AXES:
        raise UserError(
            f"--axis {axis}: expected one of {', '.join(AXES)}; points that differ in another do other work."
        )
    values = axis_values(side, axis)
    chosen = _reference(axis, values, reference)
    others = [value for value in values if value != chosen]
    if not others:
        raise UserError(
            f"--axis {axis}: {side.label} was measured with {value_name(chosen)} alone. Add values to sweep.{axis}."
        )
    baseline = with_axis(side, axis, chosen, chosen)
    candidates = {value: with_axis(side, axis, value, chosen) for value in others}
    comparisons = compare_all([(baseline, candidates[value]) for value in others], options, folder)
    winners = find_winners({chosen: baseline, **candidates}, headline(options.metrics), options.threshold)
    named = (
        (value, replace(each, side_names=(value_name(chosen), value_name(value))))
        for value, each in zip(others, comparisons, strict=True)
    )
    return AxisComparison(side, axis, chosen, tuple(named), winners)


def _reference(axis: str, values: list[Any], asked: str | None) -> Any:
    if asked is None:
        return next((value for value in values if value in _PLAIN), values[0])
    for value in values:
        if asked.lower() in {value_name(value).lower(), axis_text(value).lower()}:
            return value
    raise UserError(f"--reference {asked}: {axis} was measured with {', '.join(map(value_name, values))}.")


def value_name(value: Any) -> str:
    """Return a value of an axis as params.yaml spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
