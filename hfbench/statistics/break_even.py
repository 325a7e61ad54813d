"""After how many new tokens compiling has paid for itself."""

from dataclasses import dataclass

from hfbench.statistics.bootstrap import Interval

PAID, NEVER, NOT_KNOWN = "paid", "never", "not known"


@dataclass(frozen=True)
class BreakEven:
    """`verdict` is `paid`, `never` or `not known`; the numbers of tokens are None where it is not `paid`.

    `low` and `high` are `new_tokens` at the limits of the 95% interval of what an iteration saves; the start-up costs
    in them are the estimates.
    """

    verdict: str
    new_tokens: float | None = None
    low: float | None = None
    high: float | None = None


def break_even(
    overhead_seconds: float, uncompiled_seconds: float, ratio: Interval | None, iteration_tokens: float
) -> BreakEven:
    """Return the new tokens after which a compiled process and an uncompiled one have taken the same time.

    `overhead_seconds` is what the first call of the compiled process takes beyond its steady iterations, less the same
    of the uncompiled process, which warms up too. `uncompiled_seconds` is a steady uncompiled iteration, `ratio` what a
    compiled one takes of that, and `iteration_tokens` the new tokens of an iteration, all rows together.

    n calls take overhead + n · iteration. So they are even at n = overhead_seconds / saving, the first call counted,
    where a compiled iteration saves uncompiled_seconds · (1 - ratio): the break-even point of a fixed cost over the
    saving of each unit. Where the interval of the ratio includes 1, the saving may be none, and nothing is known. Where
    compiled iterations are slower, they never pay. Where the compiled start costs no more, they pay from the first.
    """
    if ratio is None or ratio.low <= 1 <= ratio.high:
        return BreakEven(NOT_KNOWN)
    if ratio.low > 1:
        return BreakEven(NEVER)
    cost = max(0.0, overhead_seconds) * iteration_tokens / uncompiled_seconds
    return BreakEven(PAID, *(cost / (1 - each) for each in (ratio.estimate, ratio.low, ratio.high)))
