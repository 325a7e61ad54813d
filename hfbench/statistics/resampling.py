"""The draws of the hierarchical bootstrap, made once for all experiments with as many rounds of as many iterations."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hfbench.statistics.bootstrap import Floats, Integers, Places, draw_places, draw_rounds

# The metrics of one pair have the same sizes and follow each other, so that a few are enough.
_KEPT = 8


class Draws(NamedTuple):
    """The rounds drawn, shape (resamples, rounds), and where the median of a resample of each stands."""

    rounds: Integers
    places: Places


@lru_cache(_KEPT)
def draws(sizes: tuple[int, ...], resamples: int, seed: int, side: int = 0) -> Draws:
    """Return the draws for rounds of these sizes: each side has the same rounds, and iterations of its own."""
    rounds = draw_rounds(len(sizes), resamples, np.random.default_rng(seed))
    return Draws(rounds, draw_places(sizes, rounds, np.random.default_rng((seed, side))))


def medians_of_sorted(ordered: Floats, sizes: Sequence[int]) -> Floats:
    """Return the median of each round, given the sorted values of all rounds, one round after the other."""
    counts = np.array(sizes)
    first = np.cumsum(counts) - counts
    medians: Floats = (ordered[first + (counts - 1) // 2] + ordered[first + counts // 2]) / 2
    return medians
