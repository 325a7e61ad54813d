"""Two values of an axis compared within one run: which attention, or which compile mode, is fastest where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfbench.compare.compare import Comparison, Options, compare_all, comparison_json, ratio_json, side_json
from hfbench.compare.contrasts import Contrast, Verdict, contrast, decide, estimate, too_few_rounds
from hfbench.compare.pairs import Axes, ComparedMetric, ComparedPoint, Values, headline, points_of, values_of
from hfbench.compare.side import Side
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.report.frames import WORKLOAD_AXES
from hfbench.report.words import axis_text
from hfbench.statistics.multiplicity import adjusted_p_values


@dataclass(frozen=True)
class Winner:
    """The best value of the axis in one place of the others (`axes`), against the second best.

    The verdict is `faster` where the best is told apart from every other, `same` where the second best is within the
    threshold. `left_out` are values whose output is not their reference's.
    """

    axes: Axes
    metric: ComparedMetric
    value: Any
    runner_up: Any
    contrast: Contrast
    verdict: Verdict
    left_out: tuple[Any, ...]


@dataclass(frozen=True)
class _Race:
    """The values in one place, the best first, with the contrast of the best to each other one."""

    axes: Axes
    metric: ComparedMetric
    order: tuple[Any, ...]
    contrasts: tuple[Contrast, ...]
    left_out: tuple[Any, ...]

    @property
    def p_value(self) -> float | None:
        """The largest of those of the contrasts; None where one of them has none."""
        ratios = [each.ratio for each in self.contrasts]
        return max(ratio.p_value for ratio in ratios if ratio) if all(ratios) else None


def find_winners(sides: Mapping[Any, Side], metrics: Sequence[ComparedMetric], threshold: float) -> tuple[Winner, ...]:
    """Return the winner for each metric in each place where two values were measured; all of them are one family.

    The best is told apart where it is from each other value: its p-value is the largest of those against the others.
    Source: the intersection-union test, R. L. Berger, Technometrics 24 (1982) 295.
    """
    values = {value: values_of(side) for value, side in sides.items()}
    points = {value: points_of(side) for value, side in sides.items()}
    places = dict.fromkeys(axes for each in points.values() for axes in each)
    found = [_race(axes, metric, values, points) for metric in metrics for axes in places]
    races = [race for race in found if race is not None]
    p_values = [race.p_value for race in races]
    adjusted = iter(adjusted_p_values([p_value for p_value in p_values if p_value is not None]))
    return tuple(
        _winner(race, None if p_value is None else (p_value, next(adjusted)), threshold)
        for race, p_value in zip(races, p_values, strict=True)
    )


def _race(
    axes: Axes, metric: ComparedMetric, values: Mapping[Any, Values], points: Mapping[Any, Mapping[Axes, ComparedPoint]]
) -> _Race | None:
    measured = {value: rounds for value, each in values.items() if (rounds := each.get(axes, {}).get(metric.name))}
    left_out = tuple(value for value in measured if points[value][axes].output_differs)
    runners = {value: rounds for value, rounds in measured.items() if value not in left_out}
    if len(runners) < 2:
        return None
    best, *others = sorted(runners, key=lambda value: estimate(runners[value]), reverse=metric.metric.higher_is_better)
    contrasts = tuple(
        contrast(runners[other], runners[best], points[other][axes].started, points[best][axes].started)
        for other in others
    )
    return _Race(axes, metric, (best, *others), contrasts, left_out)


def _winner(race: _Race, p_values: tuple[float, float] | None, threshold: float) -> Winner:
    closest = race.contrasts[0]
    if p_values is None or closest.ratio is None:
        verdict = too_few_rounds(closest.baseline_rounds, closest.candidate_rounds)
    else:
        better = race.metric.metric.higher_is_better
        verdict = decide(closest.ratio, *p_values, threshold, higher_is_better=better)
    return Winner(race.axes, race.metric, race.order[0], race.order[1], closest, verdict, race.left_out)


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

    @property
    def is_slower(self) -> bool:
        """Whether any value is slower than the reference, or fails where it does not."""
        return any(each.is_slower for _, each in self.comparisons)


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
    values = side.points[axis].unique(maintain_order=True).to_list()
    chosen = _reference(axis, values, reference)
    others = [value for value in values if value != chosen]
    if not others:
        raise UserError(
            f"--axis {axis}: {side.label} was measured with {value_name(chosen)} alone. Add values to sweep.{axis}."
        )
    baseline = side.with_axis(axis, chosen, chosen)
    candidates = {value: side.with_axis(axis, value, chosen) for value in others}
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


def axis_json(comparison: AxisComparison) -> dict[str, Any]:
    """Return the comparison of an axis for other programs; a winner's ratio is that of the best over the next."""
    return {
        "side": side_json(comparison.side),
        "axis": comparison.axis,
        "reference": comparison.reference,
        "winners": [_winner_json(winner, comparison.axis) for winner in comparison.winners],
        "comparisons": [{"value": value, **comparison_json(each)} for value, each in comparison.comparisons],
    }


def _winner_json(winner: Winner, axis: str) -> dict[str, Any]:
    place = dict(zip(CONFIGURATION_AXES, winner.axes, strict=True))
    place.pop(axis)
    return {
        "metric": winner.metric.name,
        "configuration": place,
        "value": winner.value,
        "next": winner.runner_up,
        "verdict": winner.verdict.word,
        "reason": winner.verdict.reason,
        "best": winner.contrast.candidate,
        **ratio_json(winner.contrast.ratio),
        "left_out": list(winner.left_out),
    }
