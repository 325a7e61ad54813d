"""What a record's monitoring says about a span of time: pure functions over its columns.

Each takes columns as `record.monitoring` holds them: lists of the length of `time_seconds`, with None where a reading
failed. Times are float64 seconds since the start of the measure stage, as those of the iterations.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

Column = Sequence[float | int | None]

# A counter or a power reading is the device's latest, up to one interval old at each end of the span: with ten
# readings in it, both ends together are off by a fifth of the span at most, and typically by far less.
LEAST_ENERGY_READINGS = 10
# These say that the clock was low and not that the device could not keep up: it had no work, or a person set it so.
NOT_THROTTLING = ("gpu_idle", "applications_clocks_setting", "display_clock_setting")


def readings_within(time_seconds: Sequence[float], start: float, end: float) -> slice:
    """Return the slice of the samples taken from `start` to `end`, both included."""
    return slice(bisect_left(time_seconds, start), bisect_right(time_seconds, end))


def energy_per_token(
    time_seconds: Sequence[float],
    start: float,
    end: float,
    tokens: int,
    *,
    energy_joules: Column | None = None,
    power_watts: Column | None = None,
) -> float | None:
    """Return the joules for each of the `tokens` made from `start` to `end`, or None where they cannot be known.

    The counter `energy_joules` is preferred; `power_watts` is integrated by the trapezoidal rule. Either is taken to
    run straight between two samples. None: fewer than `LEAST_ENERGY_READINGS` within the span, a span that the samples
    do not cover, or no tokens.
    """
    for column, energy in ((energy_joules, _counted), (power_watts, _integrated)):
        points = _points(time_seconds, column or [])
        inside = sum(1 for at, _ in points if start <= at <= end)
        is_covered = bool(points) and points[0][0] <= start and points[-1][0] >= end
        if is_covered and inside >= LEAST_ENERGY_READINGS and tokens > 0:
            return energy(points, start, end) / tokens
    return None


def throttled(throttle_mask: Column, throttle_reasons: Mapping[str, int], within: slice) -> tuple[str, ...]:
    """Return the names of the reasons for which the device ran slower than it can, in any sample of `within`."""
    seen = 0
    for mask in throttle_mask[within]:
        seen |= int(mask or 0)
    return tuple(name for name, bit in throttle_reasons.items() if seen & bit and name not in NOT_THROTTLING)


def increase(counter: Column, within: slice) -> float | None:
    """Return by how much a counter (`cpu_throttle_count`, `quota_throttled_seconds`) grew over the samples of `within`.

    The sample before the first is where it starts from, if there is one. None with fewer than two readings.
    """
    start = max(0, within.indices(len(counter))[0] - 1)
    readings = [value for value in counter[start : within.stop] if value is not None]
    return readings[-1] - readings[0] if len(readings) > 1 else None


def clocks_changed(clock_mhz: Column, within: slice) -> float | None:
    """Return the spread of the clock over the samples of `within`, (highest - lowest) / median; None below two."""
    clocks = [clock for clock in clock_mhz[within] if clock is not None]
    return (max(clocks) - min(clocks)) / median(clocks) if len(clocks) > 1 and median(clocks) > 0 else None


def others_cpu_cores(cpu_percent: Column, worker_cpu_cores: Column, logical_cores: int, within: slice) -> float | None:
    """Return how many cores others than the worker kept busy, the median over the samples of `within`, at least 0.

    The kernel counts the machine's time in ticks of 10 ms: a single sample is coarse. None without a sample.
    """
    pairs = zip(cpu_percent[within], worker_cpu_cores[within], strict=True)
    others = [
        machine / 100 * logical_cores - worker
        for machine, worker in pairs
        if machine is not None and worker is not None
    ]
    return max(0.0, median(others)) if others else None


def _points(time_seconds: Sequence[float], column: Column) -> list[tuple[float, float]]:
    return [(at, float(value)) for at, value in zip(time_seconds, column, strict=False) if value is not None]


def _counted(points: list[tuple[float, float]], start: float, end: float) -> float:
    return _at(points, end) - _at(points, start)


def _integrated(points: list[tuple[float, float]], start: float, end: float) -> float:
    inside = [(at, value) for at, value in points if start < at < end]
    corners = [(start, _at(points, start)), *inside, (end, _at(points, end))]
    return sum((second - first) * (low + high) / 2 for (first, low), (second, high) in pairwise(corners))


def _at(points: list[tuple[float, float]], at: float) -> float:
    """Return the value at a time within the points, on the straight line between its neighbours."""
    right = bisect_left(points, at, key=lambda point: point[0])
    if points[right][0] == at:
        return points[right][1]
    (first, low), (second, high) = points[right - 1], points[right]
    return low + (high - low) * (at - first) / (second - first)
