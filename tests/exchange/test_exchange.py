"""`hfbench export`: the layout of transformers' benchmark_v2, and flat tables; `hfbench import configs`: its files."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hfbench.cli import parse_arguments
from hfbench.core.errors import UserError
from hfbench.core.files import read_json, write_json
from hfbench.core.point import Configuration
from hfbench.core.record import Record
from hfbench.exchange.configs import benchmark_config, import_configs, read_configs
from hfbench.exchange.export import export_benchmark_v2
from hfbench.params.schema import load_params
from hfbench.tables.store import read_table
from tests.conftest import ROOT
from tests.report.report_records import full_record, save_results
from tests.tables.hand_records import failed_record, observed, ok_record, point

ENVIRONMENT = {
    "schema_version": 1,
    "python": {"version": "3.11.7"},
    "accelerators": [{"name": "NVIDIA H200", "memory_bytes": 141 * 2**30}],
    "packages": {"torch": {"version": "2.13.0"}, "transformers": {"version": "5.23.0.dev0", "commit": "abc123"}},
}


def _saved(folder: Path, *records: Record) -> Path:
    save_results(folder, *records)
    write_json(folder / "environment.json", ENVIRONMENT)
    return folder


def _entries(results: Path, output: Path) -> list[dict[str, Any]]:
    (path,) = export_benchmark_v2(results, output)
    return list(json.loads(path.read_text()).values())


def test_an_entry_has_the_keys_of_theirs_in_their_order(tmp_path: Path) -> None:
    (entry,) = _entries(_saved(tmp_path, full_record(point())), tmp_path / "out.json")
    metadata, measured, config = entry.values()
    assert list(entry) == ["metadata", "measurements", "config"]
    assert " ".join(config) == (
        "name warmup_iterations measurement_iterations gpu_monitoring continuous_batching batch_size sequence_length "
        "num_tokens_to_generate attn_implementation compile_kwargs kernelize"
    )
    assert " ".join(measured) == (
        "e2e_latency time_to_first_token inter_token_latency shape_and_decoded_outputs gpu_metrics timestamps"
    )
    assert " ".join(metadata) == (
        "model_id timestamp branch_name commit_id commit_message hardware_info success hfbench"
    )
    assert metadata["hardware_info"] == {
        "gpu_name": "NVIDIA H200",
        "gpu_memory_total_gb": 141,
        "python_version": "3.11.7",
        "torch_version": "2.13.0",
    }
    assert " ".join(metadata["hardware_info"]) == "gpu_name gpu_memory_total_gb python_version torch_version"
    assert metadata["commit_id"] == "abc123"
    assert config["name"] == "w2_i6-unmonitored-b2_s10_n4-sdpa-uncompiled-unkernelized-generate"


def test_an_entry_stands_under_the_hash_of_its_config(tmp_path: Path) -> None:
    results = _saved(tmp_path, full_record(point()), full_record(point(compile_mode="default", use_kernels=True)))
    (path,) = export_benchmark_v2(results, tmp_path / "out.json")
    content = json.loads(path.read_text())
    assert len(content) == 2
    for key, entry in content.items():
        assert hashlib.sha256(json.dumps(entry["config"]).encode()).hexdigest() == key
    compiled = list(content.values())[1]["config"]
    kwargs = {"fullgraph": False, "dynamic": None, "backend": "inductor", "mode": "default", "options": None}
    assert (compiled["compile_kwargs"], compiled["kernelize"]) == (kwargs, True)


def test_what_was_compiled_with_is_what_the_record_says(tmp_path: Path) -> None:
    used = {"fullgraph": True, "dynamic": None, "backend": "inductor", "mode": None, "options": {"max_autotune": True}}
    record = full_record(point(compile_mode="max-autotune"), requested={"compile_config": used})
    (entry,) = _entries(_saved(tmp_path, record), tmp_path / "out.json")
    assert entry["config"]["compile_kwargs"] == used
    (entry,) = read_configs(tmp_path / "out.json", ["tiny"]).entries
    assert entry["compile_mode"] == "max-autotune"


def test_what_the_layout_has_no_word_for_is_a_key_of_its_own(tmp_path: Path) -> None:
    results = _saved(tmp_path, full_record(point(attn_implementation="sdpa:math", dtype="float32")))
    (entry,) = _entries(results, tmp_path / "out.json")
    assert entry["config"]["attn_implementation"] == "sdpa"
    assert (entry["config"]["sdpa_backend"], entry["config"]["dtype"]) == ("math", "float32")
    assert "sdpa_math" in entry["config"]["name"]


def test_measurements_worked_out_by_hand(tmp_path: Path) -> None:
    batch = point(continuous_batching=True)
    requests = observed([0.5, 0.6, 0.8, 1.1], [0.25, 1.0, 2.0, 3.25])
    plain = observed([0.5, 0.6, 0.8, 1.1], end_to_end=1.5)
    cb, generate = _entries(
        _saved(tmp_path, ok_record(batch, requests, output={"text": " so"}), ok_record(point(), plain, plain)),
        tmp_path / "out.json",
    )
    assert cb["measurements"] == {
        "e2e_latency": [3.25],
        "time_to_first_token": [0.25],  # of the earliest request
        "inter_token_latency": [pytest.approx((0.2 + 1.0) / 2)],
        "shape_and_decoded_outputs": ["(2, 4) |  so"],
        "gpu_metrics": None,
        "timestamps": [[[0.5, 0.6, 0.8, 1.1], [0.25, 1.0, 2.0, 3.25]]],
    }
    assert generate["measurements"]["e2e_latency"] == [1.5, 1.5]
    assert generate["measurements"]["inter_token_latency"] == pytest.approx([0.2, 0.2])  # three gaps, not four
    assert generate["config"]["measurement_iterations"] == 2


def test_the_device_is_read_while_each_iteration_ran(tmp_path: Path) -> None:
    """The readings are invented: there is no GPU to take them from."""
    record = ok_record(point(), replace(observed([0.5, 0.6]), start_seconds=1.0, call_seconds=2.0))
    record.started_at = "2025-01-01T00:00:00+00:00"
    used = [2**30, 2**31, 2**31, 2**30]
    record.monitoring = {
        "time_seconds": [0.5, 1.5, 2.5, 3.5],
        "devices": [{"device": "cuda:0", "series": {"utilisation_percent": [1, 90, 95, 2], "memory_used_bytes": used}}],
    }
    (entry,) = _entries(_saved(tmp_path, record), tmp_path / "out.json")
    assert entry["config"]["gpu_monitoring"] is True
    assert entry["measurements"]["gpu_metrics"] == [
        {
            "utilization": [90, 95],
            "memory_used": [2.0, 2.0],
            "timestamps": [0.0, 1.0],
            "timestamp_0": 1735689601.5,
            "monitoring_status": "success",
        }
    ]


def test_rounds_are_concatenated_and_told_apart(tmp_path: Path) -> None:
    failed = failed_record(point(round=2), "killed", "crashed")
    results = _saved(tmp_path, full_record(point()), failed, full_record(point(round=3)))
    (entry,) = _entries(results, tmp_path / "out.json")
    told = entry["metadata"]["hfbench"]["rounds"]
    found = [(each["round"], each["measurements"], each["facts"]["status"]) for each in told]
    assert found == [(1, 6, "ok"), (2, 0, "crashed"), (3, 6, "ok")]
    assert (len(entry["measurements"]["e2e_latency"]), entry["metadata"]["success"]) == (12, True)


def test_a_configuration_that_never_ran_is_no_success(tmp_path: Path) -> None:
    (entry,) = _entries(_saved(tmp_path, failed_record(point(), "no")), tmp_path / "out.json")
    assert (entry["measurements"]["e2e_latency"], entry["metadata"]["success"]) == ([], False)


def test_a_file_a_model(tmp_path: Path) -> None:
    results = _saved(tmp_path, full_record(point()), full_record(point(model="other")))
    write_json(results / "models" / "other.json", {"source": {"source": "hub", "repository": "Org/Other-1B"}})
    written = export_benchmark_v2(results, tmp_path / "out")
    assert [path.name for path in written] == [
        "tiny_benchmark_20250101_000000.json",
        "other_benchmark_20250101_000000.json",
    ]
    ids = [next(iter(read_json(path).values()))["metadata"]["model_id"] for path in written]
    assert ids == ["tiny", "Org/Other-1B"]
    with pytest.raises(UserError, match="2 models"):
        export_benchmark_v2(results, tmp_path / "out.json")


def _export(*words: str) -> None:
    arguments = parse_arguments(["export", *words])
    arguments.run(arguments)


@pytest.mark.parametrize("format_name", ["csv", "parquet"])
def test_flat_tables_have_full_precision(tmp_path: Path, format_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = _saved(tmp_path, full_record(point()), failed_record(point(round=2), 'a, b\n"c"'))
    _export("--format", format_name, "--output", str(tmp_path / "flat"), "--results", str(results))
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == [f"{name}.{format_name}" for name in ("summary", "samples", "points")]
    read = pl.read_csv if format_name == "csv" else pl.read_parquet
    written = {name: read(tmp_path / "flat" / f"{name}.{format_name}") for name in ("summary", "samples", "points")}
    for name, table in written.items():
        original = read_table(results / "tables", name)
        floats = [
            column for column, dtype in original.schema.items() if dtype == pl.Float64 and original[column].count()
        ]
        assert floats
        assert_frame_equal(table.select(floats), original.select(floats), check_exact=True)
    assert written["points"]["reason"][1] == 'a, b\n"c"'
    if format_name == "csv":
        medians = read_table(results / "tables", "summary")["round_medians"][0].to_list()
        assert json.loads(written["summary"]["round_medians"][0]) == medians
        assert "token_seconds" not in written["samples"].columns


def test_without_results_it_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        _export("--format", "benchmark-v2", "--results", str(tmp_path))


MODEL = "stories-15m-random"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def config(**changes: Any) -> dict[str, Any]:
    """`BenchmarkConfig.to_dict()` of the version with `compile_kwargs`."""
    axes = vars(point(batch_size=1, sequence_length=128))
    return {**benchmark_config(axes, 3, 2, gpu_monitoring=False), **changes}


def write(folder: Path, content: Any, name: str = "configs.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def measured(params: Path) -> list[Configuration]:
    return [each for each in load_params(params).points() if each.round == 1]


def test_lines_become_exactly_these_configurations(
    params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"attn_implementation": "flex_attention", "compile_kwargs": {}},
        {**config(attn_implementation="paged|sdpa", continuous_batching=True, batch_size=4), "name": "mine"},
        {"attn_implementation": "flex_attention", "compile_kwargs": {"mode": "reduce-overhead"}, "batch_size": 1},
        {"attn_implementation": "sdpa", "sdpa_backend": "math", "kernelize": True, "compile_mode": None},
    ]
    path = tmp_path / "configs.jsonl"
    path.write_text("# ours\n" + "".join(json.dumps(line) + "\n" for line in lines))
    arguments = parse_arguments(["import", "configs", str(path), "--model", MODEL, "--params", str(params)])
    arguments.run(arguments)
    usual: dict[str, Any] = {"batch_size": 1, "sequence_length": 128, "max_new_tokens": 128}
    assert measured(params) == [
        point(model=MODEL, attn_implementation="flex_attention", compile_mode="reduce-overhead", **usual),
        point(model=MODEL, continuous_batching=True, **usual | {"batch_size": 4, "max_new_tokens": 4}),
        point(model=MODEL, attn_implementation="sdpa:math", use_kernels=True, **usual),
    ]
    # BenchmarkConfig compiles with fullgraph unless told otherwise.
    assert load_params(params).compile.fullgraph is True
    output = capsys.readouterr().out
    assert "3 configurations" in output
    assert "line 4 is line 2 once more" in output
    assert "compile.fullgraph is true now" in output


@pytest.mark.parametrize("wrap", [lambda each: each, lambda each: [each], lambda each: {"a1": {"config": each}}])
def test_one_a_list_and_results(params: Path, tmp_path: Path, wrap: Any) -> None:
    content = config(attn_implementation="eager", compile_kwargs={"mode": "default", "fullgraph": False})
    imported = import_configs(write(tmp_path, wrap(content)), params)
    assert imported.compile == {"backend": "inductor", "dynamic": None, "fullgraph": False, "options": {}}
    (found,) = measured(params)
    wanted = ("smollm2-135m-instruct", "eager", "default")
    assert (found.model, found.attn_implementation, found.compile_mode) == wanted


def test_what_was_exported_is_imported_as_it_was(tmp_path: Path) -> None:
    points = [
        point(),
        point(attn_implementation="sdpa:math", dtype="float32", cache_implementation="static"),
        point(compile_mode="max-autotune", use_kernels=True, batch_size=8),
        point(continuous_batching=True, max_new_tokens=7),
        point(prefill_chunk_size=4, context_depth=64),
    ]
    save_results(tmp_path, *map(full_record, points))
    write_json(tmp_path / "environment.json", {"schema_version": 1})
    (path,) = export_benchmark_v2(tmp_path, tmp_path / "out.json")
    imported = read_configs(path, ["tiny"])
    assert [Configuration(round=1, **entry) for entry in imported.entries] == points


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{}, {"attn_implementation": "flas"}], ["entry 2", "attn_implementation is 'flas'"]),
        ([{}, {"tp_plan": "auto"}], ["entry 2", "tp_plan", "'auto'"]),
        ([{"batch_size": "4"}], ["entry 1", "batch_size is '4'", "integer"]),
        ([{"compile_kwargs": {"mode": "turbo"}}], ["entry 1", "compile_kwargs.mode is 'turbo'"]),
        ([{"compile_kwargs": {"colour": 1}}], ["entry 1", "compile_kwargs", "colour"]),
        ([{"compile_kwargs": {}}, {"compile_kwargs": {"fullgraph": False}}], ["entry 2", "entry 1", "fullgraph"]),
        ([{"attn_implementation": "paged|eager"}], ["entry 1", "paged|eager", "continuous_batching is false"]),
        ([{"dtype": "torch.int8"}], ["entry 1", "dtype is 'int8'"]),
        ([{"request_lengths": "chat"}], ["request_lengths", "'chat'"]),
        ([3], ["entry 1 is 3"]),
        ([], ["holds no configuration"]),
    ],
)
def test_what_hfbench_cannot_measure_is_named_and_nothing_written(
    params: Path, tmp_path: Path, content: Any, words: list[str]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as raised:
        import_configs(path, params)
    for word in words:
        assert word in str(raised.value)
    assert params.read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize(("text", "part"), [(None, "does not exist"), ("{", "is no JSON")])
def test_a_file_that_is_none(params: Path, tmp_path: Path, text: str | None, part: str) -> None:
    path = tmp_path / "configs.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=part):
        import_configs(path, params)
