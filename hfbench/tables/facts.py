"""What the table of points says of a record: its columns and how each is taken from the record's JSON."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from itertools import chain, pairwise
from math import inf
from operator import or_
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from hfbench.core.point import UNIFORM
from hfbench.core.record import STATUSES, Iteration
from hfbench.tables.metrics import STATUS

Column = Sequence[float | None]

# A counter or a power reading is the device's latest, up to one interval old at each end of the span: with ten
# readings in it, both ends together are off by a fifth of the span at most, and typically by far less.
LEAST_ENERGY_READINGS = 10
# These say that the clock was low and not that the device could not keep up: it had no work, or a person set it so.
NOT_THROTTLING = ("gpu_idle", "applications_clocks_setting", "display_clock_setting")


def start_time(text: str | None) -> datetime | None:
    """Return when a record was begun, from the column `started_at`; None where it does not tell."""
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


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
    for column, is_counter in ((energy_joules, True), (power_watts, False)):
        readings = [(at, value) for at, value in zip(time_seconds, column or (), strict=False) if value is not None]
        inside = [at for at, _ in readings if start <= at <= end]
        is_covered = bool(readings) and readings[0][0] <= start and readings[-1][0] >= end
        if is_covered and len(inside) >= LEAST_ENERGY_READINGS and tokens > 0:
            corners, (times, values) = [start, *inside, end], zip(*readings, strict=True)
            line = np.interp(corners, times, values)
            return float(line[-1] - line[0] if is_counter else np.trapezoid(line, corners)) / tokens
    return None


CPU_HEAT = "cpu_heat"  # beside the reasons that a device's driver names


def machine_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a record's `monitoring` and `machine_before`; None where they tell nothing.

    All but those named `before` are of the time from the first sample's start to the last one's end. Where there are
    several devices, energy is the sum and the rest the worst of them; on the CPU, energy and clock are its own.
    After a context there is no energy of a token: filling the cache between two samples takes energy too.
    """
    before, span = content["machine_before"], _Span(content)
    busy, counts = before.get("cpu_percent"), [each.get("other_processes") for each in before.get("devices", ())]
    clocks = span.of_devices("clock_mhz")
    if not clocks and span.on_cpu:
        clocks = [span.known(span.host, "cpu_highest_clock_mhz")]
    withheld = span.increase("quota_throttled_seconds")
    spreads = [(max(each) - min(each)) / median(each) for each in clocks if len(each) > 1 and median(each) > 0]
    return {
        "monitor_readings": span.readings(),
        "energy_joules_per_token": None if content.get("configuration", {}).get("context_depth") else _energy(span),
        "throttle_reasons": _throttle_reasons(span),
        "quota_throttled_share": withheld / (span.end - span.start) if withheld is not None else None,
        "clock_mhz": _largest(median(each) for each in clocks if each),
        "clock_spread": _largest(spreads),
        "other_processes": _largest([*counts, *chain(*span.of_devices("other_processes"))]),
        "others_cpu_share": _others_share(span),
        "cpu_share_before": None if busy is None else busy / 100,
        "swap_used_bytes": _largest([before.get("swap_used_bytes"), *span.known(span.host, "swap_used_bytes")]),
    }


