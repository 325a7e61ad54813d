"""The report's section on which way is fastest for each workload, and by how much."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree as ET

from hfbench.report.charts.chart import Chart, text_column
from hfbench.report.html import element, text_table
from hfbench.report.sections.figures import figure
from hfbench.report.speedups import LATENCY, Comparison, Winner, interval_words
from hfbench.report.words import MISSING, TextColumn, margin, significant
from hfbench.statistics.verdicts import DEFAULT_THRESHOLD, SAME

_METHOD = (
    "Fastest is the lowest median end-to-end latency among the ways whose output is not flagged as different. A way is "
    "called fastest beyond noise where the 95% intervals of its speed over each other way leave out 1, and level where "
    f"the one over the next lies within {DEFAULT_THRESHOLD:.0%}: ratios of the medians of rounds that ran next to each "
    "other. The intervals hold however often one looks, and for all comparisons of this page together."
)


def fastest_section(winners: Sequence[Winner], chart: Chart | None, ways: int) -> ET.Element:
    """Return the section; `ways` counts the ways of running that the sweep has."""
    heading = element("h2", "Which way is fastest")
    if ways == 1 or not winners:
        alone = "There is one way of running in this sweep, and so nothing to compare." if winners else ""
        return element("section", heading, element("p", alone or "No workload was measured."), id="fastest")
    drawn = [] if chart is None else [figure(chart)]
    return element(
        "section",
        heading,
        element("p", summary_sentence(winners), class_="lead"),
        text_table(_columns(winners)),
        *drawn,
        element("p", _METHOD, class_="faint note"),
        id="fastest",
    )


def summary_sentence(winners: Sequence[Winner]) -> str:
    """Return in how many workloads which way is fastest beyond noise."""
    compared = [each for each in winners if each.runner_up is not None]
    if not compared:
        return "No workload was measured in two ways."
    if all(each.runner_up is not None and each.runner_up.interval is None for each in compared):
        return (
            "With one round no difference can be told from noise: the order below is that of the medians. "
            "Give sweep.round at least 3 values."
        )
    clear = Counter(str(each.configuration["way"]) for each in compared if each.is_clear)
    if not clear:
        where = f"any of the {len(compared)} workloads" if len(compared) > 1 else "the workload"
        return f"No way is faster than every other by more than noise in {where}."
    shares = [f"{way} in {count}" for way, count in clear.most_common()]
    total = f"all {len(compared)} workloads" if len(compared) > 1 else "the one workload"
    if list(clear.values()) == [len(compared)]:
        return f"{next(iter(clear))} is fastest beyond noise in {total}."
    undecided = len(compared) - sum(clear.values())
    rest = f"; in {undecided} the first is not told from the next" if undecided else ""
    return f"Of {len(compared)} workloads, fastest beyond noise is {', '.join(shares)}{rest}."


def _columns(winners: Sequence[Winner]) -> list[TextColumn]:
    rows = [each.configuration for each in winners]
    latency = text_column("end-to-end", [significant(row[LATENCY]) for row in rows], "s")
    margins = [margin(row[LATENCY], row[f"{LATENCY}_low"], row[f"{LATENCY}_high"]) for row in rows]
    columns = [
        text_column("workload", [row["workload"] for row in rows], is_number=False),
        text_column("lowest median", [row["way"] for row in rows], is_number=False),
        *_ratios("baseline", [each.over_baseline for each in winners]),
        *_ratios("next", [each.runner_up for each in winners]),
        replace(latency, margins=tuple(margins)),
        text_column("verdict", [_verdict(each) for each in winners], is_number=False),
    ]
    return columns if any(row["workload"] for row in rows) else columns[1:]


def _ratios(label: str, comparisons: Sequence[Comparison | None]) -> list[TextColumn]:
    """Return two columns: how many times as fast, and against whom where it is not the same everywhere."""
    names = [MISSING if each is None else str(each.against["way"]) for each in comparisons]
    known = set(names) - {MISSING}
    texts = [MISSING if each is None else f"{significant(each.estimate)}×" for each in comparisons]
    intervals = ["" if each is None or each.interval is None else interval_words(each.interval) for each in comparisons]
    over = f"over {known.pop()}" if label == "baseline" and len(known) == 1 else f"over the {label}"
    ratios = replace(text_column(over, texts), margins=tuple(intervals))
    return [ratios] if over != f"over the {label}" else [ratios, text_column(label, names, is_number=False)]


def _verdict(winner: Winner) -> str:
    left_out = f"; not ranked, since the output differs: {', '.join(winner.flagged)}" if winner.flagged else ""
    if winner.runner_up is None:
        return f"the only way measured{left_out}"
    if winner.runner_up.interval is None:
        return f"one round: not told from noise{left_out}"
    if winner.is_clear:
        return f"fastest beyond noise{left_out}"
    if winner.verdict is not None and winner.verdict.word == SAME:
        return f"level with {winner.rival}{left_out}"
    return f"not told from {', '.join(winner.rivals)}{left_out}"
