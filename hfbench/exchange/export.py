"""Results for other programs: in the JSON layout of transformers' benchmark_v2, a file a model, or as flat tables.

Source: huggingface/transformers, benchmark_v2/framework/ (data_classes.py, benchmark_runner.py). A file holds an object
with an entry for each configuration under `BenchmarkConfig.hash`; an entry has `config` (`BenchmarkConfig.to_dict`),
`measurements` (`BenchmarkResult.to_dict`) and `metadata` (`BenchmarkMetadata.to_dict`).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.files import read_json, write_json, write_text
from hfbench.core.point import UNIFORM
from hfbench.core.record import OK, Iteration, Record
from hfbench.exchange.configs import EXTENSION, benchmark_config, config_hash
from hfbench.report.words import counted
from hfbench.tables.facts import FACT_TYPES, mean_gap, timed_requests
from hfbench.tables.store import MeasuredPoint, flat_csv, load_records, measured_points, read_table, write_table

_GIB = 2**30
_Rounds = Sequence[tuple[MeasuredPoint, Mapping[str, Any]]]  # points with their facts


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
        "time_to_first_token": [min(times[0] - at for at, times in timed_requests(each)) for _, each in samples],
        "inter_token_latency": [_inter_token_latency(iteration) for _, iteration in samples],
        # A record decodes the beginning of the first row, of one iteration.
        "shape_and_decoded_outputs": [
            f"{(record.configuration.batch_size, max(each.new_tokens))} | {record.output.get('text') or ''}"
            for record, each in samples
        ],
        "gpu_metrics": gpu_metrics if any(metrics is not None for metrics in gpu_metrics) else None,
        "timestamps": [[list(times) for times in iteration.token_seconds] for _, iteration in samples],
    }


def _inter_token_latency(iteration: Iteration) -> float | None:
    gaps = [gap for times in iteration.token_seconds if (gap := mean_gap(times)) is not None]
    return sum(gaps) / len(gaps) if gaps else None


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
    begun = datetime.fromisoformat(record.started_at).timestamp() if record.started_at else 0.0
    return {
        "utilization": [utilisation for _, utilisation, _ in rows],
        "memory_used": [used / _GIB for _, _, used in rows if used is not None],
        "timestamps": [at - first for at, _, _ in rows],
        "timestamp_0": begun + first if rows else 0.0,
        "monitoring_status": "success" if rows else "no_samples_collected",
    }


_TABLES = ("summary", "samples", "points")


def export_flat(tables: Path, output: Path, format_name: str) -> list[Path]:
    """Write each table to the folder `output` as NAME.csv or NAME.parquet (`format_name`), and return the files.

    Values have full precision and the units of their names. Parquet keeps all columns; in CSV the times of single
    tokens are left out, and lists are JSON. Raises `UserError` where a table is missing.
    """
    for name in _TABLES:
        table = read_table(tables, name)
        if format_name == "parquet":
            write_table(table, output, name)
        else:
            write_text(output / f"{name}.csv", flat_csv(table))
    return [output / f"{name}.{format_name}" for name in _TABLES]


def export_benchmark_v2(results: Path, output: Path) -> list[Path]:
    """Write the results in this folder, and return the files: `output` where it ends with .json, else files in it.

    Requests of unequal lengths are left out: an entry has one length for all, and would say something else than ran.
    Raises `UserError` where results are missing, or there are several models for one file: the layout tells entries
    apart by their config, which does not name the model.
    """
    points = read_table(results / "tables", "points")
    whole, points = points, points.filter(points["request_lengths"] == UNIFORM)
    if left_out := whole.height - points.height:
        text = f"{counted(left_out, 'point')} with requests of unequal lengths cannot be told in this layout"
        if points.is_empty():
            raise UserError(f"{text}, and there are no others. Write csv or parquet.")
        say(f"{text}, and {'is' if left_out == 1 else 'are'} left out")
    known, facts = measured_points(points), points.select(*FACT_TYPES).to_dicts()
    environment = read_json(results / "environment.json")
    models = list(dict.fromkeys(point.axes["model"] for point in known))
    if output.suffix == ".json" and len(models) > 1:
        raise UserError(
            f"{output} is one file, and the results are of {len(models)} models, which go into a file each. "
            "Name a folder with --output."
        )
    written = []
    for model in models:
        chosen = [(point, fact) for point, fact in zip(known, facts, strict=True) if point.axes["model"] == model]
        manifest = results / "models" / f"{model}.json"
        source = read_json(manifest).get("source", {}) if manifest.exists() else {}
        entries = dict(_entries(chosen, results, environment, str(source.get("repository") or model)))
        path = output if output.suffix == ".json" else output / f"{model}_benchmark_{_stamp(entries)}.json"
        write_json(path, entries)
        written.append(path)
    return written


def _entries(
    points: _Rounds, results: Path, environment: Mapping[str, Any], model_id: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an entry for each configuration under its hash, its records read one configuration at a time."""
    for key in dict.fromkeys(point.key for point, _ in points):
        rounds = [each for each in points if each[0].key == key]
        records = load_records([point for point, _ in rounds], results / "measurements")
        ok = [record for record in records if record.status == OK]
        measured = measurements(ok)
        config = benchmark_config(
            rounds[0][0].axes,
            max((sum(each.phase != "sample" for each in record.iterations) for record in ok), default=0),
            len(measured["e2e_latency"]),
            gpu_monitoring=measured["gpu_metrics"] is not None,
            compile_kwargs=next((record.requested.get("compile_config") for record in ok), None),
        )
        metadata = {
            **_metadata(records, environment, model_id, success=bool(ok)),
            EXTENSION: _extension(rounds, records, environment),
        }
        yield config_hash(config), {"metadata": metadata, "measurements": measured, "config": config}


def _metadata(
    records: Sequence[Record], environment: Mapping[str, Any], model_id: str, *, success: bool
) -> dict[str, Any]:
    """Return `BenchmarkMetadata.to_dict()`; null is what the environment does not tell.

    `commit_id` is that of transformers where it is a checkout, and null for a release, which has none.
    """
    packages = environment.get("packages") or {}
    accelerators = environment.get("accelerators") or [{}]
    memory_bytes = accelerators[0].get("memory_bytes")
    return {
        "model_id": model_id,
        "timestamp": max((record.started_at for record in records), default=""),
        "branch_name": None,
        "commit_id": (packages.get("transformers") or {}).get("commit"),
        "commit_message": None,
        "hardware_info": {
            "gpu_name": accelerators[0].get("name"),
            "gpu_memory_total_gb": None if memory_bytes is None else memory_bytes / _GIB,
            "python_version": (environment.get("python") or {}).get("version"),
            "torch_version": (packages.get("torch") or {}).get("version"),
        },
        "success": success,
    }


def _extension(rounds: _Rounds, records: Sequence[Record], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the layout has no place for: the configuration's axes, which samples are of which round, the facts.

    Samples without token times, of which theirs have none, are left out.
    """
    return {
        "configuration": rounds[0][0].configuration,
        "rounds": [
            {
                "round": record.configuration.round,
                "measurements": len(samples_of(record)) if record.status == OK else 0,
                "facts": {name: value for name, value in facts.items() if value not in (None, [])},
            }
            for (_, facts), record in zip(rounds, records, strict=True)
        ],
        "environment": environment,
    }


def _stamp(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the time of the latest entry as their file names have it."""
    latest = max((str(entry["metadata"]["timestamp"]) for entry in entries.values()), default="")
    try:
        return datetime.fromisoformat(latest).strftime("%Y%m%d_%H%M%S")
    except ValueError:
        return "undated"
