"""The samples of records as the measurements of benchmark_v2."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hfbench.foundation.records import Iteration, Record

_GIB = 2**30


def samples_of(record: Record) -> list[Iteration]:
    """Return the iterations that become measurements: those with token times, since each of theirs has them."""
    return [iteration for iteration in record.iterations if iteration.phase == "sample" and iteration.observed]


def measurements(records: Sequence[Record]) -> dict[str, Any]:
    """Return `BenchmarkResult.to_dict()` of the samples of these rounds, one after the other.

    Times are float64 seconds from the start of each call. `time_to_first_token` is that of the first request to have
    one, `inter_token_latency` the mean over the requests of (last - first) / (n - 1), null for one token, as
    `BenchmarkResult` computes them; `timestamps` has a list a request, or one for the whole batch.
    """
    samples = [(record, iteration) for record in records for iteration in samples_of(record)]
    gpu_metrics = [_gpu_metrics(record, iteration) for record, iteration in samples]
    return {
        "e2e_latency": [iteration.call_seconds for _, iteration in samples],
        "time_to_first_token": [min(times[0] for times in each.token_seconds) for _, each in samples],
        "inter_token_latency": [_inter_token_latency(iteration) for _, iteration in samples],
        "shape_and_decoded_outputs": [_shape_and_output(record, iteration) for record, iteration in samples],
        "gpu_metrics": gpu_metrics if any(metrics is not None for metrics in gpu_metrics) else None,
        "timestamps": [[list(times) for times in iteration.token_seconds] for _, iteration in samples],
    }


def _inter_token_latency(iteration: Iteration) -> float | None:
    gaps = [(times[-1] - times[0]) / (len(times) - 1) for times in iteration.token_seconds if len(times) > 1]
    return sum(gaps) / len(gaps) if gaps else None


def _shape_and_output(record: Record, iteration: Iteration) -> str:
    """Return shape and text as theirs; a record decodes the beginning of the first row, of one iteration."""
    shape = (record.configuration.batch_size, max(iteration.new_tokens))
    return f"{shape} | {record.output.get('text') or ''}"


def _gpu_metrics(record: Record, iteration: Iteration) -> dict[str, Any] | None:
    """Return `GPURawMetrics.to_dict()` of the first device while the iteration ran; None where there is none."""
    devices = record.monitoring.get("devices") or []
    if not devices:
        return None
    series: Mapping[str, Sequence[float | None]] = devices[0].get("series", {})
    end = iteration.start_seconds + iteration.call_seconds
    rows = [
        (at, utilisation, used)
        for at, utilisation, used in zip(
            record.monitoring["time_seconds"],
            series.get("utilisation_percent", ()),
            series.get("memory_used_bytes", ()),
            strict=False,
        )
        if iteration.start_seconds <= at <= end and None not in (utilisation, used)
    ]
    first = rows[0][0] if rows else 0.0
    return {
        "utilization": [utilisation for _, utilisation, _ in rows],
        "memory_used": [used / _GIB for _, _, used in rows if used is not None],
        "timestamps": [at - first for at, _, _ in rows],
        "timestamp_0": _epoch_seconds(record) + first if rows else 0.0,
        "monitoring_status": "success" if rows else "no_samples_collected",
    }


def _epoch_seconds(record: Record) -> float:
    return datetime.fromisoformat(record.started_at).timestamp() if record.started_at else 0.0
