"""Simulated experiments: rounds of iterations around a known median of 1."""

from collections.abc import Iterator

import numpy as np

from hfbench.statistics.bootstrap import Floats

EXPERIMENTS = 500
ITERATIONS = 20
WITHIN = 0.05  # the standard deviation of iterations within a round


def experiments(
    kind: str, rounds: int, between_over_within: float, seed: int, count: int = EXPERIMENTS
) -> Iterator[Floats]:
    """Yield values of shape (rounds, iterations), with noise between rounds that is a multiple of the one within.

    `normal` adds both to 1. `log-normal` multiplies by both. `long-tailed` has iterations, and not rounds, with a tail
    towards slow, as latencies have. Each has a median of 1, and so has the median of a round over all rounds.
    """
    generator = np.random.default_rng(seed)
    for _ in range(count):
        between = generator.normal(0, between_over_within * WITHIN, (rounds, 1))
        within = generator.normal(0, 1, (rounds, ITERATIONS))
        if kind == "normal":
            yield 1 + between + WITHIN * within
        elif kind == "log-normal":
            yield np.exp(between + WITHIN * within)
        else:
            yield 1 + between + WITHIN * (np.exp(0.6 * within) - 1) / 0.6
