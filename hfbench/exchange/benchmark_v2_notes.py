"""What to know of numbers that come from benchmark_v2, in sentences."""

from collections.abc import Sequence

from hfbench.exchange.benchmark_v2_file import Entry
from hfbench.exchange.benchmark_v2_layout import compile_mode_of
from hfbench.exchange.benchmark_v2_times import inter_token_factor, step_seconds

# Keys of a config in some version that are no axis: what they say does not part configurations, or is elsewhere.
_NO_AXES = {"name", "gpu_monitoring", "use_cache", "compilation", "compile_options", "device"}


def notes(entries: Sequence[Entry], lengths: Sequence[int | None]) -> tuple[str, ...]:
    """Return the notes; `lengths` are the prompt tokens of the entries, None for one that was left out.

    Of an export of hfbench there is nothing to say.
    """
    foreign = [
        (entry, length) for entry, length in zip(entries, lengths, strict=True) if entry.metadata.hfbench is None
    ]
    kept = [entry for entry, length in foreign if length is not None]
    found = [
        _left_out([entry for entry, length in foreign if length is None]),
        _relabelled(
            [(entry, length) for entry, length in foreign if length not in (None, entry.config.sequence_length)]
        ),
        _steps(kept),
        _inter_token(kept),
        _requests(kept),
        _unverified(kept),
        _unknown(kept),
        "The dtype is taken to be bfloat16, which benchmark_v2 always loads; its batches are copies of one prompt."
        if kept
        else "",
    ]
    return tuple(note for note in found if note)


def _left_out(entries: Sequence[Entry]) -> str:
    if not entries:
        return ""
    return (
        f"{_entries(len(entries))} left out, of sequence_length {_listed(entries)}: benchmark_v2 measures its prompt "
        "under any longer length, and the file does not tell how many tokens it had. --prompt-tokens tells it."
    )


def _relabelled(entries: Sequence[tuple[Entry, int | None]]) -> str:
    if not entries:
        return ""
    lengths = ", ".join(str(length) for length in sorted({length for _, length in entries if length}))
    labels = _listed([entry for entry, _ in entries])
    return f"{_entries(len(entries))} of sequence_length {labels} had {lengths} prompt tokens, and stand under that."


def _steps(entries: Sequence[Entry]) -> str:
    steps = [step for entry in entries if (step := step_seconds(entry)) is not None]
    if not steps:
        return ""
    return (
        f"Token times are known to {max(steps) * 1e3:.3g} ms only, since benchmark_v2 kept them in float32; the "
        "end-to-end latency is exact."
    )


def _inter_token(entries: Sequence[Entry]) -> str:
    corrected = [each for each in entries if _is_summarised(each) and not each.config.continuous_batching]
    factors = sorted({inter_token_factor(entry) for entry in corrected if entry.measurements.e2e_latency})
    if not factors or factors == [1.0]:
        return ""
    shown = " to ".join(f"{factor:.4g}" for factor in dict.fromkeys((factors[0], factors[-1])))
    return f"inter_token_latency is multiplied by {shown}: benchmark_v2 divides it by more gaps than there are."


def _requests(entries: Sequence[Entry]) -> str:
    if not any(_is_summarised(each) and each.config.continuous_batching for each in entries):
        return ""
    return (
        "Of continuous batching without timestamps only the length of the call is known: benchmark_v2 mixes the "
        "requests in its other numbers."
    )


def _unverified(entries: Sequence[Entry]) -> str:
    words = ["compiled"] * any(compile_mode_of(entry.config.model_dump()) != "off" for entry in entries)
    words += ["kernelized"] * any(entry.config.kernelize for entry in entries)
    if not words:
        return ""
    return f"That what is labelled {' and '.join(words)} really was so, benchmark_v2 does not verify."


def _unknown(entries: Sequence[Entry]) -> str:
    """Say which keys of the configs are read over: a later version may measure what hfbench has no axis for."""
    extra = (entry.config.model_extra or {} for entry in entries)
    found = {name for each in extra for name, value in each.items() if value and name not in _NO_AXES}
    if not found:
        return ""
    return f"Not known here, and so taken to change nothing: {', '.join(sorted(found))} in the configs."


def _is_summarised(entry: Entry) -> bool:
    return entry.measurements.timestamps is None


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _listed(entries: Sequence[Entry]) -> str:
    return ", ".join(map(str, sorted({entry.config.sequence_length for entry in entries})))
