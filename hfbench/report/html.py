"""The report as one HTML page: what report.html says it with, gathered from the tables and the other results."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from hfbench.core.files import read_json, readable_json, write_text
from hfbench.core.point import AXIS_TABLE
from hfbench.core.record import OK, Manifest
from hfbench.core.results import CEILINGS, ENVIRONMENT, PARAMS, manifest_path
from hfbench.params.schema import read_yaml, threshold_of
from hfbench.report.charts.capacity import memory_chart, roofline_chart, shares_chart
from hfbench.report.charts.samples import rounds_chart, token_latency_chart
from hfbench.report.charts.speed import payoff_sentences, speed_chart, summary_sentences, winner_columns
from hfbench.report.charts.startup import compiling_columns, startup_chart
from hfbench.report.charts.throughput import depth_chart, frontier_chart, load_chart
from hfbench.report.frames import (
    ReportData,
    Results,
    failure_rows,
    report_data,
    result_rows,
    varying_axes,
    warning_groups,
)
from hfbench.report.pages import Column
from hfbench.report.speedups import judge_ways
from hfbench.report.templates import NamedValues, page
from hfbench.report.words import (
    METRICS_SHOWN,
    axis_text,
    captions,
    device_names,
    failure_columns,
    memory_unit,
    number_column,
    percentile_columns,
    phase_memory_columns,
    rate,
    result_columns,
    significant,
    warning_columns,
    word_column,
)
from hfbench.tables.metrics import METRICS

CHARTS = {
    "speed": speed_chart,
    "frontier": frontier_chart,
    "load": load_chart,
    "depth": depth_chart,
    "roofline": roofline_chart,
    "rounds": rounds_chart,
    "tokens": token_latency_chart,
    "startup": startup_chart,
    "memory": memory_chart,
    "shares": shares_chart,
}


def report_page(
    results: Results,
    samples: pl.DataFrame,
    *,
    environment: Mapping[str, Any],
    ceilings: Mapping[str, Any],
    manifests: Sequence[Manifest] = (),
    params: Mapping[str, Any] = {},
    so_far: str = "",
) -> str:
    """Return the page as HTML from the results, the table of samples, and the contents of the other results' files.

    `so_far` says what is missing of what was asked for. The same input makes the same page: it holds no time but those
    of the measurements, and what `so_far` says.
    """
    points, rows = results.points, result_rows(results.summary, results.configurations)
    failures, groups = failure_rows(points), warning_groups(results.warnings, points)
    data = report_data(samples, results.summary, points, results.configurations, threshold_of(params))
    charts = {name: draw(data) for name, draw in CHARTS.items()}
    compiled = data.rows.filter(pl.col("compile_mode") != "off")
    # A record's own ratio is mostly chance where its samples are few.
    costs = points["observer_cost_ratio"].drop_nulls()
    its_captions = captions(points, rows)
    return page(
        "report.html",
        title=its_captions.title,
        captions=its_captions,
        so_far=so_far,
        facts=_facts(points, data, environment, manifests),
        winners=_winners(data),
        threshold=f"{100 * data.threshold:g}%",
        ways=len(data.ways),
        charts=charts,
        compiled={"rows": compiled.to_dicts(), "columns": compiling_columns(compiled)} if compiled.height else None,
        device=ceilings.get("device", "the device"),
        ceilings=ceiling_rows(ceilings),
        slower_dtypes=slower_dtypes(ceilings),
        unknown_utilisations=_unknown_utilisations(data.rows),
        **_tables(rows, points),
        warnings=warning_columns(groups) if groups else [],
        failures=[] if failures.is_empty() else failure_columns(failures, points),
        manifests=[_manifest(manifest) for manifest in manifests],
        params=[(name, each if isinstance(each, str) else readable_json(each)) for name, each in params.items()],
        digests=_digest_columns(points),
        environment=environment_groups(environment),
        metrics=METRICS,
        observer_cost={"middle": costs.median(), "lowest": costs.min(), "highest": costs.max()} if len(costs) else None,
    )


def _winners(data: ReportData) -> dict[str, Any] | None:
    """Return which way is fastest where, and where the values of each axis pay; None where nothing was measured."""
    found = judge_ways(data)
    if not found.winners:
        return None
    return {
        "summary": summary_sentences(found),
        "columns": winner_columns(found.winners),
        "payoffs": payoff_sentences(found),
    }


# Of params.yaml, what was measured and how. The entries of `models` stand in the manifests, with what they resolved to.
_QUOTED_PARAMS = (
    "sweep",
    "configurations",
    "device",
    "prompt",
    "request_lengths",
    "arrivals",
    "compile",
    "kernels",
    "quantization",
    "quantized_cache",
    "assisted_decoding",
    "continuous_batching",
    "sampling",
    "limits",
    "compare",
)


def write_report(results: Results, samples: pl.DataFrame, output: Path, so_far: str = "") -> None:
    """Write the page of these results and of what lies beside them in results/ to `output`; see `report_page`."""
    page = report_page(
        results,
        samples,
        environment=read_json(ENVIRONMENT) if ENVIRONMENT.exists() else {},
        ceilings=read_ceilings(CEILINGS),
        manifests=read_manifests(results.points),
        params=read_params(PARAMS),
        so_far=so_far,
    )
    write_text(output, page)


def read_manifests(points: pl.DataFrame) -> list[Manifest]:
    """Return the manifests of the models in the points, in their order; those that are missing are left out."""
    paths = map(manifest_path, points["model"].unique(maintain_order=True))
    return [Manifest.load(path) for path in paths if path.exists()]


def read_ceilings(path: Path) -> dict[str, Any]:
    """Return the content of ceilings.json; nothing where there is no file."""
    return dict(read_json(path)) if path.exists() else {}


def read_params(path: Path) -> dict[str, Any]:
    """Return the quoted params as they stand in the file, by name; none where there is no file."""
    content = read_yaml(path) if path.exists() else {}
    return {name: content[name] for name in _QUOTED_PARAMS if name in content}


def _tables(rows: pl.DataFrame, points: pl.DataFrame) -> dict[str, Any]:
    """Return the tables with a row for each configuration, and where those of results end a section."""
    return {
        "results": [] if rows.is_empty() else result_columns(rows, points),
        "section_ends": [one != other for one, other in pairwise(rows["workload"])],
        "percentiles": percentile_columns(rows, points),
        "phase_memory": phase_memory_columns(rows, points),
    }


def _facts(
    points: pl.DataFrame, data: ReportData, environment: Mapping[str, Any], manifests: Sequence[Manifest]
) -> NamedValues:
    """Return what was measured on what, as far as it is known."""
    varied = [(AXIS_TABLE[axis].label, points[axis].unique(maintain_order=True)) for axis in varying_axes(points)]
    started = sorted(time.replace("T", " ").replace("+00:00", " UTC") for time in points["started_at"] if time)
    asked, ok = points["round"].n_unique(), points.filter(pl.col("status") == OK)["round"].n_unique()
    facts = [
        ("device", ", ".join(device_names(points))),
        *((f"model {manifest.name}", _origin(manifest)) for manifest in manifests),
        *((f"measured: {name}", ", ".join(map(axis_text, values))) for name, values in varied),
        ("rounds", f"{asked}, each a fresh process" if ok == asked else f"{asked}, of which {ok} have a result"),
        ("samples", f"{data.samples.height:,}" if data.samples.height else ""),
        ("libraries", ", ".join(_versions(environment))),
        ("measured", " to ".join(dict.fromkeys((started[0], started[-1]))) if started else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _origin(manifest: Manifest) -> str:
    """Return where a model comes from in one line: its kind of source, name and resolved revision."""
    kind = str(manifest.source.get("source", ""))
    keys = ("repository", "wheel", "path", "config")
    name = next((str(manifest.source[key]) for key in keys if key in manifest.source), "")
    commit = str(manifest.provenance.get("commit", ""))[:12]
    return " ".join(filter(None, [manifest.architecture, f"({kind})" if kind else "", name, commit]))


def _versions(environment: Mapping[str, Any]) -> list[str]:
    """Return what a measurement runs on with its version, the commit of a checkout, and whether it holds more."""
    packages = environment.get("packages")
    found = []
    for name, package in packages.items() if isinstance(packages, Mapping) else ():
        if name in ("torch", "transformers", "kernels") and isinstance(package, Mapping):
            commit = f" at commit {str(package['commit'])[:12]}" if package.get("commit") else ""
            changed = " with uncommitted changes" if package.get("uncommitted") else ""
            found.append(f"{name} {package.get('version', '')}{commit}{changed}")
    return found


def _manifest(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest with its single values as rows, and whole."""
    files = [f"{file.path}, {file.size_bytes:,} bytes, sha256 {file.sha256}" for file in manifest.files]
    resolved = {name: value for name, value in manifest.provenance.items() if not isinstance(value, dict | list)}
    rows = [
        ("architecture", manifest.architecture),
        *((f"source: {name}", value) for name, value in manifest.source.items()),
        *((f"resolved: {name}".replace("_", " "), value) for name, value in resolved.items()),
        ("files", "\n".join(files)),
    ]
    return {"name": manifest.name, "rows": rows, "whole": readable_json(dataclasses.asdict(manifest))}


