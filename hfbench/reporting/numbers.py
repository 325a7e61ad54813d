"""Numbers as a person reads them: three significant digits, and units that keep them short."""

import math

MISSING = "–"
_DIGITS = 3
_LARGEST_PLAIN = 1e9  # more digits than these are read by nobody
_MIB, _GIB = 2**20, 2**30
_SAYS_NOTHING = 10  # a limit this many times the value, or this many times smaller


def significant(value: float | None) -> str:
    """Return three significant digits: 0.0123, 1.49, 40.0, 1230, and 3.46e17 from a billion on; a dash for None."""
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{_DIGITS}g}")  # first, since it may carry to one more digit: 9.996 is 10.0
    if abs(rounded) >= _LARGEST_PLAIN:
        digits, exponent = f"{rounded:.{_DIGITS - 1}e}".split("e")
        return f"{digits}e{int(exponent)}"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(0, decimals)}f}"


def margin(value: float | None, low: float | None, high: float | None) -> str:
    """Return half an interval as a share of its value: ±1.4%, at most > ±100%; nothing where there is no interval."""
    if not value or low is None or high is None:
        return ""
    percent = 100 * (high - low) / 2 / value
    return f"±{percent:.2g}%" if percent < 99.5 else "> ±100%"


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """Return the limits of an interval, unless they are so far from the value that they say nothing of it."""
    if value is None or low is None or high is None:
        return MISSING
    if low <= 0 or high > _SAYS_NOTHING * value or low * _SAYS_NOTHING < value:
        return "not known"
    return f"{significant(low)} … {significant(high)}"


def memory_unit(largest_bytes: float) -> tuple[str, float]:
    """Return the name and size in bytes of the unit in which a table of memory sizes is shown."""
    return ("GiB", _GIB) if largest_bytes >= _GIB else ("MiB", _MIB)


def rate(per_second: float, unit: str) -> str:
    """Return a rate with the decimal prefix that keeps it short: `rate(2.1e10, "B")` is 21.0 GB/s."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_second >= size:
            return f"{significant(per_second / size)} {prefix}{unit}/s"
    return f"{significant(per_second)} {unit}/s"
