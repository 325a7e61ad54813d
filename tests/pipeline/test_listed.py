"""`configurations:`, single points beside the sweep, in a real DVC repository."""

import json
from pathlib import Path
from typing import Any

from hfbench.params.levels import rewrite
from hfbench.params.schema import load_params
from tests.pipeline.checkout import Checkout, ran

EAGER = {
    "model": "tiny",
    "attn_implementation": "eager",
    "compile_mode": "off",
    "cache_implementation": "auto",
    "use_kernels": False,
    "continuous_batching": False,
    "prefill_chunk_size": 0,
    "dtype": "bfloat16",
    "request_lengths": "uniform",
    "batch_size": 1,
    "sequence_length": 16,
    "max_new_tokens": 4,
    "context_depth": 0,
}
FIRST = "measure_listed@1-is0"


def write(checkout: Checkout, swept: list[str], *listed: dict[str, Any]) -> Path:
    path = checkout.folder / "params.yaml"
    rewrite(path, {"sweep.attn_implementation": swept, "configurations": list(listed)})
    return path


def measurements(stages: list[str]) -> list[str]:
    return [stage for stage in stages if stage.startswith("measure")]


def hfbench(checkout: Checkout, *words: str, check: bool = True) -> str:
    result = checkout.run("python", "-m", "hfbench.cli", *words, check=check)
    return result.stdout + result.stderr


def test_a_listed_point_is_measured_shown_retried_and_moves_without_measuring(fresh: Checkout) -> None:
    path = write(fresh, ["sdpa", "flash_attention_2"], EAGER)
    assert measurements(fresh.repro()) == [FIRST]
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_ok"] == 2
    assert hfbench(fresh, "show", "--point", FIRST).startswith("tiny eager b1 s16 n4\n")
    stages = load_params(path).stages()
    assert [stage for stage in stages.values() if stage.startswith("measure_listed")] == [FIRST]
    retried = hfbench(fresh, "retry", "--dry", "--status", "ok", "eager", FIRST)
    assert f"Would retry 1 point:\n  {FIRST} (1-tiny-eager-" in retried

    # To the list alone, with its keys in another order, and behind another point; then all of it into the sweep.
    write(fresh, [], {**EAGER, "attn_implementation": "sdpa"}, dict(reversed(EAGER.items())))
    assert measurements(fresh.repro()) == []
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_not_ok"] == 0
    write(fresh, ["eager", "sdpa"])
    assert measurements(fresh.repro()) == []
    assert json.loads((fresh.folder / "results/metrics.json").read_text())["points_ok"] == 2


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
    assert "configuration.dtype" in result.stderr
