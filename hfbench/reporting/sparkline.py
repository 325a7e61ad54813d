"""Small pictures of numbers in one line of text."""

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-:=+*#"  # for a terminal without Unicode


def sparkline(values: Sequence[float | None], low: float, high: float, marks: str = BLOCKS) -> str:
    """Return a mark for each value, its height the place between `low` and `high`; a blank for None.

    All are lowest where `low` and `high` are equal.
    """
    steps = len(marks)
    span = high - low
    return "".join(
        " " if value is None else marks[0 if span <= 0 else min(steps - 1, max(0, int((value - low) / span * steps)))]
        for value in values
    )


def slowest_of_each(values: Sequence[float], most: int) -> tuple[list[float], int]:
    """Return at most `most` values, each the largest of so many neighbours, and how many that is."""
    size = max(1, -(-len(values) // most))
    return [max(values[start : start + size]) for start in range(0, len(values), size)], size


def span_bar(start: float, end: float, whole: float, width: int, marks: str = BLOCKS) -> str:
    """Return a bar of `width` characters from `start` to `end` of `whole`, at least one mark long."""
    if whole <= 0 or width <= 0:
        return ""
    first = min(width - 1, max(0, int(start / whole * width)))
    last = min(width, max(first + 1, round(end / whole * width)))
    return " " * first + marks[-1] * (last - first)
