"""Two values of an axis compared within one run: which attention, or which compile mode, is fastest where."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from hfbench.compare.compare import Comparison, Options, compare_all
from hfbench.compare.pairs import Axes, ComparedMetric, headline, named, points_of, values_of
from hfbench.compare.side import Side
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES, value_text
from hfbench.core.record import OK
from hfbench.report.frames import MODEL_AND_WORK
from hfbench.report.speedups import OUTPUT_DIFFERS, Place, price_in_quality, reference_value, where_it_pays
from hfbench.report.words import axis_text
from hfbench.statistics.ratios import Contrast, contrast, estimate
from hfbench.statistics.verdicts import Verdict, race_p_value, verdict_on_race


@dataclass(frozen=True)
class AxisWinner:
    """The best value of the axis in one place of the others (`axes`), against `rival`, with the verdict on the race.

    See `hfbench.statistics.verdicts.verdict_on_race`: the rival is the second best, or the value that the best is not
    told from. `left_out` are values whose output is not their reference's.
    """

    axes: Axes
    metric: ComparedMetric
    value: Any
    rival: Any
    contrast: Contrast
    verdict: Verdict
    left_out: tuple[Any, ...]


@dataclass(frozen=True)
class Race:
    """The values in one place, the best first, with the contrast of the best to each other one."""

    axes: Axes
    metric: ComparedMetric
    order: tuple[Any, ...]
    contrasts: tuple[Contrast, ...]
    left_out: tuple[Any, ...]


def find_races(sides: Mapping[Any, Side], metrics: Sequence[ComparedMetric]) -> Iterator[Race]:
    """Yield the race for each metric in each place where two values were measured."""
    values = {value: values_of(side, metrics) for value, side in sides.items()}
    points = {value: points_of(side) for value, side in sides.items()}
    places = dict.fromkeys(axes for each in points.values() for axes in each)
    for metric, axes in product(metrics, places):
        measured = {value: rounds for value, each in values.items() if (rounds := each.get(axes, {}).get(metric.name))}
        left_out = tuple(value for value in measured if points[value][axes].output_differs)
        runners = {value: estimate(rounds) for value, rounds in measured.items() if value not in left_out}
        if len(runners) < 2:
            continue
        best, *others = sorted(runners, key=runners.__getitem__, reverse=metric.metric.higher_is_better)
        started = {value: points[value][axes].started for value in runners}
        contrasts = (contrast(measured[each], measured[best], started[each], started[best]) for each in others)
        yield Race(axes, metric, (best, *others), tuple(contrasts), left_out)


def payoff(comparison: Comparison, metric: ComparedMetric) -> str:
    """Return where the candidate is better than the baseline by more than noise, and where it is not or fails."""
    judged = {each.pair.axes: each.verdict.word for each in comparison.of_metric(metric)}
    places = []
    for pair in comparison.pairing.pairs:
        if pair.output_differs and pair.axes in judged:
            places.append(Place(named(pair.axes), OUTPUT_DIFFERS))
        elif pair.axes in judged:
            places.append(Place(named(pair.axes), judged[pair.axes]))
        elif pair.baseline.status == OK and pair.candidate.status != OK:
            places.append(Place(named(pair.axes), pair.candidate.status.replace("_", " ")))
    return where_it_pays(places, metric.word)


# Points that differ in one of these do other work, so that their times tell nothing of each other.
AXES = tuple(axis for axis in CONFIGURATION_AXES if axis not in MODEL_AND_WORK)


@dataclass(frozen=True)
class AxisComparison:
    """Each value of an axis against the reference, and for each workload which value is fastest."""

    side: Side
    axis: str
    reference: Any
    comparisons: tuple[tuple[Any, Comparison], ...]
    winners: tuple[AxisWinner, ...]

    @property
    def is_slower(self) -> bool:
        """Whether any value is slower than the reference, or fails where it does not."""
        return any(each.is_slower for _, each in self.comparisons)


def compare_axis(side: Side, axis: str, reference: str | None, options: Options) -> AxisComparison:
    """Return the comparison of the values of an axis, all tests being one family: pairs and races.

    `reference` is a value as text; without one, the plainest where the axis has it (`eager`, `off`, `none`, `false`),
    as for the check of outputs, else the first.
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
            f"--axis {axis}: {side.label} was measured with {value_text(chosen)} alone. Add values to sweep.{axis}."
        )
    baseline = side.with_axis(axis, chosen, chosen)
    candidates = {value: side.with_axis(axis, value, chosen) for value in others}
    races = list(find_races({chosen: baseline, **candidates}, headline(options.metrics)))
    besides = [p_value for race in races if (p_value := race_p_value(race.contrasts)) is not None]
    comparisons = compare_all([(baseline, candidates[value]) for value in others], options, besides)
    winners = []
    for race in races:
        better = race.metric.metric.higher_is_better
        place, verdict = verdict_on_race(
            race.contrasts, options.threshold, comparisons[0].error, higher_is_better=better
        )
        best, *rest = race.order
        found = race.contrasts[place]
        winners.append(AxisWinner(race.axes, race.metric, best, rest[place], found, verdict, race.left_out))
    named = (
        (value, replace(each, side_names=(value_text(chosen), value_text(value))))
        for value, each in zip(others, comparisons, strict=True)
    )
    return AxisComparison(side, axis, chosen, tuple(named), tuple(winners))


def _reference(axis: str, values: list[Any], asked: str | None) -> Any:
    if asked is None:
        return reference_value(axis, values)
    for value in values:
        if asked.lower() in {value_text(value).lower(), axis_text(value).lower()}:
            return value
    raise UserError(f"--reference {asked}: {axis} was measured with {', '.join(map(value_text, values))}.")


def prices_in_quality(comparison: AxisComparison) -> dict[Any, str]:
    """Return by how much each value changes the prompt's likelihood, in words; empty for an axis that is to keep it."""
    changes = {
        value: [(pair.candidate.nll_change, pair.baseline.nll_change) for pair in each.pairing.pairs]
        for value, each in comparison.comparisons
    }
    return {value: text for value, each in changes.items() if (text := price_in_quality(comparison.axis, each))}
