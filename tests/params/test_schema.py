"""params.yaml: what is wrong is said before anything runs, with the key, the value and what is allowed."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.point import AXES
from hfbench.params.schema import load_params, read_yaml
from tests.conftest import ROOT

PARAMS = ROOT / "params.yaml"
# The first point of the shipped sweep.
LISTED = {axis: values[0] for axis, values in read_yaml(PARAMS)["sweep"].items() if axis != "round"}
KERNEL = {"layer": "RMSNorm", "device": "cpu", "path": "x", "layer_name": "RMSNorm"}
PIN = {"repository": "o/n", "revision": "0" * 40}


def write(path: Path, change: Callable[[Any], None]) -> Path:
    content = read_yaml(PARAMS)
    change(content)
    with path.open("w") as stream:
        json.dump(content, stream)  # JSON is YAML; the order of the keys stays
    return path


def setting(dotted: str, value: object) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        *parents, last = dotted.split(".")
        for parent in parents:
            content = content[parent]
        content[last] = value

    return change


def test_the_shipped_file_is_right_and_rounds_come_first() -> None:
    points = load_params(PARAMS).points()
    assert len(points) == 12
    assert [point.round for point in points] == [1] * 4 + [2] * 4 + [3] * 4
    assert AXES[0] == "round"


@pytest.mark.parametrize("key", ["max_seconds", "timeout_seconds"])
def test_no_limit_is_no_number(tmp_path: Path, key: str) -> None:
    (path := tmp_path / "params.yaml").write_text(re.sub(rf"{key}: \d+", f"{key}: .inf", PARAMS.read_text()))
    with pytest.raises(UserError, match=rf"sampling.{key} is inf; expected a finite number"):
        load_params(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sweep.atention", ["eager"], ["sweep.atention", "attn_implementation"]),
        ("sweep.attn_implementation", ["egaer"], ["sweep.attn_implementation.0", "'egaer'", "eager"]),
        ("sweep.attn_implementation", ["sdpa|x"], ["'sdpa|x'"]),
        ("sweep.attn_implementation", ["a/b;c"], ["'a/b;c'"]),
        ("sweep.attn_implementation", ["a/b@main"], ["'a/b@main'", "its commit goes under kernels"]),
        ("sweep.compile_mode", ["defualt"], ["'defualt'", "'default'"]),
        ("sweep.compile_mode", [False], ["sweep.compile_mode.0", "False", "'off'"]),
        ("compare.threshold", 2, ["compare.threshold", "2", "less than 1"]),
        ("sweep.request_rate", ["2", "2.0"], ["sweep.request_rate.1", "'2.0'", "in its shortest form"]),
        ("sweep.request_rate", [2.0], ["sweep.request_rate.0", "in its shortest form"]),
        ("compare.treshold", 0.02, ["compare.treshold", "threshold"]),
        ("sweep.batch_size", [0], ["sweep.batch_size.0", "0", "greater than or equal to 1"]),
        ("sweep.batch_size", ["4"], ["'4'", "integer"]),
        ("sweep.batch_size", [True], ["True", "integer"]),
        ("sweep.batch_size", 4, ["sweep.batch_size", "list"]),
        ("sweep.round", [], ["sweep.round", "at least 1"]),
        ("sweep.sequence_length", [], ["sweep.sequence_length is empty", "nothing to measure"]),
        ("sweep.dtype", ["bf16"], ["'bf16'", "'bfloat16'"]),
        ("sweep.use_kernels", ["yes"], ["'yes'", "boolean"]),
        ("sweep.round", [1, 1], ["sweep.round", "differ"]),
        ("sweep.model", ["nobody"], ["'nobody'", "smollm2-135m-instruct"]),
        ("sweep.cache_implementation", ["paged"], ["'paged'", "'static'"]),
        ("sweep.prefill_chunk_size", [-1], ["sweep.prefill_chunk_size.0", "greater than or equal to 0"]),
        ("sweep.request_lengths", ["mixed"], ["'mixed'", "not under request_lengths", "uniform"]),
        ("configurations", [{"model": "m"}], ["configurations.0.dtype is missing"]),
        ("configurations", [LISTED | {"batch": 4}], ["configurations.0.batch is not a key"]),
        ("configurations", [LISTED | {"model": "gpt2-124m-random"}], ["'gpt2-124m-random'", "sweep.model"]),
        ("configurations", [LISTED], ["configurations.0 is in the sweep already"]),
        ("configurations", [LISTED | {"batch_size": 9}] * 2, ["configurations.1 is configurations.0 already"]),
        (
            "request_lengths",
            {"uniform": {"requests": 4, "sigma": 1.0}},
            ["request_lengths", "other names than uniform"],
        ),
        ("request_lengths.mixed", {"requests": 4}, ["request_lengths.mixed.sigma is missing"]),
        ("request_lengths.mixed", {"requests": 8, "sigma": 9.0}, ["request_lengths.mixed.sigma is 9.0"]),
        ("request_lengths.mixed", {"prompt_tokens": [4, 2], "new_tokens": [1]}, ["as many new_tokens", "1 and 2"]),
        (
            "request_lengths.mixed",
            {"prompt_tokens": [8, 0], "new_tokens": [8, 1]},
            ["request_lengths.mixed.prompt_tokens.1 is 0"],
        ),
        ("compile.dynamik", True, ["compile.dynamik", "dynamic"]),
        ("continuous_batching.page_size", 2, ["continuous_batching.page_size", "greater than or equal to 4"]),
        ("kernels", [{"layer": "RMSNorm", "path": "x"}], ["kernels.0.device is missing"]),
        ("kernels", [{"layer": "RMSNorm", "device": "cpu", "repository": "x"}], ["kernels.0.repository", "OWNER/NAME"]),
        ("kernels", [KERNEL | {"device": "gpu"}], ["kernels.0.device", "'gpu'", "'cuda'"]),
        ("kernels", [KERNEL | {"layr": "RMSNorm"}], ["kernels.0.layr is not a key"]),
        ("kernels", [KERNEL, KERNEL], ["kernels.1 replaces RMSNorm on cpu, as kernels.0 does"]),
        ("kernels", [{"repository": "o/n"}], ["kernels.0.revision is missing"]),
        (
            "kernels",
            [{"repository": "o/n", "revision": "main"}],
            ["'main'", "40 hexadecimal digits", "docs/kernels.md"],
        ),
        ("kernels", [PIN, PIN | {"revision": "1" * 40}], ["kernels.1.revision is not that of kernels.0", "o/n"]),
        ("device", "gpu", ["device", "'gpu'", "cuda:1"]),
        ("prompt", "a $(b)", ["prompt", "path"]),
        ("sampling.stopping_rule", "exact", ["'exact'", "'precision'"]),
        ("sampling.max_iterations", 2, ["max_iterations", "2", "min_iterations"]),
        ("sampling.timeout_seconds", 0, ["sampling.timeout_seconds", "greater than 0"]),
        ("sampling.unobserved_every", 1, ["sampling.unobserved_every", "2 and more"]),
        ("sampling.monitor_interval_seconds", 0.001, ["sampling.monitor_interval_seconds", "0.05"]),
        ("sampling.max_second", 5, ["sampling.max_second", "max_seconds"]),
        ("configurations", [{"model": "x", "use_kernel": True}], ["configurations.0.use_kernel ", "mean use_kernels?"]),
        ("configurations", [{"model": "x"}], ["configurations.0.batch_size is missing"]),
        ("configurations", [[]], ["configurations.0"]),
        ("models.mine", {"source": "disk"}, ["models.mine.source", "'disk'", "local"]),
        ("models.mine", {"source": "hub", "repository": "x"}, ["models.mine.repository", "OWNER/NAME"]),
        ("models.mine", {"source": "pypi", "wheel": "x", "file": "a.gguf"}, ["models.mine.wheel", "NAME==VERSION"]),
        ("models.mine", {"source": "local"}, ["models.mine.path", "missing"]),
        ("models.a b", {"source": "local", "path": "x"}, ["a b", "name"]),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, key: str, value: object, words: list[str]) -> None:
    path = write(tmp_path / "params.yaml", setting(key, value))
    with pytest.raises(UserError) as error:
        load_params(path)
    for word in words:
        assert word in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["sweep"]["dtype"] = ["half"]
        content["sweep"].pop("batch_size")
        content["device"] = "tpu9"

    with pytest.raises(UserError) as error:
        load_params(write(tmp_path / "params.yaml", change))
    for told in ("'half'", "'tpu9'", "sweep.batch_size is missing. Add it as a list of at least one value."):
        assert told in str(error.value)


def test_single_configurations_are_measured_in_each_round_beside_the_sweep(tmp_path: Path) -> None:
    params = load_params(write(tmp_path / "params.yaml", setting("configurations", [LISTED | {"batch_size": 9}])))
    points, stages = params.points(), params.stages()
    assert [point.round for point in points] == [1] * 5 + [2] * 5 + [3] * 5
    assert [stages[point] for point in points if point.batch_size == 9] == [
        f"measure_listed@{number}-is0" for number in (1, 2, 3)
    ]
    assert stages[points[0]].startswith("measure@1-smollm2-135m-instruct-eager-off-")


def test_axes_of_a_single_configuration_stand_in_the_order_of_the_sweep(tmp_path: Path) -> None:
    other = {axis: ({**LISTED, "batch_size": 10})[axis] for axis in reversed(LISTED)}
    with pytest.raises(
        UserError, match=r"configurations\.1 has context_depth where model is expected.* in the order of sweep"
    ):
        load_params(write(tmp_path / "params.yaml", setting("configurations", [LISTED | {"batch_size": 9}, other])))


def test_a_sweep_with_an_empty_axis_has_the_listed_points_alone(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["sweep"].update(compile_mode=[], dtype=["float32"], request_lengths=["nowhere"], sequence_length=[9**9])
        content["sweep"]["model"] += ["gpt2-124m-random"]
        content["configurations"] = [LISTED]

    params = load_params(write(tmp_path / "params.yaml", change))
    assert len(params.points()) == 3
    assert params.dtypes() == ["bfloat16"]
    assert [shape.file_name for shape in params.workloads(LISTED["model"]).shapes] == [
        "uniform/b1-s64-n16-d0.safetensors"
    ]
    assert params.workloads("gpt2-124m-random").shapes == []


def test_inputs_are_made_for_each_batch_size_and_length_once(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["sweep"].update(sequence_length=[8, 128], request_lengths=["uniform", "few"])
        content["request_lengths"] = {name: {"requests": 4, "sigma": 1.0} for name in ("few", "others")}

    workloads = load_params(write(tmp_path / "params.yaml", change)).workloads(LISTED["model"])
    assert [shape.file_name for shape in workloads.shapes] == [
        f"{name}/b{batch}-s{length}-n16-d0.safetensors"
        for name in ("uniform", "few")
        for batch in (1, 2)
        for length in (8, 128)
    ]
    assert list(workloads.request_lengths) == ["few"]


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        ("sequence_length", [64, 32], "request_lengths.few has at most 64 prompt tokens, .* sequence_length 32"),
        ("max_new_tokens", [8], "request_lengths.few has at most 16 new tokens, .* max_new_tokens 8"),
    ],
)
def test_a_list_whose_longest_is_not_the_axis_value(tmp_path: Path, axis: str, value: list[int], words: str) -> None:
    def change(content: Any) -> None:
        content["request_lengths"] = {"few": {"prompt_tokens": [64, 32, 16], "new_tokens": [8, 16, 4]}}
        content["sweep"].update({"request_lengths": ["uniform", "few"], axis: value})

    with pytest.raises(UserError, match=words):
        load_params(write(tmp_path / "params.yaml", change))


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace('["off"]', "[off]"))
    assert load_params(path).sweep.compile_mode == ["off"]


def test_file_that_is_missing_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("sweep: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
