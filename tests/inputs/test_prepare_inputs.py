"""The files that a manifest, a sweep and a prompt become."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaConfig

from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.core.record import Manifest
from hfbench.core.sources import RandomSource
from hfbench.inputs.artifact import read_metadata
from hfbench.inputs.prepare import prepare_inputs
from hfbench.model.manifest import fingerprint, resolve

MakeManifest = Callable[..., Manifest]
MakePoints = Callable[[list[int], list[int], list[int]], list[Configuration]]
STANDARD = Path(__file__).parents[2] / "hfbench" / "inputs" / "standard_prompt.txt"


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
