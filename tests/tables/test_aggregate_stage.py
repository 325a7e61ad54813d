"""The stage `aggregate` as DVC runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.synthetic_records import record_path, synthetic_axes, write_sweep
from hfbench.core.files import write_json
from hfbench.params.schema import load_params
from hfbench.tables.store import read_table
from hfbench.tables.warnings import read_warnings

ROOT = Path(__file__).resolve().parents[2]


def _aggregate(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    write_json(folder / "ceilings.json", {"schema_version": 1})
    paths = {
        "--params": folder / "params.yaml",
        "--measurements": folder / "measurements",
        "--ceilings": folder / "ceilings.json",
        "--tables": folder / "tables",
        "--metrics": folder / "metrics.json",
        "--metrics-by-point": folder / "metrics_by_point.json",
    }
    words = [str(word) for pair in paths.items() for word in pair]
    environment = {key: value for key, value in os.environ.items() if key != "HFBENCH_TABLE"} | variables
    return subprocess.run(
        [sys.executable, "-m", "stages.aggregate", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    axes = synthetic_axes(20, max_new_tokens=8, continuous_batching=True)
    write_sweep(tmp_path / "measurements", tmp_path / "params.yaml", axes, sample_iterations=4, fail_every=10)
    return tmp_path


def test_it_writes_the_tables_and_prints_them(sweep: Path) -> None:
    result = _aggregate(sweep)
    assert (result.returncode, result.stderr) == (0, "")
    metrics = json.loads((sweep / "metrics.json").read_text())
    assert (metrics["points_ok"], metrics["points_not_ok"]) == (18, 2)
    assert len(json.loads((sweep / "metrics_by_point.json").read_text())) == 4
    assert metrics["warnings"] == len(read_warnings(sweep / "tables"))
    assert read_table(sweep / "tables", "points").height == 20
    assert read_table(sweep / "tables", "samples").height == 18 * 6
    assert "Synthetic device" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_the_same_records_make_the_same_bytes(sweep: Path) -> None:
    outputs = []
    for _ in range(2):
        assert _aggregate(sweep, HFBENCH_TABLE="off").returncode == 0
        files = [*sorted((sweep / "tables").iterdir()), *sorted(sweep.glob("metrics*.json"))]
        outputs.append([path.read_bytes() for path in files])
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 7


def test_printing_can_be_switched_off(sweep: Path) -> None:
    result = _aggregate(sweep, HFBENCH_TABLE="off")
    assert (result.returncode, result.stdout) == (0, "")


def test_a_terminal_without_unicode_is_no_reason_to_fail(sweep: Path) -> None:
    result = _aggregate(sweep, PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "Synthetic device" in result.stdout


def test_a_missing_record_ends_it_with_a_sentence(sweep: Path) -> None:
    first = load_params(sweep / "params.yaml").sweep.points()[0]
    record_path(sweep / "measurements", first).unlink()
    result = _aggregate(sweep)
    assert result.returncode == 1
    assert "dvc repro" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (sweep / "metrics.json").exists()


def test_a_sweep_where_everything_failed(tmp_path: Path) -> None:
    axes = synthetic_axes(10, max_new_tokens=8, continuous_batching=False)
    write_sweep(tmp_path / "measurements", tmp_path / "params.yaml", axes, sample_iterations=4, fail_every=1)
    result = _aggregate(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "points_ok": 0,
        "points_not_ok": 10,
        "warnings": 0,
    }
    assert json.loads((tmp_path / "metrics_by_point.json").read_text()) == {}
    assert "No point could be measured." in result.stdout
    assert "ImportError" in result.stdout
