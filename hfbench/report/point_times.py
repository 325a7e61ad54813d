"""The times of a point's rounds: its samples, and its phases from the start of the stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from hfbench.core.point import UNIFORM
from hfbench.core.record import OK, Record

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


@dataclass(frozen=True)
class RequestTimes:
    """One request: medians over the samples of all rounds, in seconds and tokens/s.

    `inter_token_seconds` is (last - first) / (n - 1), None for one token; `tokens_per_second` counts all n new tokens
    from the start of the iteration, when every request arrives, to the request's last one.
    """

    prompt_tokens: int
    new_tokens: int
    time_to_first_token_seconds: float
    inter_token_seconds: float | None
    tokens_per_second: float


def request_times(records: Sequence[Record]) -> list[RequestTimes]:
    """Return the requests in their order; none where all rows share their token times."""
    ok = [record for record in records if record.status == OK]
    samples = [
        iteration.token_seconds
        for record in ok
        for iteration in record.iterations
        if iteration.phase == "sample" and iteration.observed
    ]
    if not samples or len(samples[0]) < 2:
        return []
    prompts = _prompt_tokens(ok[0], len(samples[0]))
    return [_of_one(prompt, times) for prompt, times in zip(prompts, zip(*samples, strict=True), strict=True)]


def _prompt_tokens(record: Record, requests: int) -> list[int]:
    if record.configuration.request_lengths == UNIFORM:
        return [record.configuration.sequence_length] * requests
    lengths: list[int] = record.requested["requests"]["prompt_tokens"]
    return lengths


def _of_one(prompt_tokens: int, samples: Sequence[Sequence[float]]) -> RequestTimes:
    count = len(samples[0])
    gaps = [(times[-1] - times[0]) / (count - 1) for times in samples] if count > 1 else []
    return RequestTimes(
        prompt_tokens=prompt_tokens,
        new_tokens=count,
        time_to_first_token_seconds=median(times[0] for times in samples),
        inter_token_seconds=median(gaps) if gaps else None,
        tokens_per_second=median(count / times[-1] for times in samples),
    )


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
