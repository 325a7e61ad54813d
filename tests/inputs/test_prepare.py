"""The files that a manifest, a sweep and a prompt become."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaConfig

from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.core.record import Manifest
from hfbench.core.results import INPUTS, manifest_path
from hfbench.core.sources import RandomSource
from hfbench.inputs import artifact
from hfbench.inputs.artifact import read_metadata
from hfbench.inputs.prepare import count_distinct, exact_rows, prepare_inputs
from hfbench.model.manifest import fingerprint, resolve
from hfbench.params.values import Sweep
from tests.conftest import ROOT, run_stage

MakeManifest = Callable[..., Manifest]
MakePoints = Callable[[list[int], list[int], list[int]], list[Configuration]]
STANDARD = ROOT / "hfbench/inputs/standard_prompt.txt"


def read_rows(path: Path) -> list[list[int]]:
    with safe_open(path, framework="numpy") as file:
        mask = file.get_tensor("attention_mask")
        rows = file.get_tensor("input_ids")
    assert mask.shape == rows.shape
    assert mask.dtype == rows.dtype == "int64"
    assert mask.min() == 1
    assert mask.max() == 1
    result: list[list[int]] = rows.tolist()
    return result


def test_rows_are_the_prompt_read_on_from_row_to_row(
    tmp_path: Path, make_manifest: MakeManifest, make_points: MakePoints
) -> None:
    manifest = make_manifest("appends-eos")
    prepare_inputs(manifest, make_points([3], [40], [8]), STANDARD, tmp_path, {})
    rows = read_rows(tmp_path / "uniform" / "b3-s40-n8-d0.safetensors")
    assert [len(row) for row in rows] == [40, 40, 40]
    assert [row[0] for row in rows] == [0, 0, 0]  # BOS
    tokenizer = AutoTokenizer.from_pretrained(manifest.source["path"])
    text_ids = [token_id for row in rows for token_id in row[1:]]
    assert STANDARD.read_text().startswith(str(tokenizer.decode(text_ids, clean_up_tokenization_spaces=False)))
    assert tokenizer.eos_token_id not in text_ids


def test_a_long_row_repeats_a_short_prompt(
    tmp_path: Path, make_manifest: MakeManifest, make_points: MakePoints
) -> None:
    prompt = tmp_path / "short.txt"
    prompt.write_text("The river runs to the sea.\n")
    prepare_inputs(make_manifest("gpt2"), make_points([2], [100], [8]), prompt, tmp_path, {})
    path = tmp_path / "uniform" / "b2-s100-n8-d0.safetensors"
    period = int(read_metadata(path)["prompt_tokens"])
    assert period < 50
    first, second = read_rows(path)
    stream = first + second
    assert all(stream[index] == stream[index % period] for index in range(200))


def test_the_tokenizer_is_loaded_once_for_all_shapes(
    tmp_path: Path, make_manifest: MakeManifest, make_points: MakePoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = AutoTokenizer.from_pretrained, []

    def count(folder: Path, **options: Any) -> Any:
        loaded.append(folder)
        return load(folder, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", count)
    prepare_inputs(make_manifest("gpt2"), make_points([1, 2], [8, 16], [8]), STANDARD, tmp_path, {})
    assert len(list((tmp_path / "uniform").iterdir())) == 4
    assert len(loaded) == 1


def test_a_random_model_with_a_smaller_vocabulary_than_its_tokenizer(
    tmp_path: Path, model_folders: dict[str, Path], make_points: MakePoints
) -> None:
    config = tmp_path / "tiny.json"
    LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    ).to_json_file(config)
    source = RandomSource(source="random", config=str(config), tokenizer=str(model_folders["appends-eos"]))
    manifest = resolve("random", fingerprint("random", {"random": source}), None)
    prepare_inputs(manifest, make_points([2], [32], [8]), STANDARD, tmp_path / "inputs", {})
    path = tmp_path / "inputs" / "uniform" / "b2-s32-n8-d0.safetensors"
    assert max(token_id for row in read_rows(path) for token_id in row) < 100
    assert read_metadata(path)["folded"] == "true"


def test_the_metadata_says_what_the_rows_were_made_from(
    tmp_path: Path, make_manifest: MakeManifest, make_points: MakePoints
) -> None:
    prepare_inputs(make_manifest("llama"), make_points([2], [16], [8]), STANDARD, tmp_path, {})
    metadata = read_metadata(tmp_path / "uniform" / "b2-s16-n8-d0.safetensors")
    assert int(metadata.pop("prompt_tokens")) > 2048
    assert len(metadata.pop("tokenizer_sha256")) == 64
    assert metadata.pop("prompt_sha256") == hashlib.sha256(STANDARD.read_bytes()).hexdigest()
    assert metadata == {
        "prompt_file": "standard_prompt.txt",
        "prefix_tokens": "1",
        "tokenizer_class": "TokenizersBackend",
        "tokenizer_vocab_size": "600",
        "eos_token_id": "2",
        "pad_token_id": "2",
        "pad_token": "</s>",
        "pad_token_source": "eos",
        "folded": "false",
        "batch_size": "2",
        "sequence_length": "16",
        "context_depth": "0",
        "distinct_rows": "2",
    }


def test_a_prompt_of_one_token_needs_a_context_with_the_special_token(
    tmp_path: Path, make_manifest: MakeManifest, make_points: MakePoints
) -> None:
    alone = make_points([1], [1], [8])
    with pytest.raises(UserError, match=r"sequence_length is 1, and .* leaves no room for text. Ask for at least 2"):
        prepare_inputs(make_manifest("llama"), alone, STANDARD, tmp_path, {})
    after = [replace(point, context_depth=20) for point in alone]
    prepare_inputs(make_manifest("llama"), after, STANDARD, tmp_path, {})
    (row,) = read_rows(tmp_path / "uniform" / "b1-s1-n8-d20.safetensors")
    assert len(row) == 21


MakeSweep = Callable[[list[int], list[int], list[int]], Sweep]


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


INPUT_IDS = np.arange(6, dtype=np.int64).reshape(2, 3)
METADATA = {f"key_{index}": f"value {index}" for index in range(12)} | {"pad_token": "</s> é ▁"}


def write_file(path: Path) -> Path:
    artifact.write(path, INPUT_IDS, np.ones_like(INPUT_IDS), METADATA)
    return path


def test_safetensors_reads_back_what_was_written(tmp_path: Path) -> None:
    path = write_file(tmp_path / "inputs.safetensors")
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == ["attention_mask", "input_ids"]
        assert file.get_tensor("input_ids").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.get_tensor("attention_mask").tolist() == [[1, 1, 1], [1, 1, 1]]
        assert file.get_tensor("input_ids").dtype == np.int64
        assert file.metadata() == METADATA


def test_tensors_that_are_no_contiguous_memory_keep_their_rows(tmp_path: Path) -> None:
    turned = INPUT_IDS.T
    artifact.write(tmp_path / "a", turned, np.ones_like(turned), METADATA)
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert file.get_tensor("input_ids").tolist() == [[0, 3], [1, 4], [2, 5]]


def test_bytes_are_equal_in_every_process_and_for_every_order_of_metadata(tmp_path: Path) -> None:
    # safetensors itself orders 13 entries anew at each call: two equal files of it would be one chance in 13!.
    here = write_file(tmp_path / "here").read_bytes()
    artifact.write(tmp_path / "turned", INPUT_IDS, np.ones_like(INPUT_IDS), dict(reversed(METADATA.items())))
    program = (
        "import sys, numpy as np; from pathlib import Path; from hfbench.inputs import artifact\n"
        "ids = np.arange(6, dtype=np.int64).reshape(2, 3)\n"
        f"artifact.write(Path(sys.argv[1]), ids, np.ones_like(ids), {METADATA!r})"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], check=True)
    assert (tmp_path / "turned").read_bytes() == here
    assert (tmp_path / "there").read_bytes() == here


def test_the_header_is_sorted_json_padded_with_spaces_to_eight_bytes(tmp_path: Path) -> None:
    content = write_file(tmp_path / "inputs.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    assert size % 8 == 0
    assert header.rstrip(b" ").endswith(b"}")
    assert list(json.loads(header)["__metadata__"]) == sorted(METADATA)
    assert len(content) == 8 + size + 2 * INPUT_IDS.nbytes


def test_metadata_is_read_without_numpy_or_torch(tmp_path: Path) -> None:
    path = write_file(tmp_path / "inputs.safetensors")
    program = (
        "import sys; from pathlib import Path; from hfbench.inputs.artifact import read_metadata\n"
        "print(read_metadata(Path(sys.argv[1]))['key_3'], {'numpy', 'torch', 'safetensors'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "value 3 set()"
    assert artifact.read_metadata(path) == METADATA


@pytest.mark.parametrize(
    ("input_ids", "attention_mask"),
    [
        (INPUT_IDS.astype(np.int32), np.ones_like(INPUT_IDS)),
        (INPUT_IDS, np.ones((2, 3))),
        (INPUT_IDS, np.ones((2, 2), dtype=np.int64)),
        (INPUT_IDS[0], np.ones(3, dtype=np.int64)),
    ],
)
def test_other_dtypes_and_shapes_are_refused(tmp_path: Path, input_ids: np.ndarray, attention_mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="input_ids"):
        artifact.write(tmp_path / "inputs.safetensors", input_ids, attention_mask, METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        (9).to_bytes(8, "little") + b"not json!",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xfe",
    ],
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b1-s8.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"b1-s8\.safetensors is not an inputs file .* Delete it and run `dvc repro`"):
        artifact.read_metadata(path)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b1-s8\.safetensors does not exist. Run `dvc repro`"):
        artifact.read_metadata(tmp_path / "b1-s8.safetensors")


NO_PREFIX = np.array([], dtype=np.int64)
TEXT = np.array([10, 11, 12, 13, 14], dtype=np.int64)


def test_each_row_reads_on_where_the_one_before_ended() -> None:
    rows = exact_rows(NO_PREFIX, TEXT, batch_size=2, sequence_length=2)
    assert rows.tolist() == [[10, 11], [12, 13]]


def test_a_short_text_begins_again_in_the_middle_of_a_row() -> None:
    rows = exact_rows(NO_PREFIX, TEXT, batch_size=3, sequence_length=4)
    assert rows.tolist() == [[10, 11, 12, 13], [14, 10, 11, 12], [13, 14, 10, 11]]


def test_a_row_may_be_longer_than_the_text() -> None:
    rows = exact_rows(NO_PREFIX, TEXT[:2], batch_size=2, sequence_length=5)
    assert rows.tolist() == [[10, 11, 10, 11, 10], [11, 10, 11, 10, 11]]


def test_the_prefix_begins_each_row_and_counts_towards_its_length() -> None:
    rows = exact_rows(np.array([1, 2]), TEXT, batch_size=3, sequence_length=4)
    assert rows.tolist() == [[1, 2, 10, 11], [1, 2, 12, 13], [1, 2, 14, 10]]


@pytest.mark.parametrize("prefix", [NO_PREFIX, np.array([7], dtype=np.int64)])
def test_rows_are_int64_of_the_shape_asked_for(prefix: np.ndarray) -> None:
    rows = exact_rows(prefix, TEXT.astype(np.int32), batch_size=7, sequence_length=33)
    assert rows.shape == (7, 33)
    assert rows.dtype == "int64"


def test_distinct_rows_are_counted_by_content() -> None:
    assert count_distinct(exact_rows(NO_PREFIX, TEXT, batch_size=4, sequence_length=3)) == 4
    assert count_distinct(exact_rows(NO_PREFIX, TEXT, batch_size=12, sequence_length=3)) == 5
    assert count_distinct(exact_rows(NO_PREFIX, TEXT, batch_size=4, sequence_length=10)) == 1
