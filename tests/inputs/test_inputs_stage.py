"""The stage as DVC runs it: a process, from a manifest and params.yaml to a folder of files."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import Manifest
from hfbench.core.results import INPUTS, manifest_path
from hfbench.params.values import Sweep
from tests.conftest import ROOT, run_stage

MakeManifest = Callable[..., Manifest]
MakeSweep = Callable[[list[int], list[int], list[int]], Sweep]
STANDARD = ROOT / "hfbench" / "inputs" / "standard_prompt.txt"


def run_inputs(
    folder: Path, manifest: Manifest, sweep: Sweep, prompt: Path = STANDARD
) -> subprocess.CompletedProcess[str]:
    """Run `stages.inputs`; its files lie in `folder / INPUTS`."""
    manifest.save(folder / manifest_path("tiny"))
    params: dict[str, Any] = {
        "models": {"tiny": {"source": "local", "path": "tiny"}},
        "sweep": sweep.model_dump(),
        "configurations": [],
        "device": "cpu",
        "prompt": str(prompt),
        "sampling": {
            "stopping_rule": "fixed",
            "min_warmup_iterations": 0,
            "max_warmup_iterations": 0,
            "min_iterations": 1,
            "max_iterations": 1,
            "target_precision": 0.1,
            "max_seconds": 1.0,
            "unobserved_every": 0,
            "timeout_seconds": 60.0,
            "monitor_interval_seconds": 0.0,
        },
        "limits": {"min_top1_agreement": 0.9, "max_nll_difference": 0.05},
    }
    (folder / "params.yaml").write_text(json.dumps(params))  # JSON is YAML
    return run_stage("inputs", folder, "tiny")


def test_adding_a_shape_changes_no_other_file(
    tmp_path: Path, make_manifest: MakeManifest, make_sweep: MakeSweep
) -> None:
    manifest = make_manifest("gpt2")
    run = run_inputs(tmp_path, manifest, make_sweep([1], [16], [4, 8]))
    assert run.returncode == 0
    assert "longer than" not in run.stderr  # its model_max_length is less than the prompt, and no row is that long
    before = (tmp_path / INPUTS / "tiny/uniform" / "b1-s16-n8-d0.safetensors").read_bytes()
    assert run_inputs(tmp_path, manifest, make_sweep([1, 2], [16, 300], [4, 8])).returncode == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / INPUTS / "tiny/uniform").iterdir()}
    assert set(files) == {
        f"b{batch}-s{length}-n{new}-d0.safetensors" for batch in (1, 2) for length in (16, 300) for new in (4, 8)
    }
    assert files["b1-s16-n8-d0.safetensors"] == before


@pytest.mark.parametrize(
    ("sequence_length", "changes", "expected"),
    [
        ([16, 65], {"max_position_embeddings": 64}, "sequence_length is 65, and the model 'tiny' has 64"),
        ([16, 60], {"max_position_embeddings": 64}, "sequence_length is 60 and max_new_tokens is 8"),
        ([16], {"vocab_size": 500}, "vocab_size is 500"),
        ([16, 1], {}, "sequence_length is 1, and the tokenizer of 'tiny' begins each row with 1"),
    ],
)
def test_what_cannot_be_made_is_a_sentence_and_no_file(
    tmp_path: Path,
    make_manifest: MakeManifest,
    make_sweep: MakeSweep,
    sequence_length: list[int],
    changes: dict[str, int],
    expected: str,
) -> None:
    run = run_inputs(tmp_path, make_manifest("llama", **changes), make_sweep([1], sequence_length, [4, 8]))
    assert run.returncode == 1
    assert run.stderr.startswith("hfbench: ")
    assert expected in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / INPUTS).exists()


def test_positions_and_prompt_are_checked_before_the_model_is_touched(
    tmp_path: Path, make_manifest: MakeManifest, make_sweep: MakeSweep
) -> None:
    # A folder that does not exist would be the complaint of whatever looks at the model.
    manifest = make_manifest(
        "gpt2", max_position_embeddings=64, source={"source": "local", "path": str(tmp_path / "nowhere")}
    )
    assert "sequence_length is 65" in run_inputs(tmp_path, manifest, make_sweep([1], [65], [4, 8])).stderr
    missing = run_inputs(tmp_path, manifest, make_sweep([1], [16], [4, 8]), prompt=tmp_path / "no-prompt.txt")
    assert missing.returncode == 1
    assert missing.stderr.startswith("hfbench: the prompt ")
    assert "no-prompt.txt does not exist" in missing.stderr
