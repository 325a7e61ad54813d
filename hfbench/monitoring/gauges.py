"""Gauges, which are read again and again, and the columns that their readings are kept in."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Value = float | int | None


@dataclass(frozen=True)
class Gauge:
    """One reading, which gives a value for each of its names; the names carry the unit.

    `read` may raise, or give None, for what it cannot tell at that moment. `otherwise` says why, in words for a person,
    where it never told anything.
    """

    names: tuple[str, ...]
    read: Callable[[], Sequence[Value]]
    otherwise: str


class Columns:
    """A list of values for each name of some gauges, all of equal length; None where a reading failed."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = tuple(gauges)
        self._values: dict[str, list[Value]] = {name: [] for gauge in self._gauges for name in gauge.names}
        self._errors: dict[str, str] = {}

    def sample(self) -> None:
        """Read every gauge once. Raises nothing: one that fails leaves the others."""
        for gauge in self._gauges:
            try:
                values = gauge.read()
            except Exception as error:  # a vendor's library or a process that has just ended; the worker goes on
                values = [None] * len(gauge.names)
                self._errors.update(dict.fromkeys(gauge.names, f"{type(error).__name__}: {error}"))
            for name, value in zip(gauge.names, values, strict=True):
                self._values[name].append(value)

    def told(self) -> dict[str, list[Value]]:
        """Return the columns that hold at least one value."""
        return {name: values for name, values in self._values.items() if any(value is not None for value in values)}

    def last(self) -> dict[str, Value]:
        """Return the latest value of each column."""
        return {name: values[-1] for name, values in self._values.items() if values}

    def unavailable(self) -> dict[str, str]:
        """Return the reason for each column that never got a value."""
        told = self.told()
        return {
            name: self._errors.get(name, gauge.otherwise)
            for gauge in self._gauges
            for name in gauge.names
            if name not in told
        }