class _Span:
    """The time in which samples were taken, and which of the monitor's readings fall into it."""

    def __init__(self, content: dict[str, Any]) -> None:
        samples = [iteration for iteration in content["iterations"] if iteration["phase"] == "sample"]
        self._monitoring = monitoring = content["monitoring"]
        self.time_seconds: Sequence[float] = monitoring.get("time_seconds", ())
        self.start = samples[0]["start_seconds"] if samples else inf
        self.end = samples[-1]["start_seconds"] + samples[-1]["call_seconds"] if samples else -inf
        self.tokens = sum(sum(iteration["new_tokens"]) for iteration in samples)
        self.host: dict[str, Any] = monitoring.get("host", {})
        self.devices: Sequence[dict[str, Any]] = monitoring.get("devices", ())
        self.on_cpu = content.get("effective", {}).get("device", "cpu") == "cpu"

    def readings(self) -> int | None:
        """Return how many readings there are, on an accelerator those of the device. None where nothing was kept."""
        if self.end < self.start or "time_seconds" not in self._monitoring:
            return None
        if self.on_cpu and not self.devices:
            return len(self.within(self.time_seconds))
        columns = [self.within(column) for device in self.devices for column in device.get("series", {}).values()]
        return sum(any(value is not None for value in reading) for reading in zip(*columns, strict=True))

    def column(self, part: dict[str, Any], name: str) -> Column:
        """Return all readings of the host or of a device, None where it was not to be had."""
        column: Column = part.get("series", {}).get(name, [None] * len(self.time_seconds))
        return column

    def within(self, column: Column, before: int = 0) -> Column:
        """Return what was read from start to end, both included, and so many readings before."""
        first = bisect_left(self.time_seconds, self.start)
        return column[max(0, first - before) : bisect_right(self.time_seconds, self.end)]

    def known(self, part: dict[str, Any], name: str, before: int = 0) -> list[float]:
        """Return the same of a column of the host or of a device, without None."""
        return [value for value in self.within(self.column(part, name), before) if value is not None]

    def of_devices(self, name: str) -> list[list[float]]:
        """Return the same of each device."""
        return [self.known(device, name) for device in self.devices]

    def increase(self, name: str) -> float | None:
        """Return by how much a counter of the host grew, from the reading before the first; None below two readings."""
        readings = self.known(self.host, name, before=1)
        return readings[-1] - readings[0] if len(readings) > 1 else None


def _energy(span: _Span) -> float | None:
    columns = [(span.column(each, "energy_joules"), span.column(each, "power_watts")) for each in span.devices]
    found = [
        energy_per_token(span.time_seconds, span.start, span.end, span.tokens, energy_joules=joules, power_watts=watts)
        for joules, watts in columns or ([(span.column(span.host, "cpu_energy_joules"), ())] if span.on_cpu else [])
    ]
    known = [energy for energy in found if energy is not None]
    return sum(known) if known and len(known) == len(found) else None


def _throttle_reasons(span: _Span) -> list[str]:
    """Return the names of the reasons for which a device, or the processor, ran slower than it can."""
    reasons = [CPU_HEAT] if span.increase("cpu_throttle_count") else []
    for device, masks in zip(span.devices, span.of_devices("throttle_mask"), strict=True):
        seen = reduce(or_, map(int, masks), 0)
        reasons += [name for name, bit in device.get("throttle_reasons", {}).items() if seen & bit]
    return [name for name in dict.fromkeys(reasons) if name not in NOT_THROTTLING]


def _others_share(span: _Span) -> float | None:
    """Return the share of the cores that others than the worker kept busy, the median over the samples, at least 0.

    The kernel counts the machine's time in ticks of 10 ms: a single sample is coarse.
    """
    cores = span.host.get("logical_cores", 1)
    columns = (span.within(span.column(span.host, name)) for name in ("cpu_percent", "worker_cpu_cores"))
    pairs = [pair for pair in zip(*columns, strict=True) if None not in pair]
    return max(0.0, median(machine / 100 * cores - worker for machine, worker in pairs)) / cores if pairs else None


def _largest(values: Iterable[float | None]) -> Any:
    return max((value for value in values if value is not None), default=None)


