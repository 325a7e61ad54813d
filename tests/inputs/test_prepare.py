"""The files that a manifest, workloads and a prompt become, and the sentences where they cannot be made."""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from transformers import AutoTokenizer, LlamaConfig

from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.record import Manifest
from hfbench.core.results import INPUTS, manifest_path, workloads_path
from hfbench.core.sources import RandomSource
from hfbench.inputs.prepare import check_positions, draw, prepare_inputs, token_rows, with_canonical_header
from hfbench.model.manifest import fingerprint, resolve
from hfbench.params.sections import ListedLengths, LogNormalLengths, Shape, Workloads
from tests.conftest import run_stage
from tests.inputs.conftest import PROMPT, MakeManifest, workloads


def read_rows(path: Path) -> list[list[int]]:
    """Return the rows of a file in which none is padded."""
    with safe_open(path, framework="numpy") as file:
        mask, rows = file.get_tensor("attention_mask"), file.get_tensor("input_ids")
        assert sorted(file.keys()) == ["attention_mask", "input_ids"]
    assert mask.shape == rows.shape
    assert mask.dtype == rows.dtype == "int64"
    assert mask.min() == mask.max() == 1
    result: list[list[int]] = rows.tolist()
    return result


def read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def test_rows_are_the_prompt_read_on_from_row_to_row(tmp_path: Path, make_manifest: MakeManifest) -> None:
    manifest = make_manifest("appends-eos")
    prepare_inputs(manifest, workloads([3], [40]), PROMPT, tmp_path)
    rows = read_rows(tmp_path / "uniform" / "b3-s40-n8-d0.safetensors")
    assert [len(row) for row in rows] == [40, 40, 40]
    assert [row[0] for row in rows] == [0, 0, 0]  # BOS
    tokenizer = AutoTokenizer.from_pretrained(manifest.source["path"])
    text_ids = [token_id for row in rows for token_id in row[1:]]
    assert PROMPT.read_text().startswith(str(tokenizer.decode(text_ids, clean_up_tokenization_spaces=False)))
    assert tokenizer.eos_token_id not in text_ids


def test_a_long_row_repeats_a_short_prompt(tmp_path: Path, make_manifest: MakeManifest) -> None:
    prompt = tmp_path / "short.txt"
    prompt.write_text("The river runs to the sea.\n")
    prepare_inputs(make_manifest("gpt2"), workloads([2], [100]), prompt, tmp_path)
    path = tmp_path / "uniform" / "b2-s100-n8-d0.safetensors"
    period = int(read_metadata(path)["prompt_tokens"])
    assert period < 50
    first, second = read_rows(path)
    stream = first + second
    assert all(stream[index] == stream[index % period] for index in range(200))


