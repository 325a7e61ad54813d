"""Numbers and verdicts of a comparison as a person reads them."""

from collections.abc import Iterable

from hfbench.comparison.compared import ComparedMetric
from hfbench.comparison.comparison import Comparison, Judged, Mean
from hfbench.comparison.contrasts import IDENTICAL
from hfbench.comparison.side import Side
from hfbench.comparison.verdicts import FASTER, INCOMPARABLE, SAME, SLOWER, UNDECIDED, VERDICTS
from hfbench.reporting.numbers import MISSING, memory_unit, significant
from hfbench.statistics.confidence import Interval
from hfbench.statistics.decidability import MOST_MORE_ROUNDS

_SHORT_COMMIT = 7
_MILLISECONDS = ("ms", 1e-3)
_SAYS_NOTHING = 10  # times the baseline, or a share of it as small


def unit_of(metric: ComparedMetric, values: Iterable[float | None]) -> tuple[str, float]:
    """Return the unit in which these values are short, and its size in the unit of the metric."""
    largest = max((value for value in values if value is not None), default=0.0)
    unit = metric.metric.unit
    if unit == "bytes":
        return memory_unit(largest)
    if unit == "s":
        return ("s", 1.0) if largest >= 1 else _MILLISECONDS
    return {"tokens/s": "tok/s", "J/token": "J/tok"}.get(unit, unit), 1.0


def percent(ratio: float) -> str:
    """Return a ratio as a change: +4.6%, −0.3%, +120%."""
    change = 100 * (ratio - 1)
    digits = 0 if abs(change) >= 99.95 else 1
    text = f"{abs(change):.{digits}f}"
    sign = "" if not float(text) else "+" if change > 0 else "−"
    return f"{sign}{text}%"


def limits(interval: Interval) -> str:
    """Return the limits of a ratio's interval as changes, −1.3 … +0.8%, unless they say nothing."""
    if interval.high > _SAYS_NOTHING or interval.low * _SAYS_NOTHING < 1:
        return "not known"
    return f"{percent(interval.low).removesuffix('%')} … {percent(interval.high)}"


def change(judged: Judged) -> tuple[str, str]:
    """Return the change and its interval; dashes where there is no ratio with one."""
    contrast = judged.contrast
    if contrast.obstacle is not None or contrast.baseline is None or contrast.candidate is None:
        return MISSING, MISSING
    if contrast.ratio is None:
        return percent(contrast.candidate / contrast.baseline), MISSING
    return percent(contrast.ratio.estimate), limits(contrast.ratio.interval())


def verdict_word(metric: ComparedMetric, word: str) -> str:
    """Return the verdict in the metric's words: `less` and `more` of memory and energy."""
    return {FASTER: metric.better, SLOWER: metric.worse}.get(word, word)


def verdict_text(metric: ComparedMetric, judged: Judged) -> str:
    """Return the verdict with what is short to say of it."""
    word = verdict_word(metric, judged.verdict.word)
    if judged.verdict.word == UNDECIDED:
        return f"{word}: {more_rounds(judged)}"
    if judged.contrast.method == IDENTICAL and judged.verdict.word == SAME:
        return f"{word}: not measured again"
    return word


def more_rounds(judged: Judged) -> str:
    """Return how many more rounds would decide, in a word or two."""
    more, was_tested = judged.verdict.more_rounds, judged.adjusted_p_value is not None
    if more is None:
        return f"> {MOST_MORE_ROUNDS} more rounds"
    return f"{'~' if was_tested else '≥ '}{more} more round{'s' * (more > 1)}"


def counts_text(counts: dict[str, int], metric: ComparedMetric | None = None) -> str:
    """Return how many pairs got each verdict: 2 slower, 14 same, 1 undecided."""
    words = {word: verdict_word(metric, word) if metric else word for word in VERDICTS}
    order = (SLOWER, FASTER, SAME, UNDECIDED, INCOMPARABLE)
    return ", ".join(f"{counts[word]} {words[word]}" for word in order if counts.get(word))


def mean_text(mean: Mean) -> str:
    """Return the geometric mean with its interval, and over how many points; empty where there is none."""
    if mean.ratio is None:
        return ""
    return f"{percent(mean.ratio.estimate)} ({limits(mean.ratio.interval())})"


def side_text(side: Side) -> str:
    """Return a side by its label, short commit, date and subject."""
    parts = [side.label]
    if side.revision and not side.revision.startswith(side.label):
        parts.append(side.revision[:_SHORT_COMMIT])
    if side.committed_at:
        parts.append(side.committed_at.date().isoformat())
    if side.subject:
        parts.append(side.subject)
    return "  ".join(parts)


def summary_sentence(comparison: Comparison, metric: ComparedMetric) -> str:
    """Return one line for one metric: counts of verdicts and the geometric mean."""
    counts = comparison.counts(metric)
    if not counts:
        return f"{metric.label}: no value on either side"
    mean = mean_text(comparison.means[metric.name])
    return f"{metric.label}: {counts_text(counts, metric)}" + (f"; geometric mean {mean}" if mean else "")


def value_text(value: float | None, size: float) -> str:
    """Return a value in a unit of this size."""
    return significant(None if value is None else value / size)
