"""The values of an axis as tables of text: which is best for each workload."""

from hfbench.comparison.axis import AxisComparison, value_name
from hfbench.comparison.compared import ComparedMetric
from hfbench.comparison.layout import Row, TextTable, headers
from hfbench.comparison.verdicts import FASTER, SAME
from hfbench.comparison.winners import Winner
from hfbench.comparison.wording import limits, percent, unit_of, value_text
from hfbench.reporting.numbers import MISSING
from hfbench.tables.columns import CONFIGURATION_AXES
from hfbench.tables.keys import point_label


def axis_title(comparison: AxisComparison) -> str:
    """Return what is compared, in which results."""
    values = [comparison.reference, *(value for value, _ in comparison.comparisons)]
    return f"{comparison.axis} in {comparison.side.label}: {', '.join(map(value_name, values))}"


def winner_table(comparison: AxisComparison) -> list[TextTable]:
    """Return a table for each metric: a row for each place of the other axes, with the best value and its lead."""
    metrics = dict.fromkeys(winner.metric for winner in comparison.winners)
    return [_table(comparison, metric) for metric in metrics]


def _table(comparison: AxisComparison, metric: ComparedMetric) -> TextTable:
    winners = [winner for winner in comparison.winners if winner.metric is metric]
    places = [dict(zip(CONFIGURATION_AXES, winner.axes, strict=True)) for winner in winners]
    varying = [axis for axis in CONFIGURATION_AXES if len({place[axis] for place in places}) > 1]
    unit, size = unit_of(metric, (winner.contrast.candidate for winner in winners))
    rows = tuple(
        Row(
            (
                point_label(place, varying),
                value_name(winner.value),
                value_text(winner.contrast.candidate, size),
                *_lead(winner),
                winner_text(winner),
            ),
            winner.verdict.word,
        )
        for place, winner in zip(places, winners, strict=True)
    )
    header = headers("workload", "best", f"median ({unit})>", "against the next>", "95% interval>", "")
    return TextTable(f"Best {comparison.axis} by {metric.label}", header, rows)


def _lead(winner: Winner) -> tuple[str, str]:
    ratio = winner.contrast.ratio
    if ratio is None:
        return MISSING, MISSING
    return percent(ratio.estimate), limits(ratio.interval())


def winner_text(winner: Winner) -> str:
    """Return whether the best is told apart from the others."""
    others = value_name(winner.runner_up)
    if winner.verdict.word == FASTER:
        text = f"ahead of {others}"
    elif winner.verdict.word == SAME:
        text = f"level with {others}"
    else:
        text = f"not told apart from {others}"
    left_out = f"; {', '.join(map(value_name, winner.left_out))} left out for its output" if winner.left_out else ""
    return text + left_out