def test_the_tokenizer_is_loaded_once_for_all_shapes(
    tmp_path: Path, make_manifest: MakeManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = AutoTokenizer.from_pretrained, []

    def count(folder: Path, **options: Any) -> Any:
        loaded.append(folder)
        return load(folder, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", count)
    prepare_inputs(make_manifest("gpt2"), workloads([1, 2], [8, 16]), PROMPT, tmp_path)
    assert len(list((tmp_path / "uniform").iterdir())) == 4
    assert len(loaded) == 1


def test_a_random_model_with_a_smaller_vocabulary_than_its_tokenizer(
    tmp_path: Path, model_folders: dict[str, Path]
) -> None:
    config = tmp_path / "tiny.json"
    LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    ).to_json_file(config)
    source = RandomSource(source="random", config=str(config), tokenizer=str(model_folders["appends-eos"]))
    manifest = resolve("random", fingerprint("random", {"random": source}), None)
    prepare_inputs(manifest, workloads([2], [32]), PROMPT, tmp_path / "inputs")
    path = tmp_path / "inputs" / "uniform" / "b2-s32-n8-d0.safetensors"
    assert max(token_id for row in read_rows(path) for token_id in row) < 100
    assert read_metadata(path)["folded"] == "true"


def test_the_metadata_says_what_the_rows_were_made_from(tmp_path: Path, make_manifest: MakeManifest) -> None:
    prepare_inputs(make_manifest("llama"), workloads([2], [16]), PROMPT, tmp_path)
    metadata = read_metadata(tmp_path / "uniform" / "b2-s16-n8-d0.safetensors")
    assert int(metadata.pop("prompt_tokens")) > 2048
    assert len(metadata.pop("tokenizer_sha256")) == 64
    assert metadata.pop("prompt_sha256") == hashlib.sha256(PROMPT.read_bytes()).hexdigest()
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


@pytest.mark.parametrize(("batch_size", "sequence_length", "distinct"), [(4, 3, 4), (12, 3, 5), (4, 10, 1)])
def test_distinct_rows_are_counted_by_content(
    tmp_path: Path, make_manifest: MakeManifest, batch_size: int, sequence_length: int, distinct: int
) -> None:
    prompt = tmp_path / "five.txt"
    prompt.write_text("zqjxv")  # a token a letter
    prepare_inputs(make_manifest("gpt2"), workloads([batch_size], [sequence_length]), prompt, tmp_path)
    metadata = read_metadata(tmp_path / "uniform" / f"b{batch_size}-s{sequence_length}-n8-d0.safetensors")
    assert (metadata["prompt_tokens"], metadata["distinct_rows"]) == ("5", str(distinct))


def test_a_prompt_of_one_token_needs_a_context_with_the_special_token(
    tmp_path: Path, make_manifest: MakeManifest
) -> None:
    with pytest.raises(UserError, match=r"sequence_length is 1, and .* leaves no room for text. Ask for at least 2"):
        prepare_inputs(make_manifest("llama"), workloads([1], [1]), PROMPT, tmp_path)
    prepare_inputs(make_manifest("llama"), workloads([1], [1], context_depth=20), PROMPT, tmp_path)
    (row,) = read_rows(tmp_path / "uniform" / "b1-s1-n8-d20.safetensors")
    assert len(row) == 21


def run_inputs(
    folder: Path, manifest: Manifest, wanted: Workloads, prompt: Path = PROMPT
) -> subprocess.CompletedProcess[str]:
    """Run `stages.inputs`; its files lie in `folder / INPUTS`."""
    manifest.save(folder / manifest_path("tiny"))
    write_json(folder / workloads_path("tiny"), wanted.model_dump())
    return run_stage("inputs", folder, "tiny", str(prompt))


def test_adding_a_shape_changes_no_other_file(tmp_path: Path, make_manifest: MakeManifest) -> None:
    manifest = make_manifest("gpt2")
    run = run_inputs(tmp_path, manifest, workloads([1], [16], (4, 8)))
    assert run.returncode == 0
    assert "longer than" not in run.stderr  # its model_max_length is less than the prompt, and no row is that long
    before = (tmp_path / INPUTS / "tiny/uniform" / "b1-s16-n8-d0.safetensors").read_bytes()
    # Another process: the bytes depend on no order of a hash map.
    assert run_inputs(tmp_path, manifest, workloads([1, 2], [16, 300], (4, 8))).returncode == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / INPUTS / "tiny/uniform").iterdir()}
    assert set(files) == {
        f"b{batch}-s{length}-n{new}-d0.safetensors" for batch in (1, 2) for length in (16, 300) for new in (4, 8)
    }
    assert files["b1-s16-n8-d0.safetensors"] == before


def test_positions_and_prompt_are_checked_before_the_model_is_touched(
    tmp_path: Path, make_manifest: MakeManifest
) -> None:
    # A folder that does not exist would be the complaint of whatever looks at the model.
    manifest = make_manifest(
        "gpt2", max_position_embeddings=64, source={"source": "local", "path": str(tmp_path / "nowhere")}
    )
    assert "sequence_length is 65" in run_inputs(tmp_path, manifest, workloads([1], [65])).stderr
    missing = run_inputs(tmp_path, manifest, workloads([1], [16]), prompt=tmp_path / "no-prompt.txt")
    assert missing.returncode == 1
    assert missing.stderr.startswith("hfbench: the prompt ")
    assert "no-prompt.txt does not exist" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert not (tmp_path / INPUTS).exists()
    # And a model without a point needs neither.
    assert run_inputs(tmp_path, manifest, workloads([], []), prompt=tmp_path / "no-prompt.txt").returncode == 0
    assert list((tmp_path / INPUTS / "tiny").iterdir()) == []


