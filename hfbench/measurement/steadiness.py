"""Whether warming up is over."""

from collections.abc import Sequence

# The coefficient of variation below which A. Georges, D. Buytaert and L. Eeckhout, Statistically Rigorous Java
# Performance Evaluation (OOPSLA 2007), section 4, call a process steady is 1 or 2%.
NOTABLE = 0.02
# One that is no faster happens by chance one time in six or more on a falling curve whose steps are as small as the
# noise; two in a row seldom do.
CONSECUTIVE = 2
FEWEST_ITERATIONS = CONSECUTIVE + 1


def is_steady(latencies: Sequence[float]) -> bool:
    """Return whether the last two of the warm-up's latencies, in seconds, brought nothing notable any more.

    That is: neither was faster than every one before it by more than 2%. While a process warms up each iteration is a
    new record; once it is steady, records become rare whatever the noise, the n-th being one with probability 1/n. So
    noise ends this test instead of prolonging it, as it does with a limit on the coefficient of variation, which on a
    machine with 5% of noise is never met. Source for records as a test of trend: F. G. Foster and A. Stuart,
    Distribution-free tests in time-series based on the breaking of records, JRSS B 16 (1954) 1.

    Fewer than three latencies are never steady. Latencies that rise are: that is no warm-up, and a trend among the
    samples is found as drift.
    """
    if len(latencies) < FEWEST_ITERATIONS:
        return False
    newest = range(len(latencies) - CONSECUTIVE, len(latencies))
    return all(latencies[index] >= (1 - NOTABLE) * min(latencies[:index]) for index in newest)
