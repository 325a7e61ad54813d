"""How often `hfbench compare` is right on data of known truth: effects of 0, ±1, ±3 and ±10%, noisy rounds.

`python -m benchmarks.verdicts [COMPARISONS]` makes two sides of 7 rounds of 20 iterations with noise between rounds of
1 or 3%, compares all their points together as the command does, and counts the verdicts on the end-to-end latency. A
comparison has 70 points: as many of each effect (`mixed`), or all of one (`alike`). `paired` sides ran in interleaved
rounds, `separate` ones one after the other. Nothing is timed: the counts are the same on every machine.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.synthetic_tables import START, Plan, sweep
from hfbench.compare.compare import Options, compare_sides
from hfbench.compare.pairs import HEADLINE
from hfbench.core.point import Configuration
from hfbench.statistics.verdicts import DEFAULT_THRESHOLD, FASTER, SAME, SLOWER, VERDICTS
from tests.compare.project import side

EFFECTS = (-0.10, -0.03, -0.01, 0.0, 0.01, 0.03, 0.10)
NOISES = (0.01, 0.03)
_ALIKE = (0.0, 0.10)
_POINTS_OF_EACH = 10
_MOST_FALSE, _LEAST_RIGHT = 0.05, 0.95
_LARGE = 0.10  # the effect that has to be found
_LATER = {"paired": timedelta(minutes=5), "separate": timedelta(hours=5)}
Counts = dict[float, Counter[str]]


class Case(NamedTuple):
    """What is compared: the noise between rounds, when the candidate ran, and the effects of the points."""

    noise: float
    when: str
    effects: tuple[float, ...]

    @property
    def points(self) -> str:
        """Whether all points have one effect."""
        return "mixed" if len(self.effects) > 1 else "alike"


def cases() -> Iterator[Case]:
    """Yield every case: mixed effects, and all points alike."""
    for noise in NOISES:
        for when in _LATER:
            yield Case(noise, when, EFFECTS)
            for effect in _ALIKE:
                yield Case(noise, when, (effect,))


def count_verdicts(case: Case, comparisons: int) -> Counter[tuple[float, str]]:
    """Return how many points of each true effect got each verdict on the end-to-end latency."""
    points = sweep(batch_size=[1, 2, 4, 8, 16, 32, 64], sequence_length=[64 * (1 + index) for index in range(10)])
    assert len(points) == _POINTS_OF_EACH * len(EFFECTS)
    truth = {each: case.effects[place % len(case.effects)] for place, each in enumerate(points)}
    counts: Counter[tuple[float, str]] = Counter()
    for number in range(comparisons):
        plan = Plan(points, iterations=20, between=case.noise, seed=2 * number)
        later = replace(
            plan,
            effect=lambda each: 1 + truth[replace(each, round=1)],
            seed=2 * number + 1,
            started=START + _LATER[case.when],
        )
        result = compare_sides(side(plan), side(later), Options((HEADLINE,)))
        for judged in result.judged:
            counts[truth[Configuration(round=1, **judged.pair.baseline.axes)], judged.verdict.word] += 1
    return counts


def figures(counts: Counter[tuple[float, str]]) -> list[tuple[str, float, bool]]:
    """Return each figure that these counts tell: what it is, its share, and whether it is as good as it has to be."""

    def share(effect: float, words: Sequence[str]) -> float:
        return sum(counts[effect, word] for word in words) / sum(counts[effect, word] for word in VERDICTS)

    found: list[tuple[str, float, bool]] = []
    for effect in sorted({effect for effect, _ in counts}):
        if effect == 0:
            value = share(effect, (FASTER, SLOWER))
            found.append(("faster or slower at 0%", value, value <= _MOST_FALSE))
        if abs(effect) >= _LARGE:
            value = share(effect, [SLOWER if effect > 0 else FASTER])
            found.append((f"right at {effect:+.0%}", value, value >= _LEAST_RIGHT))
        if abs(effect) > DEFAULT_THRESHOLD:
            value = share(effect, [SAME])
            found.append((f"same at {effect:+.0%}", value, value <= _MOST_FALSE))
    return found


def main() -> None:
    """Print the verdicts and the figures of each case."""
    comparisons = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    console = Console(width=100)
    verdicts = Table("rounds", "noise", "points", "effect", *VERDICTS)
    table = Table("rounds", "noise", "points", "figure", "share", "")
    for case in cases():
        counts = count_verdicts(case, comparisons)
        where: Any = (case.when, f"{case.noise:.0%}", case.points)
        for effect in case.effects:
            verdicts.add_row(*where, f"{effect:+.0%}", *(str(counts[effect, word]) for word in VERDICTS))
        for name, value, is_met in figures(counts):
            table.add_row(*where, name, f"{value:.1%}", "✓" if is_met else "✗")
    console.print(verdicts)
    console.print(table)


if __name__ == "__main__":
    main()
