"""The times of a point's rounds: its samples, and its phases from the start of the stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from hfbench.foundation.records import Record

_END = "end"


@dataclass(frozen=True)
class RoundSamples:
    """The end-to-end seconds of a round's samples in order, those without the token observer apart in `unobserved`.

    `seconds` are what the metric is made of; `lowest`, `middle` and `highest` are theirs, None where there are none.
    """

    round: int
    in_order: tuple[tuple[float, bool], ...]
    seconds: tuple[float, ...]
    ended: str

    @property
    def lowest(self) -> float | None:
        """The least of `seconds`."""
        return min(self.seconds, default=None)

    @property
    def middle(self) -> float | None:
        """The median of `seconds`."""
        return median(self.seconds) if self.seconds else None

    @property
    def highest(self) -> float | None:
        """The most of `seconds`."""
        return max(self.seconds, default=None)


@dataclass(frozen=True)
class Phase:
    """A phase: for each round its start and duration in seconds, None where the round did not come so far."""

    name: str
    starts: tuple[float | None, ...]
    seconds: tuple[float | None, ...]


def round_samples(records: Sequence[Record]) -> list[RoundSamples]:
    """Return the samples of each record."""
    rounds = []
    for record in records:
        samples = [iteration for iteration in record.iterations if iteration.phase == "sample"]
        rounds.append(
            RoundSamples(
                round=record.configuration.round,
                in_order=tuple((each.end_to_end_seconds, each.observed) for each in samples),
                seconds=tuple(each.end_to_end_seconds for each in samples if each.observed),
                ended=record.stopped_because or record.status.replace("_", " "),
            )
        )
    return rounds


def phases(records: Sequence[Record]) -> list[Phase]:
    """Return the phases in the order in which they began, each lasting until the next one of its round began."""
    spans = [_spans(record) for record in records]
    names = list(dict.fromkeys(name for span in spans for name in span))
    return [
        Phase(
            name,
            tuple(span[name][0] if name in span else None for span in spans),
            tuple(span[name][1] if name in span else None for span in spans),
        )
        for name in names
    ]


def _spans(record: Record) -> dict[str, tuple[float, float]]:
    """Return start and duration of each phase; what was before the first is the start of the worker."""
    moments = sorted(record.timeline.items(), key=lambda item: item[1])
    if moments and moments[0][0] != _END:
        moments = [("start", 0.0), *moments]
    return {name: (start, end - start) for (name, start), (_, end) in pairwise(moments)}
