"""The times of a benchmark_v2 file as hfbench defines them, and how exact they are.

What must be known of how they were made (benchmark_runner.py, data_classes.py):

- The streamer of `generate` notes a time for the prompt, which is left out, for each of the n tokens, and for the end:
  a list of n + 1, the last of which is no token's.
- `inter_token_latency` is (end - first) / n for it, and (end - first) / (n + 1) in the versions without `timestamps`.
  The end follows the last token at once, so that (last - first) / (n - 1) is n / (n - 1), or (n + 1) / (n - 1), times
  that.
- `generate_batch` has a list of n for each request. `time_to_first_token` is then that of the earliest request and
  `inter_token_latency` a mean over them, where hfbench has the medians: they can be used only with `timestamps`. In the
  versions without, all requests stood in one list.
- `e2e_latency` is the whole call, which for `generate_batch` goes on until its thread has stopped.
- The timestamps went through float32 as readings of `time.perf_counter`, whose steps grow with the uptime of the
  machine (62 ms after 12 days), and with them the first two. `e2e_latency` did not.
"""

from collections.abc import Iterable, Sequence

from hfbench.exchange.benchmark_v2_file import Entry
from hfbench.foundation.errors import UserError
from hfbench.tables.foreign import ForeignSample

# A float64 that was measured is a multiple of no coarser step by chance: most of its bits would have to be zero.
_FINEST_STEP_SECONDS = 2**-24


def foreign_samples(entry: Entry) -> tuple[ForeignSample, ...]:
    """Return the samples of an entry. Raises `UserError` where the timestamps are not those of its tokens."""
    measured = entry.measurements
    return tuple(_sample(entry, index) for index in range(len(measured.e2e_latency)))


def step_seconds(entry: Entry) -> float | None:
    """Return the step in which an entry's token times were kept, None where they are as exact as float64."""
    measured = entry.measurements
    if measured.timestamps is None:
        times: Iterable[float] = measured.time_to_first_token
    else:
        times = (at for iteration in measured.timestamps for stamps in iteration for at in stamps)
    # A float is a whole number over a power of two: the largest such denominator is the step.
    step = 1 / max((at.as_integer_ratio()[1] for at in times), default=2**60)
    return step if step > _FINEST_STEP_SECONDS else None


def _sample(entry: Entry, index: int) -> ForeignSample:
    call_seconds = entry.measurements.e2e_latency[index]
    is_batched = entry.config.continuous_batching
    if entry.measurements.timestamps is not None:
        tokens = _token_seconds(entry, entry.measurements.timestamps[index])
        end = max(stamps[-1] for stamps in tokens) if is_batched else call_seconds
        # A coarse step may put the first token before the start.
        return ForeignSample(end, call_seconds, tokens if min(stamps[0] for stamps in tokens) > 0 else ())
    if is_batched:
        return ForeignSample(None, call_seconds)
    first = entry.measurements.time_to_first_token[index]
    gap = entry.measurements.inter_token_latency[index]
    return ForeignSample(
        end_to_end_seconds=call_seconds,
        call_seconds=call_seconds,
        time_to_first_token_seconds=first if first > 0 else None,
        inter_token_seconds=None if gap is None or gap <= 0 else gap * inter_token_factor(entry),
    )


def inter_token_factor(entry: Entry) -> float:
    """Return what makes `inter_token_latency` of `generate` the mean gap between tokens; see above."""
    tokens = entry.config.num_tokens_to_generate
    divided_by = tokens if entry.has_timestamps_key else tokens + 1
    return divided_by / (tokens - 1) if tokens > 1 else 1.0


def _token_seconds(entry: Entry, iteration: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    tokens, is_batched = entry.config.num_tokens_to_generate, entry.config.continuous_batching
    lists = entry.config.batch_size if is_batched else 1
    lengths = {len(stamps) for stamps in iteration}
    with_end = tokens + 1
    if len(iteration) != lists or not (lengths == {tokens} or (lengths == {with_end} and not is_batched)):
        raise UserError(
            f"{entry.source}: an iteration has {len(iteration)} lists of {sorted(lengths)} timestamps, and {lists} of "
            f"{tokens} were expected for batch size {entry.config.batch_size} and {tokens} new tokens."
        )
    return tuple(tuple(stamps[:tokens]) for stamps in iteration)
