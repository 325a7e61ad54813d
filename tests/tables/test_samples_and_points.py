"""The tables with a row an iteration and a row a record."""

from pathlib import Path

import polars as pl
import pytest

from hfbench.core.record import OUT_OF_MEMORY
from hfbench.tables.store import read_table
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
    samples, points = read_table(tmp_path, "samples"), read_table(tmp_path, "points")
    axes: dict[str, pl.DataType | type[pl.DataType]] = {
        "round": pl.Int64,
        "model": pl.String,
        "use_kernels": pl.Boolean,
        "batch_size": pl.Int64,
    }
    for name, dtype in axes.items():
        assert samples.schema[name] == points.schema[name] == dtype
    assert isinstance(samples.schema["status"], pl.Enum)
    assert isinstance(samples.schema["phase"], pl.Enum)
    assert samples.schema["token_seconds"] == pl.List(pl.List(pl.Float64))
    assert points.schema["peak_memory_bytes"] == pl.Int64
    assert isinstance(read_table(tmp_path, "summary").schema["metric"], pl.Enum)


def test_a_sweep_without_any_iteration_has_the_same_columns(tmp_path: Path) -> None:
    some = tables_of(tmp_path / "some", ok_record(POINT, observed([0.5, 0.7])))
    none = tables_of(tmp_path / "none", failed_record(POINT, "no"))
    assert none.samples.schema == some.samples.schema
    assert none.summary.schema == some.summary.schema
    assert none.points.schema == some.points.schema
    assert (none.samples.height, none.summary.height, none.points.height) == (0, 0, 1)


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


def test_no_observer_cost_without_unobserved_iterations(tmp_path: Path) -> None:
    points = tables_of(tmp_path, ok_record(POINT, observed([0.5, 1.0]))).points
    assert points["observer_cost_ratio"].to_list() == [None]