def request_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return how many a record's requests are, and their tokens together, None where it does not tell.

    `padding_waste_share` is None where all lengths are alike, and 0 for continuous batching that pads nothing.
    """
    axes, effective = content["configuration"], content["effective"]
    if axes["request_lengths"] == UNIFORM:
        rows, prompt_tokens, new_tokens = (axes[name] for name in ("batch_size", "sequence_length", "max_new_tokens"))
        return {"requests": rows, "prompt_tokens": rows * prompt_tokens, "new_tokens": rows * new_tokens}
    lengths = content["requested"].get("requests")
    if lengths is None:
        return {}
    prompts, new_tokens = lengths["prompt_tokens"], lengths["new_tokens"]
    batching = effective.get("continuous_batching_config") or {}
    waste = 0.0 if batching.get("pads_inputs") is False else None
    if effective.get("batches"):
        waste = padding_waste_share(prompts, new_tokens, effective["batches"])
    return {
        "requests": len(prompts),
        "prompt_tokens": sum(prompts),
        "new_tokens": sum(new_tokens),
        "padding_waste_share": waste,
    }


def padding_waste_share(prompt_tokens: list[int], new_tokens: list[int], batches: list[dict[str, int]]) -> float:
    """Return the share of the token positions that the model computed for padding or for surplus new tokens.

    share = 1 - sum over requests of (p + n - 1) / sum over batches of rows × (P + N - 1)

    A request of p prompt tokens needs p positions in the prefill, whose last one gives its first new token, and one in
    each of the n - 1 decoding steps after it. A padded batch computes P of its longest prompt and N of its most new
    tokens for each of its rows.
    """
    needed = sum(prompt + new - 1 for prompt, new in zip(prompt_tokens, new_tokens, strict=True))
    computed = sum(batch["rows"] * (batch["padded_prompt_tokens"] + batch["new_tokens"] - 1) for batch in batches)
    return 1 - needed / computed


def _share(sharing: Mapping[str, int] | None) -> float | None:
    return sharing["shared_tokens"] / sharing["prompt_tokens"] if sharing and sharing["prompt_tokens"] else None


def timed_requests(iteration: Iteration) -> list[tuple[float, tuple[float, ...]]]:
    """Return for each list of token times when its request arrived, in seconds from the start, and the times."""
    arrivals = iteration.arrival_seconds or (0.0,) * len(iteration.token_seconds)
    return list(zip(arrivals, iteration.token_seconds, strict=True))


def mean_gap(times: Sequence[float]) -> float | None:
    """Return (last - first) over the tokens after the first step, in seconds; None for one step.

    The formula of `inter_token_seconds` in `hfbench.tables.metrics`, of one request.
    """
    later = len(times) - times.count(times[0])
    return (times[-1] - times[0]) / later if later else None


def draft_facts(drafting: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Return what a record says of the drafts of a whole call; empty where nothing drafted."""
    if not drafting:
        return {}
    steps, proposed, accepted = (drafting[name] for name in ("steps", "proposed_tokens", "accepted_tokens"))
    return {
        "tokens_per_step": (steps + accepted) / steps,
        "draft_acceptance_share": accepted / proposed if proposed else None,
        "draft_time_share": drafting["draft_seconds"] / drafting["call_seconds"],
    }


_FEWEST_GAPS = 8  # of an iteration, for their median to be that of the usual step
_FEWEST_ITERATIONS = 3  # in which a token comes late by chance, each time the same one, once in more than fifty


