"""Where a rising curve turns: the load beyond which waiting grows faster than the load does.

Source: V. Satopaa, J. Albrecht, D. Irwin and B. Raghavan, Finding a "Kneedle" in a Haystack: Detecting Knee Points in
System Behavior, ICDCS Workshops (2011) 166. Both axes are scaled to 0 … 1, and the knee of a convex curve is where it
lies farthest below the diagonal. Theirs smooths by a spline first, which the handful of loads of a sweep do not need.
"""

from collections.abc import Sequence

_FEWEST = 3  # two points are a line
# Of the range of both axes. A line is on the diagonal, and a curve that hardly bends has its largest distance anywhere.
_LEAST_BEND = 0.1


def knee(loads: Sequence[float], responses: Sequence[float]) -> int | None:
    """Return the index of the knee of `responses` over rising `loads`; None where the curve does not bend upwards."""
    if len(loads) < _FEWEST or min(responses) == max(responses):
        return None
    distances = [
        (load - loads[0]) / (loads[-1] - loads[0]) - (response - min(responses)) / (max(responses) - min(responses))
        for load, response in zip(loads, responses, strict=True)
    ]
    place = max(range(len(loads)), key=distances.__getitem__)
    return place if distances[place] >= _LEAST_BEND else None