@pytest.mark.parametrize(
    ("sequence_length", "max_new_tokens", "limit", "expected"),
    [
        ([96], (32,), 128, None),
        ([8, 120], (1, 8), 128, None),
        ([9**9], (9**9,), None, None),
        ([64, 129], (1,), 128, "sequence_length is 129, and the model 'tiny' has 128 positions"),
        ([64, 97], (8, 32), 128, "sequence_length is 97 and max_new_tokens is 32, together 129 tokens"),
        ([128], (1,), 128, "sequence_length is 128 and max_new_tokens is 1, together 129 tokens"),
    ],
)
def test_too_few_positions_name_the_key_the_value_the_model_and_the_limit(
    make_manifest: MakeManifest,
    sequence_length: list[int],
    max_new_tokens: tuple[int, ...],
    limit: int | None,
    expected: str | None,
) -> None:
    manifest = make_manifest("gpt2", max_position_embeddings=limit)
    shapes = workloads([1], sequence_length, max_new_tokens).shapes
    if expected is None:
        check_positions(manifest, shapes)
        return
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        check_positions(manifest, shapes)
    assert "'tiny' has 128 positions (max_position_embeddings or max_seq_len)" in str(error.value)


def requests(batch_sizes: list[int], entry: ListedLengths | LogNormalLengths) -> Workloads:
    """Return what asks for the entry under the name `few`, for prompts of 4 and 5 new tokens."""
    shapes = [
        Shape(request_lengths="few", batch_size=rows, sequence_length=4, max_new_tokens=5, context_depth=0)
        for rows in batch_sizes
    ]
    return Workloads(shapes=shapes, request_lengths={"few": entry})


def test_listed_requests_are_rows_padded_on_the_left(tmp_path: Path, make_manifest: MakeManifest) -> None:
    listed = ListedLengths(prompt_tokens=[4, 2, 3], new_tokens=[1, 5, 2])
    prepare_inputs(make_manifest("llama"), requests([1, 2], listed), PROMPT, tmp_path)
    prepare_inputs(make_manifest("llama"), workloads([3], [4], (5,)), PROMPT, tmp_path)
    path = tmp_path / "few" / "b2-s4-n5-d0.safetensors"
    with safe_open(path, framework="numpy") as file:
        rows, mask = file.get_tensor("input_ids").tolist(), file.get_tensor("attention_mask").tolist()
        assert file.get_tensor("prompt_tokens").tolist() == [4, 2, 3]
        assert file.get_tensor("new_tokens").tolist() == [1, 5, 2]
    uniform = read_rows(tmp_path / "uniform" / "b3-s4-n5-d0.safetensors")
    stream = [token_id for row in uniform for token_id in row[1:]]  # each row begins with BOS
    bos, pad = 1, 2
    assert mask == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert rows == [[bos, *stream[:3]], [pad, pad, bos, stream[3]], [pad, bos, *stream[4:6]]]
    metadata = read_metadata(path)
    assert (metadata["requests"], metadata["total_prompt_tokens"], metadata["total_new_tokens"]) == ("3", "9", "8")
    before = path.read_bytes()
    prepare_inputs(make_manifest("llama"), requests([2], listed), PROMPT, tmp_path)
    assert path.read_bytes() == before


def test_requests_begin_with_what_they_share_and_go_on_differently(tmp_path: Path, make_manifest: MakeManifest) -> None:
    listed = ListedLengths(prompt_tokens=[6, 5], new_tokens=[1, 5], shared_prefix_tokens=2)
    prepare_inputs(make_manifest("llama"), requests([2], listed), PROMPT, tmp_path)
    prepare_inputs(make_manifest("llama"), workloads([1], [20], (5,)), PROMPT, tmp_path)
    with safe_open(tmp_path / "few" / "b2-s4-n5-d0.safetensors", framework="numpy") as file:
        rows, mask = file.get_tensor("input_ids").tolist(), file.get_tensor("attention_mask").tolist()
    ((_, *stream),) = read_rows(tmp_path / "uniform" / "b1-s20-n5-d0.safetensors")
    first, second = (
        [token for token, shown in zip(row, shown, strict=True) if shown] for row, shown in zip(rows, mask, strict=True)
    )
    assert first == [1, *stream[:2], *stream[2:5]]
    assert second == [1, *stream[:2], *stream[5:7]]


