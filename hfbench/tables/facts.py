"""What the table of points says of a record: its columns and how each is taken from the record's JSON."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from hfbench.core.point import UNIFORM
from hfbench.tables.metrics import STATUS

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
    for column, is_counter in ((energy_joules, True), (power_watts, False)):
        readings = [(at, value) for at, value in zip(time_seconds, column or (), strict=False) if value is not None]
        inside = [at for at, _ in readings if start <= at <= end]
        is_covered = bool(readings) and readings[0][0] <= start and readings[-1][0] >= end
        if is_covered and len(inside) >= LEAST_ENERGY_READINGS and tokens > 0:
            corners, (times, values) = [start, *inside, end], zip(*readings, strict=True)
            line = np.interp(corners, times, values)
            return float(line[-1] - line[0] if is_counter else np.trapezoid(line, corners)) / tokens
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


CPU_HEAT = "cpu_heat"  # beside the reasons that a device's driver names


def machine_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a record's `monitoring` and `machine_before`; None where they tell nothing.

    All but those named `before` are of the time from the first sample's start to the last one's end. Where there are
    several devices, energy is the sum and the rest the worst of them; without one, energy and clock are the CPU's.
    After a context there is no energy of a token: filling the cache between two samples takes energy too.
    """
    before, span = content["machine_before"], _Span(content)
    devices = [_Readings(device, span) for device in span.monitoring.get("devices", ())]
    host = _Readings(span.monitoring.get("host", {}), span)
    counts = [device.get("other_processes") for device in before.get("devices", ())]
    busy = before.get("cpu_percent")
    clocked = [device.column("clock_mhz") for device in devices] or [host.column("cpu_highest_clock_mhz")]
    return {
        "energy_joules_per_token": None if span.has_context else _energy(host, devices, span),
        "throttle_reasons": _throttle_reasons(host, devices, span),
        "quota_throttled_share": _quota_share(host, span),
        "clock_mhz": _largest([_median(column[span.within]) for column in clocked]),
        "clock_spread": _largest([clocks_changed(column, span.within) for column in clocked]),
        "other_processes": _largest([*counts, *(_most(device.column("other_processes"), span) for device in devices)]),
        "others_cpu_share": _others_share(host, span),
        "cpu_share_before": None if busy is None else busy / 100,
        "swap_used_bytes": _largest([before.get("swap_used_bytes"), _most(host.column("swap_used_bytes"), span)]),
    }


class _Span:
    """The time in which samples were taken, and which of the monitor's readings fall into it."""

    def __init__(self, content: dict[str, Any]) -> None:
        samples = [iteration for iteration in content["iterations"] if iteration["phase"] == "sample"]
        self.monitoring = content["monitoring"]
        self.has_context = bool(content.get("configuration", {}).get("context_depth"))
        self.time_seconds: Sequence[float] = self.monitoring.get("time_seconds", ())
        self.start = samples[0]["start_seconds"] if samples else 0.0
        self.end = samples[-1]["start_seconds"] + samples[-1]["call_seconds"] if samples else 0.0
        self.tokens = sum(sum(iteration["new_tokens"]) for iteration in samples)
        self.within = readings_within(self.time_seconds, self.start, self.end) if samples else slice(0, 0)


class _Readings:
    """The columns of the host or of one device."""

    def __init__(self, content: dict[str, Any], span: _Span) -> None:
        self.content = content
        self._series = content.get("series", {})
        self._empty = [None] * len(span.time_seconds)

    def column(self, name: str) -> Column:
        """Return a column, all None where it was not to be had."""
        column: Column = self._series.get(name, self._empty)
        return column


def _energy(host: _Readings, devices: Sequence[_Readings], span: _Span) -> float | None:
    columns = [
        {"energy_joules": device.column("energy_joules"), "power_watts": device.column("power_watts")}
        for device in devices
    ] or [{"energy_joules": host.column("cpu_energy_joules")}]
    found = [energy_per_token(span.time_seconds, span.start, span.end, span.tokens, **column) for column in columns]
    known = [energy for energy in found if energy is not None]
    return sum(known) if len(known) == len(found) else None


def _throttle_reasons(host: _Readings, devices: Sequence[_Readings], span: _Span) -> list[str]:
    heat = increase(host.column("cpu_throttle_count"), span.within)
    reasons = [CPU_HEAT] if heat else []
    for device in devices:
        reasons += throttled(device.column("throttle_mask"), device.content.get("throttle_reasons", {}), span.within)
    return list(dict.fromkeys(reasons))


def _quota_share(host: _Readings, span: _Span) -> float | None:
    seconds = increase(host.column("quota_throttled_seconds"), span.within)
    return None if seconds is None or span.end <= span.start else seconds / (span.end - span.start)


def _others_share(host: _Readings, span: _Span) -> float | None:
    cores = host.content.get("logical_cores", 1)
    others = others_cpu_cores(host.column("cpu_percent"), host.column("worker_cpu_cores"), cores, span.within)
    return None if others is None else others / cores


def _most(column: Column, span: _Span) -> Any:
    return _largest(column[span.within])


def _median(values: Column) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _largest(values: Column) -> Any:
    return max((value for value in values if value is not None), default=None)


REQUEST_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "requests": pl.Int64,
    "prompt_tokens": pl.Int64,
    "new_tokens": pl.Int64,
    "padding_waste_share": pl.Float64,
}


