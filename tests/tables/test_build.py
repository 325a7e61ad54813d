"""The tables together, metrics.json as DVC reads it, and the stage as DVC runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.synthetic_records import record_path, synthetic_axes, write_sweep
from hfbench.core.files import write_json
from hfbench.core.record import OUT_OF_MEMORY
from hfbench.core.results import CEILINGS, ENVIRONMENT, MEASUREMENTS, METRICS, METRICS_BY_POINT, REPORT, RESULTS, TABLES
from hfbench.params.schema import load_params
from hfbench.tables.build import headline, headline_by_point, read_warnings
from hfbench.tables.facts import FACT_TYPES
from hfbench.tables.store import read_table
from tests.compare.project import Project
from tests.conftest import run_stage
from tests.tables.hand_records import POINT, failed_record, observed, ok_record, point, tables_of, unobserved

EAGER = point(attn_implementation="eager")


def test_samples_keep_every_iteration(tmp_path: Path) -> None:
    first = observed([0.9, 1.0], phase="first", end_to_end=30.0)
    record = ok_record(POINT, first, observed([0.5, 0.7], end_to_end=0.75), unobserved(0.8))
    samples = tables_of(tmp_path, failed_record(EAGER, "no"), record).samples
    assert samples["attn_implementation"].to_list() == ["sdpa"] * 3
    assert samples["phase"].to_list() == ["first", "sample", "sample"]
    assert samples["iteration"].to_list() == [0, 1, 2]
    assert samples["end_to_end_seconds"].to_list() == [30.0, 0.75, 0.8]
    assert samples["time_to_first_token_seconds"].to_list() == [0.9, 0.5, None]
    assert samples["decode_tokens_per_second"][1] == pytest.approx(2 / 0.2)
    assert samples["token_seconds"].to_list() == [[[0.9, 1.0]], [[0.5, 0.7]], []]


def test_columns_keep_their_types_in_the_files(tmp_path: Path) -> None:
    tables = tables_of(tmp_path / "measurements", failed_record(EAGER, "no"), ok_record(POINT, observed([0.5, 0.7])))
    tables.write(tmp_path)
    axes: dict[str, Any] = {"round": pl.Int64, "model": pl.String, "use_kernels": pl.Boolean, "batch_size": pl.Int64}
    of_samples = {**axes, "status": pl.Enum, "phase": pl.Enum, "token_seconds": pl.List(pl.List(pl.Float64))}
    of_points = {
        **axes,
        **FACT_TYPES,
        "kernels": pl.List(pl.String),
        "environment_sha256": pl.String,
        "compile_seconds": pl.Float64,
        "energy_joules_per_token": pl.Float64,
        "peak_memory_bytes": pl.Int64,
    }
    of_summary = {"metric": pl.Enum}
    for name, types in {"samples": of_samples, "points": of_points, "summary": of_summary}.items():
        schema = read_table(tmp_path, name).schema
        assert {column: schema[column] for column in types} == types


def test_a_sweep_without_any_iteration_has_the_same_columns_and_no_numbers(tmp_path: Path) -> None:
    some = tables_of(tmp_path / "some", ok_record(POINT, observed([0.5, 0.7])))
    none = tables_of(tmp_path / "none", failed_record(POINT, "no"))
    for name in ("samples", "summary", "points"):
        assert getattr(none, name).schema == getattr(some, name).schema
    assert (none.samples.height, none.summary.height, none.points.height) == (0, 0, 1)
    assert headline(none) == {"points_ok": 0, "points_not_ok": 1, "warnings": 0}
    assert headline_by_point(none) == {}


def test_points_hold_what_was_measured_once(tmp_path: Path) -> None:
    record = ok_record(
        POINT,
        observed([1.0], phase="first"),
        observed([0.5, 1.0], end_to_end=1.1),
        observed([0.5, 1.0], end_to_end=1.3),
        unobserved(1.0),
        first_call_seconds=1.5,
        memory={"peak_bytes": 2**31},
        output={"prompt_nll": 2.5},
        stopped_because="precision",
        timeline={"first call": 3.0, "end": 9.0},
        effective={"device_name": "Fast CPU"},
    )
    failed = failed_record(EAGER, "too large", OUT_OF_MEMORY, phase="load", timeline={"load": 2.0})
    points = tables_of(tmp_path, failed, record).points
    first, second = points.to_dicts()
    assert (first["status"], first["reason"], first["phase"]) == ("out_of_memory", "too large", "load")
    assert (first["samples"], first["observer_cost_ratio"], first["prompt_nll"]) == (0, None, None)
    assert (first["timeline_load_seconds"], first["timeline_end_seconds"]) == (2.0, None)
    assert second["observer_cost_ratio"] == pytest.approx(1.2)  # median of 1.1 and 1.3, over 1.0
    assert (second["samples"], second["prompt_nll"], second["stopped_because"]) == (3, 2.5, "precision")
    assert (second["peak_memory_bytes"], second["first_call_seconds"]) == (2**31, 1.5)
    assert (second["timeline_first_call_seconds"], second["timeline_end_seconds"]) == (3.0, 9.0)
    assert second["device_name"] == "Fast CPU"
    unobserved_never = tables_of(tmp_path / "observed", ok_record(POINT, observed([0.5, 1.0]))).points
    assert unobserved_never["observer_cost_ratio"].to_list() == [None]


def test_counts_best_and_points(tmp_path: Path) -> None:
    fast = ok_record(POINT, observed([0.5, 0.6, 0.8, 1.1]), memory={"peak_bytes": 123456789})
    slow = ok_record(EAGER, observed([0.25, 1.0, 2.0, 3.25]))
    tables = tables_of(tmp_path, fast, slow, failed_record(point(compile_mode="default"), "no"))
    assert headline(tables) == {
        "points_ok": 2,
        "points_not_ok": 1,
        "warnings": 2,  # one round each
        "best_decode_tokens_per_second": 10.0,
        "best_end_to_end_seconds": 1.1,
        "best_time_to_first_token_seconds": 0.25,
    }
    assert headline_by_point(tables) == {
        "tiny sdpa b2 s10 n4": {
            "decode_tokens_per_second": 10.0,
            "end_to_end_seconds": 1.1,
            "time_to_first_token_seconds": 0.5,
            "peak_memory_bytes": 123500000,
        },
        "tiny eager b2 s10 n4": {
            "decode_tokens_per_second": 2.0,
            "end_to_end_seconds": 3.25,
            "time_to_first_token_seconds": 0.25,
        },
    }


def test_what_computes_something_else_is_no_best(tmp_path: Path) -> None:
    right, wrong = {"output": {"prompt_nll": 2.0}}, {"output": {"prompt_nll": 2.1}}
    fast = ok_record(POINT, observed([0.1, 0.2, 0.3, 0.4]), **wrong)
    slow = ok_record(EAGER, observed([0.25, 1.0, 2.0, 3.25]), **right)
    tables = tables_of(tmp_path, fast, slow)
    assert headline(tables)["best_end_to_end_seconds"] == 3.25
    assert headline_by_point(tables)["tiny sdpa b2 s10 n4"]["end_to_end_seconds"] == 0.4


def test_a_median_is_that_of_the_rounds(tmp_path: Path) -> None:
    # Round medians 1.0, 2.0, 9.0; of all five samples together the median would be 1.0.
    seconds = {1: (1.0, 1.0, 1.0), 2: (2.0,), 3: (9.0,)}
    records = [
        ok_record(point(round=number), *(observed([0.5, 0.6], end_to_end=each) for each in values))
        for number, values in seconds.items()
    ]
    assert headline(tables_of(tmp_path, *records))["best_end_to_end_seconds"] == 2.0


def test_dvc_reads_the_files(tmp_path: Path) -> None:
    """Where dvc.yaml calls only metrics.json metrics, `exp show` stays narrow, and the points are a target away."""
    project = Project.create(tmp_path)
    stage = {"cmd": "true", "metrics": [{"metrics.json": {"cache": False}}]}
    by_point: dict[str, Any] = {"metrics_by_point.json": {"cache": False}}
    write_json(tmp_path / "dvc.yaml", {"stages": {"aggregate": {**stage, "outs": [by_point]}}})
    hub_kernel = "k/flash@v1.0"
    for factor in (1, 2):
        times = observed([factor * at for at in (0.5, 0.6, 0.8, 1.1)])
        points = (point(batch_size=size, attn_implementation=hub_kernel) for size in range(1, 31))
        tables = tables_of(tmp_path / f"m{factor}", *(ok_record(each, times) for each in points))
        contents = {"metrics.json": headline(tables), "metrics_by_point.json": headline_by_point(tables)}
        for name, content in contents.items():
            write_json(tmp_path / name, content)
        project.commit_alone(f"factor {factor}")
    for name, content in contents.items():
        shown = json.loads(_dvc(tmp_path, "metrics", "show", "--json", name))
        assert shown[""]["data"][name]["data"] == content
    assert not any(set("./:@") & set(key) for key in contents["metrics_by_point.json"])
    header = _dvc(tmp_path, "exp", "show", "--csv").splitlines()[0].split(",")
    assert sum(name in contents["metrics.json"] for name in header) == 6
    assert not any("b30" in name for name in header)
    assert max(map(len, _dvc(tmp_path, "metrics", "diff", "HEAD~1").splitlines())) <= 100
    diff = _dvc(tmp_path, "metrics", "diff", "HEAD~1", "--no-path", "--targets", "metrics_by_point.json").splitlines()
    assert len(diff) == 1 + 3 * 30
    assert max(map(len, diff)) <= 100


def _dvc(folder: Path, *words: str) -> str:
    dvc = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(dvc, cwd=folder, check=True, capture_output=True, text=True).stdout


def _tables(folder: Path) -> "subprocess.CompletedProcess[str]":
    write_json(folder / CEILINGS, {"schema_version": 1})
    return run_stage("tables", folder)


def _printed(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the stage `report`, which prints the table, on the tables in the folder."""
    write_json(folder / ENVIRONMENT, {})
    return run_stage("report", folder, **variables)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    axes = synthetic_axes(20, max_new_tokens=8, continuous_batching=True)
    write_sweep(tmp_path / MEASUREMENTS, tmp_path / "params.yaml", axes, sample_iterations=4, fail_every=10)
    return tmp_path


