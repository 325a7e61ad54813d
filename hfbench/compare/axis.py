"""Two values of an axis compared within one run: which attention, or which compile mode, is fastest where."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from hfbench.compare.compare import Comparison, Options, compare_all
from hfbench.compare.pairs import Axes, ComparedMetric, headline, named, points_of, values_of
from hfbench.compare.side import Side
from hfbench.core.errors import UserError
from hfbench.core.point import AXIS_TYPES, CONFIGURATION_AXES, REFERENCE, value_text, words_of
from hfbench.report.frames import MODEL_AND_WORK
from hfbench.report.words import axis_text
from hfbench.statistics.ratios import Contrast, contrast, estimate
from hfbench.statistics.verdicts import (
    FASTER,
    INCOMPARABLE,
    SAME,
    SLOWER,
    UNDECIDED,
    Verdict,
    race_p_value,
    verdict_on_race,
)


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
    values = {value: values_of(side) for value, side in sides.items()}
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


def where_it_pays(comparison: Comparison, metric: ComparedMetric) -> str:
    """Return where a value is faster than the reference by more than noise, and where not, in words.

    Where the points differ in one number alone, such as the batch size, they say from which on, or up to which, and
    what is known of the next. Empty for fewer than two points, of which the table says as much.
    """
    judged = [each for each in comparison.of_metric(metric) if each.verdict.word != INCOMPARABLE]
    if len(judged) < 2:
        return ""
    configurations = [named(each.pair.axes) for each in judged]
    differing = [axis for axis in CONFIGURATION_AXES if len({each[axis] for each in configurations}) > 1]
    if len(differing) == 1 and AXIS_TYPES[differing[0]] is int:
        (axis,) = differing
        pairs = zip(configurations, judged, strict=True)
        words = {each[axis]: found.verdict.word for each, found in sorted(pairs, key=lambda pair: pair[0][axis])}
        faster = [value for value, word in words.items() if word == FASTER]
        others = [value for value, word in words.items() if word != FASTER]
        if faster and others and (others[-1] < faster[0] or faster[-1] < others[0]):
            is_from = others[-1] < faster[0]
            where = f"from {words_of(axis, faster[0])} on" if is_from else f"up to {words_of(axis, faster[-1])}"
            nearest = others[-1 if is_from else 0]
            return f"{metric.better} {where}; {metric.word(words[nearest])} at {words_of(axis, nearest)}"
    parts = []
    for word in (FASTER, SLOWER, SAME, UNDECIDED):
        labels = [comparison.labels[each.pair.axes] for each in judged if each.verdict.word == word]
        where = "everywhere" if len(labels) == len(judged) else f"at {', '.join(labels)}"
        if labels:
            parts.append(f"{metric.word(word)} {where}")
    return "; ".join(parts)


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
        return next((value for value in values if value == REFERENCE.get(axis)), values[0])
    for value in values:
        if asked.lower() in {value_text(value).lower(), axis_text(value).lower()}:
            return value
    raise UserError(f"--reference {asked}: {axis} was measured with {', '.join(map(value_text, values))}.")


_PRICED = ("quantization", "cache_implementation")


def price_in_quality(comparison: AxisComparison) -> dict[Any, str]:
    """Return by how much each value changes the prompt's likelihood, in words; empty for an axis that is to keep it."""
    if comparison.axis not in _PRICED:
        return {}
    told = {}
    for value, each in comparison.comparisons:
        changes = [pair.candidate.nll_change for pair in each.pairing.pairs if pair.candidate.nll_change is not None]
        if changes:
            ends = dict.fromkeys(f"{change:+.3g}" for change in (min(changes), max(changes)))
            told[value] = f"{' to '.join(ends)} nats a token"
    return told
