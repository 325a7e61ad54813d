"""Many tests at once: p-values adjusted so that few of the differences that are called are false."""

from collections.abc import Sequence

from scipy.stats import false_discovery_control

# Of the differences that are called, at most this share is expected to be none.
FALSE_DISCOVERY_RATE = 0.05


def adjusted_p_values(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of one family adjusted after Y. Benjamini and Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289.

    Those at most `FALSE_DISCOVERY_RATE` are the differences to call. Where there is no difference at all, any is
    called in at most that share of families. Tests that tend to agree, as the latencies of one point do, keep this:
    Y. Benjamini and D. Yekutieli, Annals of Statistics 29 (2001) 1165.
    """
    return [float(value) for value in false_discovery_control(list(p_values))] if p_values else []