def test_it_writes_the_tables_and_prints_them(sweep: Path) -> None:
    outputs = []
    for _ in range(2):
        result = _tables(sweep)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        files = [*sorted((sweep / TABLES).iterdir()), *sorted((sweep / RESULTS).glob("metrics*.json"))]
        outputs.append([path.read_bytes() for path in files])
    assert outputs[0] == outputs[1]  # the same records make the same bytes
    assert len(outputs[0]) == 7
    metrics = json.loads((sweep / METRICS).read_text())
    assert (metrics["points_ok"], metrics["points_not_ok"]) == (18, 2)
    assert len(json.loads((sweep / METRICS_BY_POINT).read_text())) == 4
    assert metrics["warnings"] == len(read_warnings(sweep / TABLES))
    assert read_table(sweep / TABLES, "points").height == 20
    assert read_table(sweep / TABLES, "samples").height == 18 * 6
    result, silent = _printed(sweep), _printed(sweep, HFBENCH_TABLE="off")
    plain = _printed(sweep, PYTHONIOENCODING="ascii")  # it needs no Unicode
    assert (result.returncode, silent.returncode, plain.returncode) == (0, 0, 0)
    assert (result.stderr, silent.stdout) == ("", "")
    assert "Synthetic device" in result.stdout
    assert "Synthetic device" in plain.stdout
    assert result.stdout.endswith(f"report: {REPORT}\n")
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_a_missing_record_ends_it_with_a_sentence(sweep: Path) -> None:
    first = load_params(sweep / "params.yaml").sweep.points()[0]
    record_path(sweep / MEASUREMENTS, first).unlink()
    result = _tables(sweep)
    assert result.returncode == 1
    assert "dvc repro" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (sweep / METRICS).exists()


def test_a_sweep_where_everything_failed(tmp_path: Path) -> None:
    axes = synthetic_axes(10, max_new_tokens=8, continuous_batching=False)
    write_sweep(tmp_path / MEASUREMENTS, tmp_path / "params.yaml", axes, sample_iterations=4, fail_every=1)
    assert _tables(tmp_path).returncode == 0
    result = _printed(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((tmp_path / METRICS).read_text()) == {"points_ok": 0, "points_not_ok": 10, "warnings": 0}
    assert json.loads((tmp_path / METRICS_BY_POINT).read_text()) == {}
    assert "No point could be measured." in result.stdout
    assert "ImportError" in result.stdout