def recurring_gap(iterations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the gap that stands out most in each of the samples, before one and the same token, and that token.

    `recurring_gap_ratio` is that gap over its iteration's median gap, which three of four iterations reach: in one, the
    machine may have been slow at all the others. Both are None where requests do not advance in step, where tokens come
    several at a time, and where there are too few gaps or iterations.
    """
    times = [each["token_seconds"] for each in iterations if each["phase"] == "sample" and each["token_seconds"]]
    gaps = [[late - early for early, late in pairwise(lists[0])] for lists in times if len(lists) == 1]
    drafted = any(0.0 in each for each in gaps)  # steps differ by what they had drafted
    if drafted or len(gaps) < max(_FEWEST_ITERATIONS, len(times)) or min(map(len, gaps)) < _FEWEST_GAPS:
        return {"recurring_gap_ratio": None, "recurring_gap_token": None}
    ratios = [[gap / (median(each) or inf) for gap in each] for each in gaps]
    least = [sorted(column)[len(column) // 4] for column in zip(*ratios, strict=True)]  # three of four reach it
    largest = max(range(len(least)), key=lambda index: least[index])
    return {"recurring_gap_ratio": least[largest], "recurring_gap_token": largest + 2}  # the first has no gap before it


# Columns, their types, and where in a record each stands; the others are computed.
_COLUMNS: dict[str, tuple[pl.DataType | type[pl.DataType], str | None]] = {
    "status": (STATUS, "status"),
    "reason": (pl.String, "reason"),
    "phase": (pl.String, "phase"),
    "device": (pl.String, "device"),
    "device_name": (pl.String, "effective.device_name"),
    "started_at": (pl.String, "started_at"),
    "node": (pl.String, "provenance.node"),
    "stopped_because": (pl.String, "stopped_because"),
    "target_precision": (pl.Float64, None),
    "iterations_asked": (pl.Int64, None),
    "iterations_sampled": (pl.Int64, None),
    "asked_iterations_seconds": (pl.Float64, None),
    "warmup_steady": (pl.Boolean, "warmup_steady"),
    "recompiles_while_sampling": (pl.Int64, None),
    "prompt_nll": (pl.Float64, "output.prompt_nll"),
    "load_seconds": (pl.Float64, "load_seconds"),
    "first_call_seconds": (pl.Float64, "first_call_seconds"),
    "compile_seconds": (pl.Float64, None),
    "warm_first_call_seconds": (pl.Float64, "warm_start.first_call_seconds"),
    "warm_compile_seconds": (pl.Float64, "warm_start.compile_seconds"),
    "peak_memory_bytes": (pl.Int64, "memory.peak_bytes"),
    "load_peak_memory_bytes": (pl.Int64, "memory.load_peak_bytes"),
    "first_call_peak_memory_bytes": (pl.Int64, "memory.first_call_peak_bytes"),
    "prefill_peak_memory_bytes": (pl.Int64, "memory.prefill_peak_bytes"),
    "decode_peak_memory_bytes": (pl.Int64, "memory.decode_peak_bytes"),
    "kv_bytes_per_token": (pl.Float64, "effective.kv_bytes_per_token"),
    "prefix_hit_share": (pl.Float64, None),
    "tokens_per_step": (pl.Float64, None),
    "draft_acceptance_share": (pl.Float64, None),
    "draft_time_share": (pl.Float64, None),
    "energy_joules_per_token": (pl.Float64, None),
    "monitor_readings": (pl.Int64, None),
    "recurring_gap_ratio": (pl.Float64, None),
    "recurring_gap_token": (pl.Int64, None),
    "throttle_reasons": (pl.List(pl.String), None),
    "quota_throttled_share": (pl.Float64, None),
    "clock_mhz": (pl.Float64, None),
    "clock_spread": (pl.Float64, None),
    "other_processes": (pl.Int64, None),
    "others_cpu_share": (pl.Float64, None),
    "cpu_share_before": (pl.Float64, None),
    "swap_used_bytes": (pl.Int64, None),
    "intra_op_threads": (pl.Int64, "effective.intra_op_threads"),
    "clock_resolution_seconds": (pl.Float64, "effective.clock_resolution_seconds"),
    "tokens_handed_out_late": (pl.Boolean, "effective.tokens_handed_out_late"),
    "kernels": (pl.List(pl.String), None),
    "libraries": (pl.List(pl.String), None),
    "requests": (pl.Int64, None),
    "prompt_tokens": (pl.Int64, None),
    "new_tokens": (pl.Int64, None),
    "padding_waste_share": (pl.Float64, None),
    "environment_sha256": (pl.String, "provenance.environment"),
    "manifest_sha256": (pl.String, "provenance.manifest"),
    "input_tensors_sha256": (pl.String, "provenance.input_tensors"),
}
FACT_TYPES = {name: dtype for name, (dtype, _) in _COLUMNS.items()}
_CONVERT: dict[Any, Any] = {pl.String: str, pl.Float64: float, pl.Int64: int, pl.Boolean: bool, STATUS: str}
_SHORT_HASH = 12  # digits that tell two commits or folders apart, and a reader can compare
_PRECISION = "precision"  # the stopping rule that asks for `target_precision`


def record_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return a value for each of `FACT_TYPES`, None where the record does not tell.

    `target_precision` is None where the stopping rule asks for none. `iterations_sampled` are those with the token
    observer, of which `iterations_asked` is the least number that was asked for, and `asked_iterations_seconds` what
    those take with all around them, warm-up included. Raises `AttributeError`, `KeyError`,
    `TypeError` or `ValueError` where the record holds something else than it should.
    """
    if content["status"] not in STATUSES:
        raise ValueError(f"{content['status']!r} is no status")
    sampling, effective = content["sampling"], content["effective"]
    compilation = effective.get("compilation") or {}
    replaced = [layer for layer in effective.get("kernelized_layers", ()) if layer["replaced"]]
    told = {name: _told(content, path, _CONVERT[dtype]) for name, (dtype, path) in _COLUMNS.items() if path}
    recompiles = compilation.get("recompiles_while_sampling")
    return {
        **dict.fromkeys(FACT_TYPES),
        **told,
        "target_precision": float(sampling["target_precision"]) if sampling["stopping_rule"] == _PRECISION else None,
        "iterations_asked": int(sampling["min_iterations"]),
        "iterations_sampled": sum(each["phase"] == "sample" and each["observed"] for each in content["iterations"]),
        "asked_iterations_seconds": _seconds_of_asked(content["iterations"], sampling),
        "recompiles_while_sampling": None if recompiles is None else len(recompiles),
        # What was not asked to compile has no compile time, rather than none of it.
        "compile_seconds": _told(compilation, "seconds", float) if compilation.get("graphs") else None,
        **machine_facts(content),
        **recurring_gap(content["iterations"]),
        # Ranks share them out, which makes no other machine of it.
        "intra_op_threads": told["intra_op_threads"] if content["configuration"]["tp_size"] == 1 else None,
        "prefix_hit_share": _share(effective.get("prefix_sharing")),
        **draft_facts(content["output"].get("drafting")),
        # What replaced each kind of layer, as `RMSNorm: OWNER/NAME@1a2b3c4d5e6f`.
        "kernels": list(dict.fromkeys(f"{each['layer']}: {kernel_origin(each)}" for each in replaced)),
        # As `libgomp: libgomp.so.1 of torch, 168193 bytes`.
        "libraries": [
            f"{name}: {each['file']} of {each['owner']}, {each['size_bytes']} bytes"
            for name, each in content["effective"].get("libraries", {}).items()
        ],
        **request_facts(content),
    }


# Iterations of a warm-up that nothing prolongs, with one to spare.
_FURTHER_ITERATIONS = 3


def _seconds_of_asked(iterations: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]) -> float | None:
    """Return how long `min_iterations` with the token observer take, filling contexts and whatever is between them."""
    starts = [each["start_seconds"] for each in iterations if each["phase"] == "sample"]
    if len(starts) < 2:
        return None
    every = sampling["unobserved_every"]
    count = sampling["min_iterations"] * (every / (every - 1) if every > 1 else 1) + _FURTHER_ITERATIONS
    return float(count * (starts[-1] - starts[0]) / (len(starts) - 1))


def _told(content: Any, path: str, convert: Callable[[Any], Any]) -> Any:
    """Return what stands at a path such as `memory.peak_bytes`, converted, or None."""
    for name in path.split("."):
        content = content.get(name)
    return None if content is None else convert(content)


def kernel_origin(layer: Mapping[str, Any]) -> str:
    """Return where a kernel came from: `OWNER/NAME@1a2b3c4d5e6f`, `FOLDER sha256:1a2b3c4d5e6f`, or its function."""
    if "repository" in layer:
        return f"{layer['repository']}@{layer['revision'][:_SHORT_HASH]}"
    if "path" in layer:
        return f"{layer['path']} sha256:{layer['sha256'][:_SHORT_HASH]}"
    return str(layer["kernel"])
