"""How often looks at noise find what is not there, and what is there: the figures that the levels of a look rest on.

`python -m benchmarks.looks [EXPERIMENTS]` simulates rounds of known truth and looks at them after every number of
rounds. First: how often any of the intervals misses the truth, over the error that it is to keep, for several errors
and kinds of noise. Then: how often each verdict comes after so many rounds, with a 95% interval that forgets the other
looks beside it. Nothing is timed: the figures are the same on every machine.
"""

import sys
from collections.abc import Iterator, Sequence
from math import log

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from hfbench.statistics.bootstrap import Floats
from hfbench.statistics.verdicts import DEFAULT_THRESHOLD, ERROR, look_error

EVERY_LOOK = (*range(2, 31), *range(32, 61, 2), *range(65, 201, 5))
SOME_LOOKS = (3, 5, 7, 9, 12, 15)
NOISES = ("normal", "heavy-tailed", "disturbed")
_ERRORS = (0.05, 0.02, 0.01, 0.005, 0.002)
_POWER_NOISE = 0.03
_AT_ONCE = 10_000


def noise(kind: str, shape: tuple[int, ...], generator: np.random.Generator) -> Floats:
    """Return noise with a standard deviation of 1, but for what disturbs: one round in ten, by 7, to either side.

    `heavy-tailed` is Student's t with four degrees of freedom.
    """
    if kind == "heavy-tailed":
        return generator.standard_t(4, shape) / 2**0.5
    values: Floats = generator.standard_normal(shape)
    if kind == "disturbed":
        values += (generator.random(shape) < 0.1) * generator.choice([-7.0, 7.0], shape)
    return values


def looked_at(logarithms: Sequence[Floats], rounds: int) -> tuple[Floats, Floats, Floats]:
    """Return estimate, standard error and degrees of freedom of each experiment after so many rounds.

    As `paired_ratio` of one array of shape (experiments, rounds), and `independent_ratio` of two, candidate first.
    """
    samples = [values[:, :rounds] for values in logarithms]
    cut = max(rounds // 10, 1) if rounds > 2 else 0
    centres = [np.sort(each, axis=1)[:, cut : rounds - cut].mean(axis=1) for each in samples]
    squares = [each.var(axis=1, ddof=1) / rounds for each in samples]
    total = np.sum(squares, axis=0)
    freedom = (rounds - 1) * total**2 / np.sum([square**2 for square in squares], axis=0)
    return centres[0] - sum(centres[1:]), np.sqrt(total), freedom


def limits(logarithms: Sequence[Floats], rounds: int, error: float) -> tuple[Floats, Floats]:
    """Return the limits of the logarithm of each experiment's ratio, where one look may err so often."""
    estimates, standard_errors, freedom = looked_at(logarithms, rounds)
    margins = stdtrit(freedom, 1 - error / 2) * standard_errors
    return estimates - margins, estimates + margins


def missed(logarithms: Sequence[Floats], looks: Sequence[int], error: float = ERROR) -> float:
    """Return in which share of experiments without a change the interval of any look excludes that there is none."""
    any_missed = np.zeros(len(logarithms[0]), dtype=bool)
    for rounds in looks:
        low, high = limits(logarithms, rounds, look_error(rounds, error))
        any_missed |= (low > 0) | (high < 0)
    return float(any_missed.mean())


def _samples(kind: str, sides: int, experiments: int, rounds: int, seed: int) -> Iterator[list[Floats]]:
    generator = np.random.default_rng(seed)
    for _ in range(0, experiments, _AT_ONCE):
        yield [noise(kind, (min(experiments, _AT_ONCE), rounds), generator) for _ in range(sides)]


def spent(experiments: int) -> Table:
    """Return the table of errors over all looks, as shares of the error that is to be kept."""
    table = Table("noise", "rounds", "looks", *(f"{error:.1%}" for error in _ERRORS))
    for kind in NOISES:
        for sides, name in ((1, "paired"), (2, "separate")):
            for looks, words in ((EVERY_LOOK, "every"), (SOME_LOOKS, "3, 5, 7, 9, 12, 15"), ((3,), "3")):
                found = [
                    [missed(sample, looks, error) for error in _ERRORS]
                    for sample in _samples(kind, sides, experiments, max(looks), seed=1)
                ]
                shares = np.mean(found, axis=0) / _ERRORS
                table.add_row(kind, name, words, *(f"{share:.2f}" for share in shares))
    return table


def powers(experiments: int) -> Table:
    """Return the table of what is found after so many rounds, in per cent, and in brackets without counting looks."""
    table = Table("rounds", "noise", "effect", "found", *map(str, SOME_LOOKS))
    for sides, name in ((1, "paired"), (2, "separate")):
        for scatter in (0.01, _POWER_NOISE):
            # A paired round holds the noise of both sides.
            scale = scatter * (2**0.5 if sides == 1 else 1)
            [sample] = _samples("normal", sides, min(experiments, _AT_ONCE), max(SOME_LOOKS), seed=2)
            for effect, word in ((0.10, "slower"), (0.05, "slower"), (0.0, "same")):
                changed = [scale * sample[0] + log(1 + effect), *(scale * each for each in sample[1:])]
                cells = []
                for rounds in SOME_LOOKS:
                    found = [_found(changed, rounds, error, word) for error in (look_error(rounds), ERROR)]
                    cells.append(f"{found[0]:.0%} ({found[1]:.0%})")
                table.add_row(name, f"{scatter:.0%}", f"{effect:+.0%}", word, *cells)
    return table


def _found(logarithms: Sequence[Floats], rounds: int, error: float, word: str) -> float:
    low, high = limits(logarithms, rounds, error)
    within = np.maximum(-low, high) <= log(1 + DEFAULT_THRESHOLD)
    return float(np.mean(within if word == "same" else (low > 0) & ~within))


def main() -> None:
    """Print both tables."""
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    console = Console(width=110)
    console.print("Share of the error that all looks together spend", spent(experiments))
    console.print("Found by one look (and by one that forgets the others)", powers(experiments))


if __name__ == "__main__":
    main()
