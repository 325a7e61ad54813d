"""From the contrasts of a comparison to their verdicts: all p-values are one family."""

from collections.abc import Sequence

from hfbench.comparison.compared import ComparedMetric
from hfbench.comparison.comparison import Judged
from hfbench.comparison.contrasts import IDENTICAL, Contrast
from hfbench.comparison.verdicts import INCOMPARABLE, SAME, Verdict, decide, too_few_rounds
from hfbench.statistics.multiplicity import adjusted_p_values

_IDENTICAL = "the same records: nothing that they depend on changed, and DVC measured nothing again"


def judge(contrasts: Sequence[tuple[ComparedMetric, Contrast]], threshold: float) -> list[Judged]:
    """Return each contrast with its verdict, in their order.

    The family over which the false discovery rate is controlled is everything that is tested: all pairs with all
    metrics that were asked for, since the exit status rests on any of them.
    """
    tested = [index for index, (_, contrast) in enumerate(contrasts) if _is_tested(contrast)]
    p_values = [contrasts[index][1].ratio.p_value for index in tested]  # type: ignore[union-attr]
    adjusted = dict(zip(tested, adjusted_p_values(p_values), strict=True))
    return [
        Judged(contrast, _verdict(metric, contrast, adjusted.get(index), threshold), adjusted.get(index))
        for index, (metric, contrast) in enumerate(contrasts)
    ]


def _is_tested(contrast: Contrast) -> bool:
    return contrast.ratio is not None and contrast.obstacle is None and contrast.method != IDENTICAL


def _verdict(metric: ComparedMetric, contrast: Contrast, adjusted: float | None, threshold: float) -> Verdict:
    if contrast.obstacle is not None:
        return Verdict(INCOMPARABLE, contrast.obstacle)
    if contrast.method == IDENTICAL:
        return Verdict(SAME, _IDENTICAL)
    if contrast.ratio is None or adjusted is None:
        return too_few_rounds(contrast.baseline_rounds, contrast.candidate_rounds)
    better = metric.metric.higher_is_better
    return decide(contrast.ratio, contrast.ratio.p_value, adjusted, threshold, higher_is_better=better)