def test_what_is_shared_must_leave_room(tmp_path: Path, make_manifest: MakeManifest) -> None:
    entry = LogNormalLengths(requests=3, sigma=0.0, shared_prefix_tokens=3)
    with pytest.raises(UserError, match="3 shared_prefix_tokens, and the longest prompt is sequence_length, 4"):
        prepare_inputs(make_manifest("llama"), requests([1], entry), PROMPT, tmp_path)
    with pytest.raises(ValueError, match="prompt_tokens of more than the 4 shared_prefix_tokens"):
        ListedLengths(prompt_tokens=[6, 4], new_tokens=[1, 5], shared_prefix_tokens=4)


def test_a_listed_prompt_without_room_for_text(tmp_path: Path, make_manifest: MakeManifest) -> None:
    short = ListedLengths(prompt_tokens=[4, 1], new_tokens=[5, 5])
    with pytest.raises(UserError, match=r"request_lengths\.few has a prompt of 1 token\(s\).* at least 2"):
        prepare_inputs(make_manifest("llama"), requests([1], short), PROMPT, tmp_path)
    assert not list(tmp_path.iterdir())


def test_drawn_lengths_are_the_same_everywhere_and_the_longest_is_the_one_asked_for() -> None:
    entry = LogNormalLengths(requests=8, sigma=0.8, seed=0)
    drawn = draw(entry, longest_prompt=128, most_new_tokens=64, shortest_prompt=2)
    assert drawn.prompt_tokens == (36, 42, 72, 38, 128, 12, 51, 16)
    assert drawn.new_tokens == (16, 13, 13, 3, 18, 28, 64, 33)
    other = draw(LogNormalLengths(requests=8, sigma=0.8, seed=1), 128, 64, 2)
    assert other.prompt_tokens != drawn.prompt_tokens
    assert draw(LogNormalLengths(requests=1, sigma=0.8), 128, 64, 2).prompt_tokens == (128,)


def test_no_drawn_request_is_too_short() -> None:
    drawn = draw(LogNormalLengths(requests=200, sigma=3.0), longest_prompt=40, most_new_tokens=20, shortest_prompt=2)
    assert (min(drawn.prompt_tokens), max(drawn.prompt_tokens)) == (2, 40)
    assert (min(drawn.new_tokens), max(drawn.new_tokens)) == (1, 20)


@pytest.mark.parametrize(
    ("prefix", "text", "rows", "expected"),
    [
        ([], [10, 11, 12, 13, 14], (2, 2), [[10, 11], [12, 13]]),
        ([], [10, 11, 12, 13, 14], (3, 4), [[10, 11, 12, 13], [14, 10, 11, 12], [13, 14, 10, 11]]),
        ([], [10, 11], (2, 5), [[10, 11, 10, 11, 10], [11, 10, 11, 10, 11]]),
        ([1, 2], [10, 11, 12, 13, 14], (3, 4), [[1, 2, 10, 11], [1, 2, 12, 13], [1, 2, 14, 10]]),
    ],
)
def test_each_row_begins_with_the_prefix_and_reads_on_in_a_text_that_begins_again(
    prefix: list[int], text: list[int], rows: tuple[int, int], expected: list[list[int]]
) -> None:
    count, length = rows
    found, mask = token_rows(np.array(prefix, dtype=np.int64), np.array(text, dtype=np.int32), [length] * count, 0)
    assert found.tolist() == expected
    assert found.dtype == mask.dtype == "int64"
    assert mask.all()


METADATA = {f"key_{index}": f"value {index}" for index in range(12)} | {"pad_token": "</s> é ▁"}


def test_bytes_are_equal_for_every_order_of_metadata_and_safetensors_reads_them(tmp_path: Path) -> None:
    # safetensors itself orders 13 entries anew at each call: two equal files of it would be one chance in 13!.
    tensors = {"input_ids": np.arange(6, dtype=np.int64).reshape(2, 3)}
    content = with_canonical_header(save(tensors, metadata=METADATA))
    assert with_canonical_header(save(tensors, metadata=dict(reversed(METADATA.items())))) == content
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    assert size % 8 == 0
    assert header.rstrip(b" ").endswith(b"}")
    assert list(json.loads(header)["__metadata__"]) == sorted(METADATA)
    assert len(content) == 8 + size + tensors["input_ids"].nbytes
    path = tmp_path / "inputs.safetensors"
    path.write_bytes(content)
    with safe_open(path, framework="numpy") as file:
        assert file.get_tensor("input_ids").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_metadata(path) == METADATA
