"""`hfbench import configs`: files of configurations as transformers' benchmark_v2 reads them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfbench.cli import parse_arguments
from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.point import Configuration
from hfbench.exchange.configs import benchmark_config, import_configs, read_configs
from hfbench.exchange.export import export_benchmark_v2
from hfbench.params.schema import load_params
from tests.conftest import ROOT
from tests.report.report_records import full_record, save_results
from tests.tables.hand_records import point

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
