"""What `dvc repro` measures again, and what it does not."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from hfbench.checkouts.interleave import stages_of_round
from hfbench.core.errors import UserError
from hfbench.params.levels import rewrite
from hfbench.params.schema import load_params
from tests.pipeline.checkout import QUICK_SAMPLING, Checkout, clone, measurements, ran, tiny_point


def test_a_sweep_with_an_impossible_point_is_complete(measured: Checkout) -> None:
    records = sorted((measured.folder / "results/measurements").rglob("*.json"))
    statuses = {json.loads(path.read_text())["status"] for path in records}
    assert statuses == {"ok", "unsupported"}
    metrics = json.loads((measured.folder / "results/metrics.json").read_text())
    assert (metrics["points_ok"], metrics["points_not_ok"]) == (1, 1)
    assert metrics["best_decode_tokens_per_second"] > 0
    assert (measured.folder / "results/report.html").is_file()


def test_results_leave_git_clean(measured: Checkout) -> None:
    assert measured.run("git", "status", "--porcelain").stdout == ""


def test_a_new_axis_value_measures_only_the_new_points(fresh: Checkout) -> None:
    fresh.change_params(lambda content: content["sweep"].update(batch_size=[1, 2]))
    new = measurements(fresh.repro())
    assert len(new) == 2
    assert all("-2-16-4" in stage for stage in new)
    summary = json.loads((fresh.folder / "results/metrics.json").read_text())
    assert summary["points_ok"] == 2


def test_sampling_measures_all_and_going_back_measures_nothing(fresh: Checkout) -> None:
    fresh.change_params(lambda content: content["sampling"].update(min_iterations=3))
    assert len(measurements(fresh.repro())) == 2
    fresh.change_params(lambda content: content["sampling"].update(min_iterations=2))
    assert measurements(fresh.repro()) == []
    record = next((fresh.folder / "results/measurements").rglob("*sdpa*.json"))
    assert json.loads(record.read_text())["sampling"]["min_iterations"] == 2


def test_dropping_an_axis_value_drops_its_points_from_the_tables(fresh: Checkout) -> None:
    fresh.change_params(lambda content: content["sweep"].update(attn_implementation=["sdpa"]))
    assert measurements(fresh.repro()) == []
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_not_ok"] == 0


@pytest.mark.parametrize(
    ("file", "runs"), [("hfbench/report/pages.py", ["report"]), ("hfbench/tables/summary.py", ["tables", "report"])]
)
def test_editing_what_is_shown_measures_nothing(fresh: Checkout, file: str, runs: list[str]) -> None:
    fresh.append(file, "\n# edited\n")
    again = fresh.repro()
    # The bytes of the tables are the same as before, and the report depends on the room of the tables too.
    assert again == runs


@pytest.mark.parametrize("file", ["hfbench/measure/sampling.py", "hfbench/measure/generation.py"])
def test_editing_the_timing_loop_measures_all(fresh: Checkout, file: str) -> None:
    fresh.append(file, "\n# edited\n")
    assert len(measurements(fresh.repro())) == 2


def test_another_environment_measures_all(fresh: Checkout) -> None:
    other = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    assert len(measurements(fresh.repro(OMP_NUM_THREADS=other))) == 2


def test_byte_code_measures_nothing(fresh: Checkout) -> None:
    assert fresh.repro(PYTHONDONTWRITEBYTECODE="") == []
    assert fresh.repro() == []


def test_edited_model_folder_measures_all(fresh: Checkout) -> None:
    path = Path(_params(fresh)["models"]["tiny"]["path"])
    config = path / "generation_config.json"
    before = config.read_text()
    try:
        config.write_text(before.replace("{", '{"edited": 1,', 1))
        assert len(measurements(fresh.repro())) == 2
    finally:
        config.write_text(before)


def _params(checkout: Checkout) -> dict[str, Any]:
    from hfbench.params.schema import read_yaml

    content: dict[str, Any] = read_yaml(checkout.folder / "params.yaml")
    return content


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        ("atention", ["eager"], ["sweep.atention"]),
        ("attn_implementation", ["sdpa", "sdpa|touch broken"], ["sdpa|touch broken"]),
        ("sequence_length", [16, 4096], ["sequence_length", "4096", "128", "tiny"]),
    ],
)
def test_wrong_values_end_before_anything_is_measured(
    fresh: Checkout, axis: str, value: list[object], words: list[str]
) -> None:
    fresh.change_params(lambda content: content["sweep"].update({axis: value}))
    result = fresh.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert ran(result.stdout) in ([], ["inputs@tiny"]), "nothing is measured"
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert not (fresh.folder / "broken").exists()


def test_experiments_and_metrics(fresh: Checkout) -> None:
    assert "measure@" in fresh.run("dvc", "dag").stdout
    fresh.run("dvc", "exp", "run", "--set-param", "sweep.batch_size=[2]")
    table = fresh.run("dvc", "exp", "show", "--csv").stdout
    assert "best_decode_tokens_per_second" in table
    fresh.commit("batch of two")
    diff = json.loads(fresh.run("dvc", "metrics", "diff", "--json", "HEAD~1", "HEAD").stdout)
    changed = diff["results/metrics.json"]
    assert changed["best_end_to_end_seconds"].keys() >= {"old", "new"}


def test_an_edited_local_kernel_measures_the_points_that_use_it(fresh: Checkout) -> None:
    path = "examples/kernels/rmsnorm-cpu"
    kernel = {"layer": "RMSNorm", "device": "cpu", "path": path, "layer_name": "RMSNorm"}
    fresh.change_params(lambda content: content.update(kernels=[kernel]))
    fresh.change_params(
        lambda content: content["sweep"].update(attn_implementation=["sdpa"], use_kernels=[False, True])
    )
    assert len(measurements(fresh.repro())) == 1
    record = next((fresh.folder / "results/measurements").rglob("*sdpa-off-auto-true-*.json"))
    assert json.loads(record.read_text())["effective"]["kernelized_layers"][0]["path"] == path
    fresh.append(f"{path}/build/torch-universal/layers.py", "\n# edited\n")
    assert len(measurements(fresh.repro())) == 1


EAGER = {axis: value for axis, value in vars(tiny_point("eager")).items() if axis != "round"}
FIRST = "measure_listed@1-is0"


def write(checkout: Checkout, swept: list[str], *listed: dict[str, Any]) -> Path:
    path = checkout.folder / "params.yaml"
    rewrite(path, {"sweep.attn_implementation": swept, "configurations": list(listed)})
    return path


def of_measure(stages: list[str]) -> list[str]:
    return [stage for stage in stages if stage.startswith("measure")]


def hfbench(checkout: Checkout, *words: str, check: bool = True) -> str:
    result = checkout.run("python", "-m", "hfbench.cli", *words, check=check)
    return result.stdout + result.stderr


def test_a_listed_point_is_measured_shown_retried_and_moves_without_measuring(fresh: Checkout) -> None:
    path = write(fresh, ["sdpa", "flash_attention_2"], EAGER)
    assert of_measure(fresh.repro()) == [FIRST]
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_ok"] == 2
    assert hfbench(fresh, "show", "--point", FIRST).startswith("tiny eager b1 s16 n4\n")
    stages = load_params(path).stages()
    assert [stage for stage in stages.values() if stage.startswith("measure_listed")] == [FIRST]
    retried = hfbench(fresh, "retry", "--dry", "--status", "ok", "eager", FIRST)
    assert f"Would retry 1 point:\n  {FIRST} (1-tiny-eager-" in retried

    # To the list alone, and behind another point; then all of it into the sweep.
    write(fresh, [], {**EAGER, "attn_implementation": "sdpa"}, EAGER)
    assert of_measure(fresh.repro()) == []
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_not_ok"] == 0
    write(fresh, ["eager", "sdpa"])
    assert of_measure(fresh.repro()) == []
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_ok"] == 2


def test_a_sweep_without_points_makes_and_refuses_nothing_beside_the_listed(fresh: Checkout) -> None:
    def change(content: Any) -> None:
        content["models"]["spare"] = content["models"]["tiny"]
        content["sweep"].update(
            model=["tiny", "spare"],
            compile_mode=["off", "default"],
            dtype=["bfloat16", "float32"],
            request_lengths=["uniform", "nowhere"],
            batch_size=[1, 8],
            sequence_length=[16, 4096],  # the model has 128 positions
        )
        content["sweep"].update(attn_implementation=[])

    fresh.change_params(change)
    write(fresh, [], {**EAGER, "attn_implementation": "sdpa"})
    # What is listed was measured in the sweep, on the same inputs; the other model has no point.
    assert ran(fresh.run("dvc", "repro").stdout) == ["model@spare", "inputs@spare", "tables", "report"]
    results = fresh.folder / "results"
    assert [path.name for path in (results / "inputs").rglob("*.safetensors")] == ["b1-s16-n4-d0.safetensors"]
    assert json.loads((results / "settings/dtypes.json").read_text()) == ["bfloat16"]
    assert [path.name for path in (results / "settings").glob("sdpa*")] == [
        "sdpa-off-auto-false-none-false-none-inf.json"
    ]

    write(fresh, [], {**EAGER, "sequence_length": 4096})
    stderr = fresh.run("dvc", "repro", check=False).stderr
    assert "sequence_length is 4096, and the model 'tiny' has 128 positions" in stderr


def test_a_model_that_drafts_is_made_once_and_its_settings_are_its_points_alone(fresh: Checkout) -> None:
    def draft(content: Any) -> None:
        content["models"]["small"] = content["models"]["tiny"]
        content["sweep"].update(
            attn_implementation=["sdpa"], batch_size=[1], assistant=["none", "prompt_lookup", "small"]
        )

    fresh.change_params(draft)
    stages = fresh.repro()
    assert {"assistant@prompt_lookup", "assistant@small"} <= set(stages)
    assert "model@small" not in stages  # it is not measured
    records = {
        record["configuration"]["assistant"]: record
        for record in (json.loads(path.read_text()) for path in (fresh.folder / "results/measurements").glob("*.json"))
        if record["configuration"]["attn_implementation"] == "sdpa"
    }
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(records, "ok")
    assert len(records) == 3
    rewrite(fresh.folder / "params.yaml", {"assisted_decoding.prompt_lookup_num_tokens": 4})
    assert [stage.split("-")[-10] for stage in of_measure(fresh.repro())] == ["prompt_lookup"]
    told = "configurations.0.assistant is 'tiny', not one of sweep.assistant"
    with pytest.raises(UserError, match=re.escape(f"{told} (none, prompt_lookup, small). Add it there.")):
        write(fresh, ["sdpa"], {**EAGER, "assistant": "tiny"})


def test_an_entry_that_is_not_complete_is_told(fresh: Checkout) -> None:
    path = write(fresh, ["sdpa"], EAGER)
    path.write_text(path.read_text().replace(", dtype: bfloat16, request", ", dtyp: bfloat16, request"))
    told = hfbench(fresh, "check", check=False)
    assert "configurations.0.dtype is missing" in told
    assert "configurations.0.dtyp is not a key" in told
    # DVC composes the commands before hfbench can say anything.
    result = fresh.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert ran(result.stdout) == []
    assert "item.is.dtype" in result.stderr


def test_the_default_model_is_measured(tmp_path: Path) -> None:
    checkout = clone(tmp_path / "checkout")

    def one_round(content: Any) -> None:
        content["sweep"].update(round=[1], attn_implementation=["eager", "sdpa"], batch_size=[2])
        content["sweep"].update(sequence_length=[64], max_new_tokens=[16])
        content["sampling"].update(QUICK_SAMPLING)

    checkout.change_params(one_round)
    output = checkout.run("dvc", "repro").stdout
    assert "TTFT" in output
    assert "report: results/report.html" in output
    records = [json.loads(path.read_text()) for path in (checkout.folder / "results/measurements").glob("*.json")]
    assert [record["status"] for record in records] == ["ok", "ok"]
    for record in records:
        # Nats a token: a model whose weights or tokenizer are not its own is far above.
        assert record["output"]["prompt_nll"] < 4.5
        assert len(record["output"]["text"].split()) > 5
        assert record["effective"]["parameters"] == 134_515_008
    first, second = (record["output"]["prompt_top1"] for record in records)
    agreement = sum(left == right for left, right in zip(first, second, strict=True)) / len(first)
    assert agreement > 0.9


def test_the_pattern_of_a_round_means_its_points_and_no_others(fresh: Checkout) -> None:
    path = write(fresh, ["sdpa:math", "kernels-community/flash-attn3"], EAGER)
    rewrite(path, {"sweep.round": list(range(1, 12))})
    fresh.run("python", "-m", "stages.environment")  # which writes what points depend on
    meant = ran(fresh.run("dvc", "repro", "--dry", "--single-item", *stages_of_round(1)).stdout)
    assert meant == [stage for point, stage in load_params(path).stages().items() if point.round == 1]
    assert len(meant) == 3