_DIGESTS = {
    "environment_sha256": "environment (results/environment.json)",
    "manifest_sha256": "model (results/models/)",
    "input_tensors_sha256": "token batches (results/inputs/)",
}


def _digest_columns(points: pl.DataFrame) -> list[Column]:
    """Return what the records were measured with: what, its sha256, and how many records say so."""
    rows = [
        (what, digest, count)
        for column, what in _DIGESTS.items()
        for digest, count in points.drop_nulls(column).group_by(column, maintain_order=True).len().iter_rows()
    ]
    if not rows:
        return []
    what, digests, counts = zip(*rows, strict=True)
    return [word_column("measured with", what), word_column("sha256", digests), number_column("records", counts)]


def ceiling_rows(ceilings: Mapping[str, Any]) -> NamedValues:
    """Return the rows of ceilings.json as name and rate; a rate that could not be measured is left out."""
    reads = {int(size): speed for size, speed in (ceilings.get("read_bytes_per_second_by_size") or {}).items()}
    products = ceilings.get("matmul_flops_per_second") or {}
    of_one_row = ceilings.get("single_row_flops_per_second") or {}
    rows = [
        *((f"reading {_size(size)} over and over", speed, "B") for size, speed in sorted(reads.items())),
        ("memory copy, read plus written", ceilings.get("copy_bytes_per_second"), "B"),
        *((f"matrix product, {dtype}", flops, "FLOP") for dtype, flops in products.items()),
        *((f"product of one row, {dtype}", flops, "FLOP") for dtype, flops in of_one_row.items()),
    ]
    others = ceilings.get("others_cpu_share")
    meanwhile = [] if others is None else [("taken by other processes meanwhile", f"{100 * others:.2g}% of the CPUs")]
    return [*((name, rate(speed, unit)) for name, speed, unit in rows if speed is not None), *meanwhile]


