"""The intervals of many medians in the time of few: samples whose rounds have the same sizes share their draws."""

from collections.abc import Sequence
from math import exp

import numpy as np

from hfbench.statistics.bootstrap import draw_places, draw_rounds, round_medians, sorted_values, standard_errors
from hfbench.statistics.confidence import CONFIDENCE, FEWEST_ROUNDS, RESAMPLES, Interval, Rounds, student


def median_intervals(
    samples: Sequence[Rounds], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval | None]:
    """Return what `hfbench.statistics.intervals.median_interval` does for each sample, to the last bit.

    Raises `ValueError` where a round is empty.
    """
    centres = [round_medians(rounds) for rounds in samples]
    intervals: list[Interval | None] = [None] * len(samples)
    for sizes, members in _by_sizes(samples).items():
        if len(sizes) < FEWEST_ROUNDS:
            continue
        generator = np.random.default_rng(seed)
        drawn = draw_rounds(len(sizes), resamples, generator)
        places = draw_places(sizes, drawn, generator)
        quantile = student(confidence, len(sizes) - 1)
        for index in members:
            errors = standard_errors(centres[index], drawn, places.medians(sorted_values(samples[index])))
            estimate = float(np.median(centres[index]))
            intervals[index] = _around(estimate, quantile * errors.below, quantile * errors.above)
    return intervals


def _by_sizes(samples: Sequence[Rounds]) -> dict[tuple[int, ...], list[int]]:
    """Return, for the sizes of rounds that samples have, the indices of those samples."""
    indices: dict[tuple[int, ...], list[int]] = {}
    for index, rounds in enumerate(samples):
        indices.setdefault(tuple(map(len, rounds)), []).append(index)
    return indices


def _around(estimate: float, below: float, above: float) -> Interval:
    """Lay the margins around the estimate: in proportion to it, or on a linear scale where it is not positive."""
    if estimate <= 0:
        return Interval(estimate, estimate - below, estimate + above)
    return Interval(estimate, estimate * exp(-below / estimate), estimate * exp(above / estimate))
