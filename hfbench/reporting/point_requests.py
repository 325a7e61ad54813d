"""The requests of a point, each with its own latencies: where they do not advance in step."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from hfbench.foundation.configuration import UNIFORM
from hfbench.foundation.records import OK, Record


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
