"""The stage `tables` as DVC runs it, and the table that `report` then prints."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.synthetic_records import record_path, synthetic_axes, write_sweep
from hfbench.core.files import write_json
from hfbench.core.results import CEILINGS, ENVIRONMENT, MEASUREMENTS, METRICS, METRICS_BY_POINT, REPORT, RESULTS, TABLES
from hfbench.params.schema import load_params
from hfbench.tables.store import read_table
from hfbench.tables.warnings import read_warnings
from tests.conftest import run_stage


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
    result = _tables(sweep)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    metrics = json.loads((sweep / METRICS).read_text())
    assert (metrics["points_ok"], metrics["points_not_ok"]) == (18, 2)
    assert len(json.loads((sweep / METRICS_BY_POINT).read_text())) == 4
    assert metrics["warnings"] == len(read_warnings(sweep / TABLES))
    assert read_table(sweep / TABLES, "points").height == 20
    assert read_table(sweep / TABLES, "samples").height == 18 * 6
    result = _printed(sweep)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Synthetic device" in result.stdout
    assert result.stdout.endswith(f"report: {REPORT}\n")
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_the_same_records_make_the_same_bytes(sweep: Path) -> None:
    outputs = []
    for _ in range(2):
        assert _tables(sweep).returncode == 0
        files = [*sorted((sweep / TABLES).iterdir()), *sorted((sweep / RESULTS).glob("metrics*.json"))]
        outputs.append([path.read_bytes() for path in files])
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 7


def test_printing_can_be_switched_off(sweep: Path) -> None:
    _tables(sweep)
    result = _printed(sweep, HFBENCH_TABLE="off")
    assert (result.returncode, result.stdout) == (0, "")


def test_a_terminal_without_unicode_is_no_reason_to_fail(sweep: Path) -> None:
    _tables(sweep)
    result = _printed(sweep, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "Synthetic device" in result.stdout


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
    assert json.loads((tmp_path / METRICS).read_text()) == {
        "points_ok": 0,
        "points_not_ok": 10,
        "warnings": 0,
    }
    assert json.loads((tmp_path / METRICS_BY_POINT).read_text()) == {}
    assert "No point could be measured." in result.stdout
    assert "ImportError" in result.stdout