def request_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return a value for each of `REQUEST_TYPES`: of a record's requests together, None where it does not tell.

    `padding_waste_share` is None where all lengths are alike, and 0 for continuous batching that pads nothing.
    """
    axes, effective = content["configuration"], content["effective"]
    if axes["request_lengths"] == UNIFORM:
        return uniform_facts(axes)
    lengths = content["requested"].get("requests")
    if lengths is None:
        return dict.fromkeys(REQUEST_TYPES)
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


def uniform_facts(axes: dict[str, Any]) -> dict[str, Any]:
    """Return the same for rows that are all alike, from the axes of a point."""
    rows = axes["batch_size"]
    return {
        "requests": rows,
        "prompt_tokens": rows * axes["sequence_length"],
        "new_tokens": rows * axes["max_new_tokens"],
        "padding_waste_share": None,
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


FACT_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "status": STATUS,
    "reason": pl.String,
    "phase": pl.String,
    "device": pl.String,
    "device_name": pl.String,
    "started_at": pl.String,
    "stopped_because": pl.String,
    "target_precision": pl.Float64,
    "warmup_steady": pl.Boolean,
    "recompiles_while_sampling": pl.Int64,
    "prompt_nll": pl.Float64,
    "load_seconds": pl.Float64,
    "first_call_seconds": pl.Float64,
    "compile_seconds": pl.Float64,
    "warm_first_call_seconds": pl.Float64,
    "warm_compile_seconds": pl.Float64,
    "peak_memory_bytes": pl.Int64,
    "energy_joules_per_token": pl.Float64,
    "throttle_reasons": pl.List(pl.String),
    "quota_throttled_share": pl.Float64,
    "clock_mhz": pl.Float64,
    "clock_spread": pl.Float64,
    "other_processes": pl.Int64,
    "others_cpu_share": pl.Float64,
    "cpu_share_before": pl.Float64,
    "swap_used_bytes": pl.Int64,
    "intra_op_threads": pl.Int64,
    "clock_resolution_seconds": pl.Float64,
    "kernels": pl.List(pl.String),
    **REQUEST_TYPES,
    "environment_sha256": pl.String,
    "manifest_sha256": pl.String,
    "inputs_sha256": pl.String,
}
_STATUSES = frozenset(STATUS.categories)
_SHORT_HASH = 12  # digits that tell two commits or folders apart, and a reader can compare
_PRECISION = "precision"  # the stopping rule that asks for `target_precision`


def record_facts(content: dict[str, Any]) -> dict[str, Any]:
    """Return a value for each of `FACT_TYPES`, None where the record does not tell.

    `target_precision` is None where the stopping rule asks for none. Raises `AttributeError`, `KeyError`, `TypeError`
    or `ValueError` where the record holds something else than it should.
    """
    if content["status"] not in _STATUSES:
        raise ValueError(f"{content['status']!r} is no status")
    sampling, effective, provenance = content["sampling"], content["effective"], content["provenance"]
    compilation = effective.get("compilation") or {}
    return {
        "status": content["status"],
        "reason": _optional(str, content["reason"]),
        "phase": _optional(str, content["phase"]),
        "device": str(content["device"]),
        "device_name": _optional(str, effective.get("device_name")),
        "started_at": str(content["started_at"]),
        "stopped_because": _optional(str, content["stopped_because"]),
        "target_precision": float(sampling["target_precision"]) if sampling["stopping_rule"] == _PRECISION else None,
        "warmup_steady": _optional(bool, content["warmup_steady"]),
        "recompiles_while_sampling": _optional(len, compilation.get("recompiles_while_sampling")),
        "prompt_nll": _optional(float, content["output"].get("prompt_nll")),
        "load_seconds": _optional(float, content["load_seconds"]),
        "first_call_seconds": _optional(float, content["first_call_seconds"]),
        # What was not asked to compile has no compile time, rather than none of it.
        "compile_seconds": _optional(float, compilation.get("seconds")) if compilation.get("graphs") else None,
        "warm_first_call_seconds": _optional(float, content["warm_start"].get("first_call_seconds")),
        "warm_compile_seconds": _optional(float, content["warm_start"].get("compile_seconds")),
        "peak_memory_bytes": _optional(int, content["memory"].get("peak_bytes")),
        **machine_facts(content),
        "intra_op_threads": _optional(int, effective.get("intra_op_threads")),
        "clock_resolution_seconds": _optional(float, effective.get("clock_resolution_seconds")),
        "kernels": _kernels(effective.get("kernelized_layers", ())),
        **request_facts(content),
        **{f"{name}_sha256": _optional(str, provenance.get(name)) for name in ("environment", "manifest", "inputs")},
    }


def _kernels(layers: Iterable[dict[str, Any]]) -> list[str]:
    """Return what replaced each kind of layer, each in one line, such as `RMSNorm: OWNER/NAME@1a2b3c4d5e6f`."""
    return list(dict.fromkeys(f"{layer['layer']}: {kernel_origin(layer)}" for layer in layers if layer["replaced"]))


def kernel_origin(layer: Mapping[str, Any]) -> str:
    """Return where a kernel came from: `OWNER/NAME@1a2b3c4d5e6f`, `FOLDER sha256:1a2b3c4d5e6f`, or its function."""
    if "repository" in layer:
        return f"{layer['repository']}@{layer['revision'][:_SHORT_HASH]}"
    if "path" in layer:
        return f"{layer['path']} sha256:{layer['sha256'][:_SHORT_HASH]}"
    return str(layer["kernel"])


def _optional(convert: Any, value: Any) -> Any:
    """Return the converted value, or None for None."""
    return None if value is None else convert(value)
