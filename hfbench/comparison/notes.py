"""What to beware of in a comparison, in sentences."""

from collections.abc import Iterable, Sequence

from hfbench.comparison.comparison import PairResult
from hfbench.comparison.contrasts import IDENTICAL, INDEPENDENT, PAIRED
from hfbench.comparison.side import Side
from hfbench.comparison.verdicts import INCOMPARABLE


def notes(baseline: Side, candidate: Side, results: Sequence[PairResult], tests: int) -> tuple[str, ...]:
    """Return how the rounds were compared, what is not known, and what the sides themselves say."""
    return (
        *baseline.notes,
        *(note for note in candidate.notes if note not in baseline.notes),
        *_methods(results),
        *_outputs(results),
        *_unknown_inputs(results),
        *_family(tests),
    )


def _methods(results: Sequence[PairResult]) -> Iterable[str]:
    """Say for how many points the rounds were paired, and what it means where they were not."""
    methods = [
        {each.contrast.method for each in result.judged.values() if each.verdict.word != INCOMPARABLE}
        for result in results
    ]
    counted = {method: sum(method in each for each in methods) for method in (PAIRED, INDEPENDENT, IDENTICAL)}
    if counted[PAIRED]:
        yield (
            f"{_points(counted[PAIRED])} compared round by round: the rounds of the two sides alternate, so that the "
            "machine's drift cancels."
        )
    if counted[INDEPENDENT]:
        yield (
            f"{_points(counted[INDEPENDENT])} compared as two separate runs: their rounds do not alternate, so that a "
            "drift of the machine from one run to the other would pass for a change."
        )
    if counted[IDENTICAL]:
        yield (
            f"{_points(counted[IDENTICAL])} not measured again: both sides hold the same records, since nothing that "
            "they depend on changed."
        )


def _outputs(results: Sequence[PairResult]) -> Iterable[str]:
    count = sum(bool(result.output_differs) for result in results)
    if count:
        yield f"{_points(count)} marked !: the output is not its reference's. Geometric means leave such points out."


def _unknown_inputs(results: Sequence[PairResult]) -> Iterable[str]:
    count = sum(not (result.pair.baseline.inputs and result.pair.candidate.inputs) for result in results)
    if count:
        yield f"{_points(count)} without a record of the prompt on a side: that both were given the same is assumed."


def _family(tests: int) -> Iterable[str]:
    if tests > 1:
        yield (
            f"Of the changes that are called among these {tests} comparisons, at most 5% are expected to be noise "
            "(Benjamini-Hochberg); each interval is a 95% one for itself."
        )


def _points(count: int) -> str:
    return f"{count} points" if count != 1 else "1 point"