def slower_dtypes(ceilings: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each dtype that the device computes more slowly than float32, and by how much."""
    sentences = []
    for dtype in ceilings.get("slower_than_float32", ()):
        cause = "has no instructions for" if dtype in ceilings["emulated_dtypes"] else "is slow at"
        rates = (
            (words, ceilings[name][dtype], ceilings[name]["float32"])
            for words, name in (
                ("products reach", "matmul_flops_per_second"),
                ("one row", "single_row_flops_per_second"),
            )
        )
        both = [
            f"{words} {rate(slower, 'FLOP')}, and {rate(faster, 'FLOP')} in float32"
            for words, slower, faster in rates
            if slower and faster
        ]
        sentences.append(f"The processor {cause} {dtype} products: {'; '.join(both)}.")
    return sentences


def _unknown_utilisations(rows: pl.DataFrame) -> NamedValues:
    """Return why which utilisations are not known, each reason with the configurations that it is of."""
    found = [
        (f"{METRICS_SHOWN[metric].label}: {why}", ", ".join(group["name"]))
        for metric in ("mbu", "mfu")
        for (why,), group in rows.drop_nulls(f"{metric}_unknown").group_by(f"{metric}_unknown", maintain_order=True)
    ]
    return [(names, reason) for reason, names in found]


def _size(size_bytes: int) -> str:
    unit, unit_bytes = memory_unit(size_bytes)
    return f"{significant(size_bytes / unit_bytes)} {unit}"


def environment_groups(environment: Mapping[str, Any]) -> list[tuple[str, NamedValues]]:
    """Return each part of environment.json as a heading with rows of name and value; nothing in it is required.

    What stands alone, outside of any part, comes first under one heading.
    """
    shown = {name: content for name, content in environment.items() if name != "schema_version"}
    alone = {name: content for name, content in shown.items() if not isinstance(content, dict | list)}
    parts = {"general": alone, **{name: content for name, content in shown.items() if name not in alone}}
    groups = []
    for name, content in parts.items():
        entries = content.items() if isinstance(content, dict) else enumerate(content, start=1)
        rows = [(str(key).replace("_", " "), text) for key, value in entries if (text := _text(value))]
        if rows:
            groups.append((name.replace("_", " "), rows))
    return groups


def _text(value: Any) -> str:
    """Return a value in one line: the version of a package alone, a dictionary as its names and values."""
    if isinstance(value, dict):
        parts = [(name, _text(item)) for name, item in value.items()]
        return ", ".join(text if name in ("version", "name") else f"{name} {text}" for name, text in parts if text)
    if isinstance(value, list):
        return ("; " if any(isinstance(item, dict) for item in value) else ", ").join(_text(item) for item in value)
    return "" if value is None else axis_text(value)
