"""What the table of points says of what really ran: kernels, threads, compilation, and the files it was made with."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hfbench.core.errors import UserError
from hfbench.tables.store import read_table
from tests.tables.hand_records import POINT, failed_record, observed, ok_record, point, tables_of

REVISION = "0123456789abcdef0123456789abcdef01234567"
KERNELS = [
    {
        "layer": "RMSNorm",
        "modules": 61,
        "replaced": 61,
        "kernel": "forward",
        "repository": "o/norm",
        "revision": REVISION,
    },
    {"layer": "SiLU", "modules": 30, "replaced": 30, "kernel": "SiLU.forward", "path": "k/silu", "sha256": "5" * 64},
    {"layer": "rotary_pos_emb", "modules": 30, "replaced": 0},
]
PROVENANCE = {"environment": "e" * 64, "manifest": "d" * 64, "inputs": "a" * 64}


def _points(folder: Path, *effective: dict[str, Any], **fields: Any) -> pl.DataFrame:
    records = [
        ok_record(point(round=number), observed([0.5, 0.6]), effective=each, **fields)
        for number, each in enumerate(effective, start=1)
    ]
    return tables_of(folder, *records).points


def test_kernels_are_named_by_layer_and_origin(tmp_path: Path) -> None:
    points = _points(tmp_path, {"kernelized_layers": KERNELS}, {"kernelized_layers": KERNELS[2:]}, {})
    assert points["kernels"].to_list() == [["RMSNorm: o/norm@0123456789ab", "SiLU: k/silu sha256:555555555555"], [], []]


def test_the_files_it_was_measured_with(tmp_path: Path) -> None:
    names = ("environment_sha256", "manifest_sha256", "inputs_sha256")
    assert _points(tmp_path / "all", {}, provenance=PROVENANCE).select(names).row(0) == ("e" * 64, "d" * 64, "a" * 64)
    assert _points(tmp_path / "none", {}).select(names).row(0) == (None, None, None)


def test_threads_and_clock(tmp_path: Path) -> None:
    points = _points(tmp_path, {"intra_op_threads": 8, "clock_resolution_seconds": 1e-9}, {})
    assert points.select("intra_op_threads", "clock_resolution_seconds").rows() == [(8, 1e-9), (None, None)]


@pytest.mark.parametrize(
    ("compilation", "seconds"),
    [
        ({"graphs": 2, "seconds": 14.5}, 14.5),
        ({"graphs": 0, "seconds": 0}, None),  # not asked to compile: no compile time, rather than none of it
        ({"graphs": 0, "seconds": 3.0}, None),  # given up: what runs is not compiled
        ({}, None),
        (None, None),
    ],
)
def test_compile_time_is_that_of_compiled_code(tmp_path: Path, compilation: Any, seconds: float | None) -> None:
    assert _points(tmp_path, {"compilation": compilation})["compile_seconds"].to_list() == [seconds]


def test_the_second_start_is_apart_from_the_first(tmp_path: Path) -> None:
    warm = {"first_call_seconds": 3.25, "compile_seconds": 2.5, "cache_hits": 1}
    names = ("compile_seconds", "warm_first_call_seconds", "warm_compile_seconds")
    effective = {"compilation": {"graphs": 1, "seconds": 14.5}}
    started = _points(tmp_path / "a", effective, warm_start=warm)
    assert started.select(names).rows() == [(14.5, 3.25, 2.5)]
    failed = _points(tmp_path / "b", effective, warm_start={"reason": "timed_out"})
    assert failed.select(names).rows() == [(14.5, None, None)]


def test_a_record_that_failed_early_has_none_of_them(tmp_path: Path) -> None:
    early = failed_record(POINT, "no such kernel", provenance=PROVENANCE)
    (row,) = tables_of(tmp_path, early).points.to_dicts()
    assert (row["kernels"], row["intra_op_threads"], row["compile_seconds"]) == ([], None, None)
    assert row["environment_sha256"] == "e" * 64


def test_columns_keep_their_types_in_the_file(tmp_path: Path) -> None:
    tables_of(tmp_path / "measurements", failed_record(POINT, "no")).write(tmp_path)
    types: dict[str, pl.DataType | type[pl.DataType]] = {
        "kernels": pl.List(pl.String),
        "intra_op_threads": pl.Int64,
        "clock_resolution_seconds": pl.Float64,
        "compile_seconds": pl.Float64,
        "energy_joules_per_token": pl.Float64,
        "environment_sha256": pl.String,
        "manifest_sha256": pl.String,
        "inputs_sha256": pl.String,
    }
    schema = read_table(tmp_path, "points").schema
    assert {name: schema[name] for name in types} == types


@pytest.mark.parametrize(
    "effective",
    [
        {"kernelized_layers": [{"layer": "RMSNorm", "replaced": 1}]},
        {"kernelized_layers": 7},
        {"intra_op_threads": "many"},
        {"compilation": {"graphs": 1, "seconds": "long"}},
    ],
)
def test_a_record_with_something_else_there_is_none(tmp_path: Path, effective: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is no measurement record"):
        _points(tmp_path, effective)
